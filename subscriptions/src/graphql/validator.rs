//! The contract's types as async-graphql knows them: it validates documents and answers introspection. It never runs a
//! subscription.

use std::collections::HashSet;

use async_graphql::dynamic::{
    Enum, EnumItem, Field, FieldFuture, FieldValue, InputObject, InputValue, Interface, InterfaceField,
    Object, Scalar, Schema, SchemaBuilder, Subscription, SubscriptionField, SubscriptionFieldFuture, TypeRef,
    Union,
};
use async_graphql::{Request, Response, Variables};
use async_graphql_parser::types::{
    ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql_value::{ConstValue, Value};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use schemas::graph::{self, Argument, Graph, Kind};
use schemas::problem::Code;
use serde_json::Map;

use super::compile::{VALIDATION, invalid};
use super::error::{ERRORS_MAX, GraphqlError, Refused};
use super::persisted::bad_request;
use super::weight::Weights;

/// What async-graphql says of a subscription that it finds valid.
const VALID: &str = "Subscriptions are not supported on this transport.";

pub(super) struct Validator {
    schema: Schema,
    weights: Weights,
    introspection: bool,
}

impl Validator {
    pub(super) fn new(graph: &Graph, introspection: bool) -> Result<Self, String> {
        let has_fields = !graph.fields.is_empty();
        // What limits there are was checked before; theirs would only repeat the work.
        let mut builder = Schema::build("Query", None, has_fields.then_some("Subscription"))
            .limit_recursive_depth(256)
            .disable_suggestions()
            .register(query(&graph.sdl))
            .register(service());
        for ty in graph.types.values() {
            builder = register(builder, ty);
        }
        if has_fields {
            builder = builder.register(subscription(graph)?);
        }
        let schema = builder.finish().map_err(|error| error.to_string())?;
        Ok(Self {
            schema,
            weights: Weights::new(graph),
            introspection,
        })
    }

    /// Validates a document of which a subscription would be run; variables' values are not looked at.
    pub(super) fn check(&self, document: ExecutableDocument, name: Option<&str>) -> Result<(), Refused> {
        let response = self.run(document, name, Variables::default())?;
        match &response.errors[..] {
            [only] if only.message == VALID => Ok(()),
            [] => Err(Refused::ours(Code::INTERNAL, Code::INTERNAL.title)),
            _ => Err(refused(&response)),
        }
    }

    /// Answers a query: the whole response.
    pub(super) fn answer(
        &self,
        document: ExecutableDocument,
        operation: &OperationDefinition,
        name: Option<&str>,
        variables: &Map<String, serde_json::Value>,
    ) -> Result<Bytes, Refused> {
        if operation.ty == OperationType::Mutation {
            return Err(invalid(
                "there are no mutations here",
                operation.selection_set.pos,
            ));
        }
        let selected = &operation.selection_set.node;
        self.check_introspection(&document, selected)?;
        self.weights.check(&document, selected)?;
        let variables = Variables::from_json(serde_json::Value::Object(variables.clone()));
        let response = self.run(document, name, variables)?;
        if !response.errors.is_empty() {
            return Err(refused(&response));
        }
        let text = serde_json::to_vec(&response).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written");
            Refused::ours(Code::INTERNAL, Code::INTERNAL.title)
        })?;
        Ok(Bytes::from(text))
    }

    fn run(
        &self,
        document: ExecutableDocument,
        name: Option<&str>,
        variables: Variables,
    ) -> Result<Response, Refused> {
        let mut request = Request::new("").variables(variables);
        if let Some(name) = name {
            request = request.operation_name(name);
        }
        request.set_parsed_query(document);
        // Nothing in it waits for anything.
        self.schema.execute(request).now_or_never().ok_or_else(|| {
            tracing::error!("validation did not end at once");
            Refused::ours(Code::INTERNAL, Code::INTERNAL.title)
        })
    }

    /// Bounded: the document's costs were checked with its fragments spread.
    fn check_introspection(&self, document: &ExecutableDocument, set: &SelectionSet) -> Result<(), Refused> {
        if self.introspection {
            return Ok(());
        }
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let name = field.node.name.node.as_str();
                    if matches!(name, "__schema" | "__type") {
                        return Err(invalid("introspection is switched off", field.pos));
                    }
                    self.check_introspection(document, &field.node.selection_set.node)?;
                }
                Selection::InlineFragment(fragment) => {
                    self.check_introspection(document, &fragment.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        self.check_introspection(document, &fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn refused(response: &Response) -> Refused {
    let error = |error: &async_graphql::ServerError| {
        let code = if error.message.starts_with("Invalid value for argument") {
            "BAD_USER_INPUT"
        } else {
            VALIDATION
        };
        let places = error.locations.iter().copied();
        places.fold(GraphqlError::new(code, error.message.clone()), GraphqlError::at)
    };
    let errors: Vec<GraphqlError> = response.errors.iter().take(ERRORS_MAX).map(error).collect();
    if errors.is_empty() {
        return bad_request("the operation is not valid");
    }
    Refused {
        errors,
        code: Code::OPERATION_INVALID,
    }
}

/// `Query` has what a subgraph must have; the rest of it is other subgraphs' business.
fn query(sdl: &str) -> Object {
    let sdl = sdl.to_owned();
    Object::new("Query").field(Field::new("_service", TypeRef::named_nn("_Service"), move |_| {
        FieldFuture::Value(Some(FieldValue::value(sdl.clone())))
    }))
}

fn service() -> Object {
    Object::new("_Service").field(Field::new("sdl", TypeRef::named(TypeRef::STRING), |context| {
        FieldFuture::Value(context.parent_value.as_value().cloned().map(FieldValue::value))
    }))
}

fn subscription(graph: &Graph) -> Result<Subscription, String> {
    let mut root = Subscription::new("Subscription");
    for field in graph.fields.values() {
        let mut one = SubscriptionField::new(&*field.name, reference(&field.ty), |_| {
            SubscriptionFieldFuture::new(async {
                Ok(stream::empty::<async_graphql::Result<FieldValue<'_>>>())
            })
        });
        for argument in &field.arguments {
            one = one.argument(input(&argument.argument)?);
        }
        if let Some(text) = &field.description {
            one = one.description(text);
        }
        if let Some(reason) = &field.deprecated {
            one = one.deprecation(Some(reason));
        }
        root = root.field(one);
    }
    Ok(root)
}

fn register(builder: SchemaBuilder, ty: &graph::Type) -> SchemaBuilder {
    const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];
    macro_rules! described {
        ($new:expr) => {
            match &ty.description {
                Some(text) => $new.description(text),
                None => $new,
            }
        };
    }
    match &ty.kind {
        Kind::Scalar(_) if BUILT_IN.contains(&&*ty.name) => builder,
        Kind::Scalar(_) => builder.register(described!(Scalar::new(&*ty.name))),
        Kind::Enum(values) => {
            let item = |value: &graph::EnumValue| {
                let mut item = EnumItem::new(&*value.name);
                if let Some(text) = &value.description {
                    item = item.description(text);
                }
                if let Some(reason) = &value.deprecated {
                    item = item.deprecation(Some(reason));
                }
                item
            };
            builder.register(described!(Enum::new(&*ty.name)).items(values.iter().map(item)))
        }
        Kind::Object(object) => {
            let mut made = described!(Object::new(&*ty.name));
            for interface in &object.interfaces {
                made = made.implement(&**interface);
            }
            for field in &object.fields {
                let mut one = Field::new(&*field.name, reference(&field.ty), |_| FieldFuture::Value(None));
                if let Some(text) = &field.description {
                    one = one.description(text);
                }
                if let Some(reason) = &field.deprecated {
                    one = one.deprecation(Some(reason));
                }
                made = made.field(one);
            }
            builder.register(made)
        }
        Kind::Interface(interface) => {
            let mut made = described!(Interface::new(&*ty.name));
            for above in &interface.interfaces {
                made = made.implement(&**above);
            }
            for field in &interface.fields {
                let mut one = InterfaceField::new(&*field.name, reference(&field.ty));
                if let Some(text) = &field.description {
                    one = one.description(text);
                }
                if let Some(reason) = &field.deprecated {
                    one = one.deprecation(Some(reason));
                }
                made = made.field(one);
            }
            builder.register(made)
        }
        Kind::Union(union) => {
            let mut made = described!(Union::new(&*ty.name));
            let mut named = HashSet::new();
            for object in union.objects.iter().filter(|object| named.insert(*object)) {
                made = made.possible_type(&**object);
            }
            builder.register(made)
        }
        Kind::Input(fields) => {
            let mut made = described!(InputObject::new(&*ty.name));
            for field in fields.iter().filter_map(|field| input(field).ok()) {
                made = made.field(field);
            }
            builder.register(made)
        }
    }
}

fn input(argument: &Argument) -> Result<InputValue, String> {
    let mut made = InputValue::new(&*argument.name, reference(&argument.ty));
    if let Some(text) = &argument.description {
        made = made.description(text);
    }
    if let Some(default) = &argument.default {
        let value =
            constant(default).ok_or_else(|| format!("the default of {} is no value", argument.name))?;
        made = made.default_value(value);
    }
    Ok(made)
}

/// Reads a value as GraphQL writes it.
pub(super) fn constant(text: &str) -> Option<ConstValue> {
    let document = async_graphql_parser::parse_query(format!("{{a(a:{text})}}")).ok()?;
    let (_, operation) = document.operations.iter().next()?;
    let Selection::Field(field) = &operation.node.selection_set.node.items.first()?.node else {
        return None;
    };
    let value: Value = field.node.get_argument("a")?.node.clone();
    value.into_const()
}

fn reference(ty: &graph::TypeRef) -> TypeRef {
    let made = match ty {
        graph::TypeRef::Named { name, .. } => TypeRef::named(&**name),
        graph::TypeRef::List { of, .. } => TypeRef::List(Box::new(reference(of))),
    };
    if ty.nullable() {
        made
    } else {
        TypeRef::NonNull(Box::new(made))
    }
}
