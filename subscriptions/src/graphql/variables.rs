//! Input coercion (specification, sections 3.12, 6.1.2 and 6.4.1): what a client gives, checked against the types of
//! arguments, as the text that attributes have. Errors name variables, arguments and types, never a value.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql_parser::types::{BaseType, Type as TypeNode, VariableDefinition};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{ConstValue, Value as Literal};
use schemas::graph::{Argument, Graph, Kind, Scalar, TypeRef};
use schemas::problem::Code;
use serde_json::{Map, Value};

use super::error::{GraphqlError, Refused};

/// What Apollo's servers call it.
const BAD_INPUT: &str = "BAD_USER_INPUT";

/// A value that its type accepts. A copy shares what it holds: a document may name one variable in thousands of places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// Nothing.
    Null,
    /// A scalar, or what an enum's value is in the document.
    Text(Arc<str>),
    /// A boolean.
    Boolean(bool),
    /// Several.
    List(Arc<[Self]>),
    /// An input object, or a part of free JSON: no attribute has such a value.
    Other,
}

/// The variables of one request.
pub(super) type Variables = HashMap<String, Input>;

/// It does not suit; the words say what is wanted.
struct Unsuitable;

/// Coerces a request's variables by their definitions. Those that are not given and have no default are not in the
/// result.
pub(super) fn variables(
    graph: &Graph,
    definitions: &[Positioned<VariableDefinition>],
    given: &Map<String, Value>,
) -> Result<Variables, Refused> {
    let mut variables = Variables::with_capacity(definitions.len());
    for definition in definitions {
        let name = definition.node.name.node.as_str();
        let ty = type_of(&definition.node.var_type.node);
        let unsuitable = || bad_input(format!("variable ${name} must be of type {ty}"), definition.pos);
        let value = match (given.get(name), &definition.node.default_value) {
            (Some(value), _) => json(graph, &ty, value).map_err(|Unsuitable| unsuitable())?,
            (None, Some(default)) => {
                let literal = default.node.clone().into_value();
                self::literal(graph, &ty, &literal, &Variables::new()).map_err(|Unsuitable| unsuitable())?
            }
            (None, None) if ty.nullable() => continue,
            (None, None) => return Err(unsuitable()),
        };
        variables.insert(name.to_owned(), value);
    }
    Ok(variables)
}

/// Coerces an argument; `None` if it is not given and has no default.
pub(super) fn argument(
    graph: &Graph,
    argument: &Argument,
    given: Option<&Positioned<Literal>>,
    default: Option<&Literal>,
    variables: &Variables,
    place: Pos,
) -> Result<Option<Input>, Refused> {
    let unsuitable = |place| {
        bad_input(
            format!("argument {} must be of type {}", argument.name, argument.ty),
            place,
        )
    };
    let place = given.map_or(place, |given| given.pos);
    // A variable that is not given is as if the argument was not.
    let given = given.map(|given| &given.node).filter(|literal| match literal {
        Literal::Variable(name) => variables.contains_key(name.as_str()),
        _ => true,
    });
    match given.or(default) {
        Some(literal) => self::literal(graph, &argument.ty, literal, variables)
            .map(Some)
            .map_err(|Unsuitable| unsuitable(place)),
        None if argument.ty.nullable() => Ok(None),
        None => Err(unsuitable(place)),
    }
}

/// Checks that every variable in an argument may stand there (specification, section 5.8.5).
pub(super) fn check_position(
    argument: &Argument,
    given: &Positioned<Literal>,
    definitions: &[Positioned<VariableDefinition>],
) -> Result<(), Refused> {
    let has_default = argument.default.is_some();
    if may_stand(&argument.ty, &given.node, has_default, definitions) {
        return Ok(());
    }
    let message = format!(
        "argument {} is {}, and its variable is of another type",
        argument.name, argument.ty
    );
    Err(super::compile::invalid(message, given.pos))
}

fn may_stand(
    ty: &TypeRef,
    literal: &Literal,
    has_default: bool,
    definitions: &[Positioned<VariableDefinition>],
) -> bool {
    match (ty, literal) {
        (ty, Literal::Variable(name)) => {
            let definition = definitions
                .iter()
                .find(|definition| definition.node.name.node == *name);
            definition.is_some_and(|definition| {
                let default = definition.node.default_value.as_ref();
                let is_there = has_default || default.is_some_and(|value| value.node != ConstValue::Null);
                is_subtype(&type_of(&definition.node.var_type.node), ty, is_there)
            })
        }
        (TypeRef::List { of, .. }, Literal::List(values)) => values
            .iter()
            .all(|value| may_stand(of, value, false, definitions)),
        // Input objects do not filter: what is in them is checked when they are coerced.
        _ => true,
    }
}

/// Whether each value of one type is one of the other; `is_there`: whether a default takes the place of nothing.
fn is_subtype(one: &TypeRef, other: &TypeRef, is_there: bool) -> bool {
    if one.nullable() && !other.nullable() && !is_there {
        return false;
    }
    match (one, other) {
        (TypeRef::Named { name: one, .. }, TypeRef::Named { name: other, .. }) => one == other,
        (TypeRef::List { of: one, .. }, TypeRef::List { of: other, .. }) => is_subtype(one, other, false),
        _ => false,
    }
}

/// A type as a document writes it.
fn type_of(node: &TypeNode) -> TypeRef {
    match &node.base {
        BaseType::Named(name) => TypeRef::Named {
            name: Arc::from(name.as_str()),
            nullable: node.nullable,
        },
        BaseType::List(of) => TypeRef::List {
            of: Box::new(type_of(of)),
            nullable: node.nullable,
        },
    }
}

