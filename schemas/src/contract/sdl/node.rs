//! One type of the SDL as it is written: its parts with their places, read from the parser's tree.
//!
//! Invariant: nothing that was written is left out but comments, so that everything behind it (names, pointers, bindings,
//! the digest, the printed SDL) is told from here and files are parsed once. It does not know other types.

use std::path::Path;

use async_graphql_parser::types::{
    ConstDirective, EnumValueDefinition, FieldDefinition, InputValueDefinition, Type, TypeDefinition,
    TypeKind,
};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{ConstValue, Name};

use super::super::finding::{Findings, Place};
use super::super::settings::Placed;
use crate::project::Pointer;

/// A type with all its extensions.
#[derive(Debug)]
pub(in crate::contract) struct TypeNode {
    /// Where it is defined; `None` as long as only extensions were seen.
    pub(in crate::contract) defined: Option<Place>,
    /// Where it is first seen.
    pub(in crate::contract) place: Place,
    /// For people.
    pub(in crate::contract) description: Option<String>,
    pub(in crate::contract) shape: Shape,
    pub(in crate::contract) directives: Vec<Directive>,
}

#[derive(Debug)]
pub(in crate::contract) enum Shape {
    Scalar,
    Enum {
        values: Vec<EnumValue>,
    },
    /// Objects and interfaces: what can be walked by field.
    Object {
        interface: bool,
        implements: Vec<Placed<String>>,
        fields: Vec<Field>,
    },
    Union {
        members: Vec<Placed<String>>,
    },
    Input {
        fields: Vec<Input>,
    },
}

#[derive(Debug)]
pub(in crate::contract) struct Field {
    pub(in crate::contract) name: String,
    pub(in crate::contract) place: Place,
    pub(in crate::contract) description: Option<String>,
    pub(in crate::contract) ty: Type,
    pub(in crate::contract) arguments: Vec<Input>,
    pub(in crate::contract) directives: Vec<Directive>,
    /// Where it is found in its object's JSON: its name, or `@json(pointer:)`.
    pub(in crate::contract) pointer: Pointer,
    /// The pointer's segments.
    pub(in crate::contract) path: Vec<String>,
}

/// An argument, or a field of an input type.
#[derive(Debug)]
pub(in crate::contract) struct Input {
    pub(in crate::contract) name: String,
    pub(in crate::contract) place: Place,
    pub(in crate::contract) description: Option<String>,
    pub(in crate::contract) ty: Placed<Type>,
    pub(in crate::contract) default: Option<Placed<ConstValue>>,
    pub(in crate::contract) directives: Vec<Directive>,
}

#[derive(Debug)]
pub(in crate::contract) struct EnumValue {
    pub(in crate::contract) name: String,
    pub(in crate::contract) place: Place,
    pub(in crate::contract) description: Option<String>,
    pub(in crate::contract) directives: Vec<Directive>,
}

#[derive(Debug)]
pub(in crate::contract) struct Directive {
    pub(in crate::contract) name: String,
    pub(in crate::contract) place: Place,
    pub(in crate::contract) arguments: Vec<(Placed<String>, Placed<ConstValue>)>,
}

impl Directive {
    /// The value of an argument, if it is given.
    pub(in crate::contract) fn argument(&self, name: &str) -> Option<&Placed<ConstValue>> {
        let mut arguments = self.arguments.iter();
        arguments
            .find(|(given, _)| given.value == name)
            .map(|(_, value)| value)
    }

    /// The same, if it is a string.
    pub(in crate::contract) fn text(&self, name: &str) -> Option<&str> {
        match &self.argument(name)?.value {
            ConstValue::String(text) => Some(text),
            _ => None,
        }
    }
}

/// The first directive of that name.
pub(in crate::contract) fn directive<'d>(directives: &'d [Directive], name: &str) -> Option<&'d Directive> {
    directives.iter().find(|directive| directive.name == name)
}

impl TypeNode {
    /// The directives of the type and of all its parts.
    pub(super) fn directives_mut(&mut self) -> Vec<&mut Directive> {
        let mut all: Vec<&mut Directive> = self.directives.iter_mut().collect();
        match &mut self.shape {
            Shape::Scalar | Shape::Union { .. } => {}
            Shape::Enum { values } => all.extend(values.iter_mut().flat_map(|value| &mut value.directives)),
            Shape::Object { fields, .. } => {
                for field in fields {
                    all.extend(&mut field.directives);
                    all.extend(field.arguments.iter_mut().flat_map(|input| &mut input.directives));
                }
            }
            Shape::Input { fields } => all.extend(fields.iter_mut().flat_map(|input| &mut input.directives)),
        }
        all
    }
}

impl Shape {
    /// Adds an extension's parts; false if it is of another kind.
    pub(super) fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Scalar, Self::Scalar) => {}
            (Self::Enum { values }, Self::Enum { values: more }) => values.extend(more),
            (Self::Union { members }, Self::Union { members: more }) => members.extend(more),
            (Self::Input { fields }, Self::Input { fields: more }) => fields.extend(more),
            (
                Self::Object {
                    interface,
                    implements,
                    fields,
                },
                Self::Object {
                    interface: other,
                    implements: more,
                    fields: more_fields,
                },
            ) if *interface == other => {
                implements.extend(more);
                fields.extend(more_fields);
            }
            _ => return false,
        }
        true
    }
}

/// Reads the definitions of one file.
pub(super) struct Reader<'f> {
    pub(super) file: &'f Path,
    pub(super) findings: &'f Findings,
}

