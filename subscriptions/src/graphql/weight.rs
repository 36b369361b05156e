//! How large the answer to a query may become: the SDL under many names, and the lists of introspection, which multiply.
//!
//! Invariant: an answer is at most linear in the contract, whatever the query: common tools ask some hundred bytes about
//! each type and field, and the budget grows with how many of them there are.

use async_graphql_parser::types::{ExecutableDocument, Selection, SelectionSet};
use schemas::graph::{Graph, Kind};
use schemas::problem::Code;

use super::error::Refused;

/// What a query may answer with of each type, field, argument and value of the contract, in bytes, roughly. The standard
/// introspection query takes some 800 of a field.
const EACH_BYTES_MAX: usize = 2 << 10;

/// What every schema has: the types of introspection itself, and directives.
const OWN: usize = 48;

/// The most directives of a schema, and the most places where one may stand.
const DIRECTIVES: usize = 24;

/// A value beside its name.
const VALUE_BYTES: usize = 16;

/// What people wrote: descriptions, reasons, defaults.
const TEXT_BYTES: usize = 64;

/// The SDL counts so many times: a copy of it is the largest thing that there is, and nobody needs a second.
const SDL_FACTOR: usize = 8;

/// How many of a thing there are.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// In the whole schema.
    all: usize,
    /// The most of one type, or of one field.
    most: usize,
}

impl Count {
    fn add(&mut self, count: usize) {
        self.all += count;
        self.most = self.most.max(count);
    }
}

/// What there is in a contract that introspection can list.
pub(super) struct Weights {
    types: usize,
    fields: Count,
    arguments: Count,
    values: Count,
    inputs: Count,
    /// Interfaces of a type, and types of an interface or a union.
    related: Count,
    /// With its factor.
    sdl_bytes: usize,
    bytes_max: usize,
}

/// What the objects of a selection are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One thing.
    One,
    /// Every type of the schema.
    Types,
    /// Every field of every type.
    Fields,
    /// Every directive.
    Directives,
}

/// So many times what there is at a place.
#[derive(Clone, Copy)]
struct Here {
    times: usize,
    place: Place,
}

impl Weights {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut weights = Self {
            types: graph.types.len() + OWN,
            fields: Count::default(),
            arguments: Count::default(),
            values: Count::default(),
            inputs: Count::default(),
            related: Count::default(),
            sdl_bytes: graph.sdl.len() * SDL_FACTOR,
            bytes_max: 0,
        };
        for count in [
            &mut weights.fields,
            &mut weights.arguments,
            &mut weights.values,
            &mut weights.inputs,
            &mut weights.related,
        ] {
            *count = Count {
                all: OWN,
                most: DIRECTIVES,
            };
        }
        for ty in graph.types.values() {
            match &ty.kind {
                Kind::Scalar(_) => {}
                Kind::Enum(values) => weights.values.add(values.len()),
                Kind::Object(object) => {
                    weights.fields.add(object.fields.len());
                    weights.related.add(object.interfaces.len());
                }
                Kind::Interface(interface) => {
                    weights.fields.add(interface.fields.len());
                    weights.related.add(interface.interfaces.len());
                    weights.related.add(interface.objects.len());
                }
                Kind::Union(union) => weights.related.add(union.objects.len()),
                Kind::Input(fields) => weights.inputs.add(fields.len()),
            }
        }
        weights.fields.add(graph.fields.len());
        for field in graph.fields.values() {
            weights.arguments.add(field.arguments.len());
        }
        let things = weights.types
            + weights.fields.all
            + weights.arguments.all
            + weights.values.all
            + weights.inputs.all
            + weights.related.all;
        weights.bytes_max = (EACH_BYTES_MAX * things).max(weights.sdl_bytes * 2);
        weights
    }

    /// Refuses a query whose answer could be larger than there is reason for. The document's costs were checked with its
    /// fragments spread, so that this ends.
    pub(super) fn check(&self, document: &ExecutableDocument, set: &SelectionSet) -> Result<(), Refused> {
        let mut left = self.bytes_max;
        let here = Here {
            times: 1,
            place: Place::One,
        };
        if self.take(document, set, here, &mut left).is_some() {
            return Ok(());
        }
        Err(Refused::ours(
            Code::OPERATION_TOO_LARGE,
            "the answer would be too large",
        ))
    }

    /// Takes what a selection could weigh; `None` if that is more than is left.
    fn take(
        &self,
        document: &ExecutableDocument,
        set: &SelectionSet,
        here: Here,
        left: &mut usize,
    ) -> Option<()> {
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let name = field.node.name.node.as_str();
                    let text = match name {
                        "sdl" => self.sdl_bytes,
                        "description" | "deprecationReason" | "defaultValue" => TEXT_BYTES,
                        "locations" => DIRECTIVES * VALUE_BYTES,
                        _ => 0,
                    };
                    let each = VALUE_BYTES + text + field.node.response_key().node.len();
                    *left = left.checked_sub(self.number(here).saturating_mul(each))?;
                    let below = self.below(name, here);
                    self.take(document, &field.node.selection_set.node, below, left)?;
                }
                Selection::InlineFragment(fragment) => {
                    self.take(document, &fragment.node.selection_set.node, here, left)?;
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                        self.take(document, &fragment.node.selection_set.node, here, left)?;
                    }
                }
            }
        }
        Some(())
    }

    /// How many objects there are.
    fn number(&self, here: Here) -> usize {
        here.times.saturating_mul(match here.place {
            Place::One => 1,
            Place::Types => self.types,
            Place::Fields => self.fields.all,
            Place::Directives => DIRECTIVES,
        })
    }

    /// What is below a field of these objects.
    fn below(&self, name: &str, here: Here) -> Here {
        let each = self.number(here);
        let one = |times: usize| Here {
            times,
            place: Place::One,
        };
        let counted = match name {
            "types" => {
                return Here {
                    times: each,
                    place: Place::Types,
                };
            }
            "directives" => {
                return Here {
                    times: each,
                    place: Place::Directives,
                };
            }
            "fields" => self.fields,
            "args" => self.arguments,
            "enumValues" => self.values,
            "inputFields" => self.inputs,
            "interfaces" | "possibleTypes" => self.related,
            _ => return one(each),
        };
        match (here.place, name) {
            (Place::Types, "fields") => Here {
                times: here.times,
                place: Place::Fields,
            },
            (Place::Directives, "args") => one(here.times.saturating_mul(OWN)),
            (Place::Types, _) | (Place::Fields, "args") => one(here.times.saturating_mul(counted.all)),
            _ => one(each.saturating_mul(counted.most)),
        }
    }
}