fn json(graph: &Graph, ty: &TypeRef, value: &Value) -> Result<Input, Unsuitable> {
    let name = match (ty, value) {
        (ty, Value::Null) => return null(ty),
        (TypeRef::List { of, .. }, Value::Array(values)) => {
            let inputs = values.iter().map(|value| json(graph, of, value));
            return inputs.collect::<Result<_, _>>().map(Input::List);
        }
        (TypeRef::List { of, .. }, single) => return Ok(Input::List([json(graph, of, single)?].into())),
        (TypeRef::Named { name, .. }, _) => name,
    };
    match (graph.types.get(name).map(|ty| &ty.kind), value) {
        (Some(Kind::Enum(values)), Value::String(given)) => {
            let found = values.iter().find(|value| *value.name == **given);
            found
                .map(|value| Input::Text(Arc::clone(&value.json)))
                .ok_or(Unsuitable)
        }
        (Some(Kind::Scalar(scalar)), value) => scalar_of_json(*scalar, value),
        (Some(Kind::Input(fields)), Value::Object(members)) => {
            if members
                .keys()
                .any(|name| fields.iter().all(|field| *field.name != **name))
            {
                return Err(Unsuitable);
            }
            for field in fields {
                match members.get(&*field.name) {
                    Some(value) => drop(json(graph, &field.ty, value)?),
                    None if field.ty.nullable() || field.default.is_some() => {}
                    None => return Err(Unsuitable),
                }
            }
            Ok(Input::Other)
        }
        _ => Err(Unsuitable),
    }
}

fn literal(graph: &Graph, ty: &TypeRef, value: &Literal, variables: &Variables) -> Result<Input, Unsuitable> {
    if let Literal::Variable(name) = value {
        let input = variables.get(name.as_str()).cloned().unwrap_or(Input::Null);
        return match (ty, input) {
            (ty, Input::Null) => null(ty),
            (TypeRef::List { .. }, list @ Input::List(_)) => Ok(list),
            (TypeRef::List { .. }, single) => Ok(Input::List([single].into())),
            (TypeRef::Named { .. }, Input::List(_)) => Err(Unsuitable),
            (TypeRef::Named { .. }, input) => Ok(input),
        };
    }
    let name = match (ty, value) {
        (ty, Literal::Null) => return null(ty),
        (TypeRef::List { of, .. }, Literal::List(values)) => {
            let inputs = values.iter().map(|value| literal(graph, of, value, variables));
            return inputs.collect::<Result<_, _>>().map(Input::List);
        }
        (TypeRef::List { of, .. }, single) => {
            return Ok(Input::List([literal(graph, of, single, variables)?].into()));
        }
        (TypeRef::Named { name, .. }, _) => name,
    };
    match (graph.types.get(name).map(|ty| &ty.kind), value) {
        (Some(Kind::Enum(values)), Literal::Enum(given)) => {
            let found = values.iter().find(|value| &*value.name == given.as_str());
            found
                .map(|value| Input::Text(Arc::clone(&value.json)))
                .ok_or(Unsuitable)
        }
        (Some(Kind::Scalar(Scalar::Any)), Literal::List(_) | Literal::Object(_)) => Ok(Input::Other),
        (Some(Kind::Scalar(scalar)), Literal::Number(number)) => {
            scalar_of_json(*scalar, &Value::Number(number.clone()))
        }
        (Some(Kind::Scalar(scalar)), Literal::String(text)) => {
            scalar_of_json(*scalar, &Value::String(text.clone()))
        }
        (Some(Kind::Scalar(scalar)), Literal::Boolean(value)) => {
            scalar_of_json(*scalar, &Value::Bool(*value))
        }
        (Some(Kind::Input(fields)), Literal::Object(members)) => {
            if members
                .keys()
                .any(|name| fields.iter().all(|field| &*field.name != name.as_str()))
            {
                return Err(Unsuitable);
            }
            for field in fields {
                match members.get(&*field.name) {
                    Some(value) => drop(literal(graph, &field.ty, value, variables)?),
                    None if field.ty.nullable() || field.default.is_some() => {}
                    None => return Err(Unsuitable),
                }
            }
            Ok(Input::Other)
        }
        _ => Err(Unsuitable),
    }
}

fn null(ty: &TypeRef) -> Result<Input, Unsuitable> {
    if ty.nullable() {
        Ok(Input::Null)
    } else {
        Err(Unsuitable)
    }
}

fn scalar_of_json(scalar: Scalar, value: &Value) -> Result<Input, Unsuitable> {
    let is_whole = |number: &serde_json::Number| number.is_i64() || number.is_u64();
    match (scalar, value) {
        (Scalar::Any, Value::Array(_) | Value::Object(_)) => Ok(Input::Other),
        (Scalar::String | Scalar::Id | Scalar::DateTime | Scalar::Any, Value::String(text)) => {
            Ok(Input::Text(text.as_str().into()))
        }
        (Scalar::Boolean | Scalar::Any, Value::Bool(value)) => Ok(Input::Boolean(*value)),
        (Scalar::Int, Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| {
                let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
                format!("{float:.0}").parse().ok()
            });
            let whole = whole
                .and_then(|whole| i32::try_from(whole).ok())
                .ok_or(Unsuitable)?;
            Ok(Input::Text(whole.to_string().into()))
        }
        (Scalar::Id | Scalar::Long, Value::Number(number)) if is_whole(number) => {
            Ok(Input::Text(number.to_string().into()))
        }
        (Scalar::Float | Scalar::Any, Value::Number(number)) => Ok(Input::Text(number.to_string().into())),
        _ => Err(Unsuitable),
    }
}

pub(super) fn bad_input(message: impl Into<String>, place: Pos) -> Refused {
    Refused::new(
        Code::OPERATION_INVALID,
        GraphqlError::new(BAD_INPUT, message).at(place),
    )
}