impl Reader<'_> {
    pub(super) fn node(&self, ty: TypeDefinition) -> TypeNode {
        let place = self.place(ty.name.pos);
        TypeNode {
            defined: (!ty.extend).then(|| place.clone()),
            place,
            description: ty.description.map(|text| text.node),
            shape: self.shape(ty.kind),
            directives: self.directives(ty.directives),
        }
    }

    pub(super) fn place(&self, pos: Pos) -> Place {
        Place {
            file: self.file.to_path_buf(),
            line: pos.line,
            column: pos.column,
        }
    }

    fn shape(&self, kind: TypeKind) -> Shape {
        match kind {
            TypeKind::Scalar => Shape::Scalar,
            TypeKind::Enum(ty) => Shape::Enum {
                values: ty
                    .values
                    .into_iter()
                    .map(|value| self.value(value.node))
                    .collect(),
            },
            TypeKind::Object(ty) => Shape::Object {
                interface: false,
                implements: self.names(ty.implements),
                fields: self.fields(ty.fields),
            },
            TypeKind::Interface(ty) => Shape::Object {
                interface: true,
                implements: self.names(ty.implements),
                fields: self.fields(ty.fields),
            },
            TypeKind::Union(ty) => Shape::Union {
                members: self.names(ty.members),
            },
            TypeKind::InputObject(ty) => Shape::Input {
                fields: self.inputs(ty.fields),
            },
        }
    }

    fn names(&self, names: Vec<Positioned<Name>>) -> Vec<Placed<String>> {
        let name = |name: Positioned<Name>| Placed {
            value: name.node.to_string(),
            place: self.place(name.pos),
        };
        names.into_iter().map(name).collect()
    }

    fn fields(&self, fields: Vec<Positioned<FieldDefinition>>) -> Vec<Field> {
        fields
            .into_iter()
            .filter_map(|field| self.field(field.node))
            .collect()
    }

    /// `None` of a field that cannot be found in any document, which is reported.
    fn field(&self, field: FieldDefinition) -> Option<Field> {
        let name = field.name.node.to_string();
        let place = self.place(field.name.pos);
        let directives = self.directives(field.directives);
        let pointer = self.pointer(&name, &place, &directives)?;
        Some(Field {
            path: pointer.segments().map(str::to_owned).collect(),
            pointer,
            name,
            place,
            description: field.description.map(|text| text.node),
            ty: field.ty.node,
            arguments: self.inputs(field.arguments),
            directives,
        })
    }

    /// Where a field is found: what `@json(pointer:)` says, or its name.
    fn pointer(&self, name: &str, place: &Place, directives: &[Directive]) -> Option<Pointer> {
        const MEND: &str = "write a JSON pointer: \"/a/b\"";
        let by_name = Pointer::parse(&format!("/{name}"));
        let written = directive(directives, "json").and_then(|json| json.argument("pointer"));
        let Some(written) = written else {
            return by_name
                .map_err(|bad| {
                    let mend = "choose a shorter name";
                    self.findings
                        .report(place, "pointer_invalid", bad.to_string(), mend);
                })
                .ok();
        };
        let ConstValue::String(text) = &written.value else {
            let message = "`pointer` is no string";
            self.findings
                .report(&written.place, "pointer_invalid", message, MEND);
            return by_name.ok();
        };
        match Pointer::parse(text) {
            Ok(pointer) if pointer.has_wildcard() => {
                let message = format!("{text:?} could find several values, and a field has one");
                let mend = "point at one value; a list is read by a field whose type is a list";
                self.findings
                    .report(&written.place, "json_wildcard", message, mend);
                by_name.ok()
            }
            Ok(pointer) => Some(pointer),
            Err(bad) => {
                self.findings
                    .report(&written.place, "pointer_invalid", bad.to_string(), MEND);
                by_name.ok()
            }
        }
    }

    fn inputs(&self, inputs: Vec<Positioned<InputValueDefinition>>) -> Vec<Input> {
        inputs.into_iter().map(|input| self.input(input.node)).collect()
    }

    fn input(&self, input: InputValueDefinition) -> Input {
        Input {
            name: input.name.node.to_string(),
            place: self.place(input.name.pos),
            description: input.description.map(|text| text.node),
            ty: self.placed(input.ty),
            default: input.default_value.map(|value| self.placed(value)),
            directives: self.directives(input.directives),
        }
    }

    fn value(&self, value: EnumValueDefinition) -> EnumValue {
        EnumValue {
            name: value.value.node.to_string(),
            place: self.place(value.value.pos),
            description: value.description.map(|text| text.node),
            directives: self.directives(value.directives),
        }
    }

    fn directives(&self, directives: Vec<Positioned<ConstDirective>>) -> Vec<Directive> {
        let argument = |(name, value): (Positioned<Name>, Positioned<ConstValue>)| {
            (self.placed(name).map(|name| name.to_string()), self.placed(value))
        };
        let read = |directive: Positioned<ConstDirective>| Directive {
            name: directive.node.name.node.to_string(),
            place: self.place(directive.pos),
            arguments: directive.node.arguments.into_iter().map(argument).collect(),
        };
        directives.into_iter().map(read).collect()
    }

    fn placed<T>(&self, positioned: Positioned<T>) -> Placed<T> {
        Placed {
            place: self.place(positioned.pos),
            value: positioned.node,
        }
    }
}
