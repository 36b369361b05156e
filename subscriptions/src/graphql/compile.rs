//! A validated selection becomes a plan: fields collected for each object type that a value can have (specification,
//! section 6.3.2), conditions decided, everything found by name found once.
//!
//! Invariant: the work is bounded, whatever the document: each set of fields is compiled once for each type, and there is
//! a budget for the sum.

mod collect;
mod shape;

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql_parser::types::{ExecutableDocument, Field as FieldNode, SelectionSet};
use async_graphql_parser::{Pos, Positioned};
use schemas::graph::{self, Emit, Graph, Kind, Name, Requires, RootField, TypeRef};
use schemas::problem::Code;
use schemas::project::{Names, Pointer};

use super::error::{GraphqlError, Refused};
use super::interner::Interner;
use super::plan::{
    EventField, EventSelection, EventSource, Field, Key, Leaf, PartPlan, PartRef, Plan, Selected, Selection,
    SelectionId, Shape, Source, Top, TopField, TopSource, Type, Whole,
};
use super::projection::{Projection, Root};

use self::shape::same_shapes;

/// The most selections of a document that are looked at for one plan, each time that one is.
const STEPS_MAX: usize = 200_000;

/// Whether a variable of a condition is true.
pub(super) type Conditions<'a> = &'a dyn Fn(&str) -> bool;

/// What came of a selection.
pub(super) struct Compiled {
    pub(super) projection: Projection,
    /// Who may select all of it.
    pub(super) requires: Vec<Requires>,
}

/// Compiles what is selected below a subscription's field.
pub(super) fn compile(
    graph: &Graph,
    interner: &Interner,
    document: &ExecutableDocument,
    root: &RootField,
    nodes: &[&Positioned<FieldNode>],
    conditions: Conditions<'_>,
    payload_bytes_max: usize,
) -> Result<Compiled, Refused> {
    let mut compiler = Compiler {
        graph,
        document,
        conditions,
        interner,
        bytes_max: payload_bytes_max,
        steps: 0,
        plan: Plan::default(),
        interned: HashMap::new(),
        compiled: HashMap::new(),
        requires: Vec::new(),
    };
    compiler.require(&root.requires);
    let sets: Vec<&SelectionSet> = nodes.iter().map(|node| &node.node.selection_set.node).collect();
    let place = nodes.first().map(|node| node.pos).unwrap_or_default();
    let shown = match root.emit {
        Emit::Event => Root::Event(compiler.event(root.ty.name(), &sets)?),
        Emit::Entity => Root::Entity(compiler.selected(&root.ty, None, &sets, place)?),
    };
    let key = nodes
        .first()
        .map_or("", |node| node.node.response_key().node.as_str());
    Ok(Compiled {
        projection: Projection::new(
            root.kinds,
            Key::new(key),
            root.ty.nullable(),
            shown,
            payload_bytes_max,
        ),
        requires: compiler.requires,
    })
}

/// The fields of one response key, in the order of the document.
pub(super) type Collected<'d> = Vec<(&'d str, Vec<&'d Positioned<FieldNode>>)>;

struct Compiler<'a> {
    graph: &'a Graph,
    document: &'a ExecutableDocument,
    conditions: Conditions<'a>,
    interner: &'a Interner,
    bytes_max: usize,
    steps: usize,
    /// Of the part that is being compiled.
    plan: Plan,
    /// The plan's selections.
    interned: HashMap<Selection, SelectionId>,
    /// The plan's selections, by the addresses of the sets, and the type.
    compiled: HashMap<(Vec<usize>, Name), SelectionId>,
    requires: Vec<Requires>,
}

impl<'a> Compiler<'a> {
    fn event(&mut self, name: &Name, sets: &[&'a SelectionSet]) -> Result<EventSelection, Refused> {
        let (ty, object) = self.object_type(name)?;
        self.require(&ty.requires);
        let collected = self.collect(sets, name)?;
        let mut fields = Vec::with_capacity(collected.len());
        for (key, nodes) in collected {
            let (node, sets) = merged(key, &nodes)?;
            let key = Key::new(key);
            let called = node.node.name.node.as_str();
            if called == "__typename" {
                fields.push(EventField {
                    key,
                    source: EventSource::TypeName,
                    nullable: false,
                });
                continue;
            }
            let field = field_of(&object.fields, called, node.pos)?;
            self.require(&field.requires);
            let source = match called {
                "kind" => EventSource::Kind,
                "cursor" => EventSource::Cursor,
                "key" => EventSource::Key,
                "time" => EventSource::Time,
                _ => EventSource::Data(Box::new(self.selected(
                    &field.ty,
                    field.strip_prefix.as_ref(),
                    &sets,
                    node.pos,
                )?)),
            };
            fields.push(EventField {
                key,
                source,
                nullable: field.ty.nullable(),
            });
        }
        Ok(EventSelection {
            name: Arc::clone(&ty.name),
            fields,
        })
    }

    /// What is selected of a document.
    fn selected(
        &mut self,
        ty: &TypeRef,
        strip_prefix: Option<&Arc<str>>,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<Selected, Refused> {
        let whole = match ty {
            TypeRef::Named { name, .. } => self.whole(name, sets, place)?,
            TypeRef::List { .. } => None,
        };
        let whole = match whole {
            Some(whole) => whole,
            None => Whole::One(self.part(None, None, ty, strip_prefix, sets, place)?),
        };
        Ok(Selected {
            nullable: ty.nullable(),
            whole,
        })
    }

    /// A document that is an object; `None` if it is a leaf.
    fn whole(
        &mut self,
        name: &Name,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<Option<Whole>, Refused> {
        let ty = self.checked(name, sets, place)?;
        Ok(match &ty.kind {
            Kind::Object(_) => Some(Whole::Object(self.top(name, sets)?)),
            Kind::Interface(graph::Interface {
                objects,
                discriminator,
                ..
            })
            | Kind::Union(graph::Union {
                objects,
                discriminator,
            }) => {
                let types = self.of_each(objects, |compiler, object| compiler.top(object, sets))?;
                same_shapes(types.iter().flat_map(|(_, top)| top.keys()), place)?;
                Some(Whole::OneOf {
                    discriminator: discriminator.clone(),
                    types: types.into(),
                })
            }
            Kind::Scalar(_) | Kind::Enum(_) => None,
            Kind::Input(_) => return Err(broken(name)),
        })
    }

    fn top(&mut self, name: &Name, sets: &[&'a SelectionSet]) -> Result<Top, Refused> {
        let (ty, object) = self.object_type(name)?;
        let mut top = Top {
            name: Arc::clone(&ty.name),
            fields: Vec::new(),
            members: Names::new(),
        };
        for (key, nodes) in self.collect(sets, name)? {
            self.require(&ty.requires);
            let (node, sets) = merged(key, &nodes)?;
            let called = node.node.name.node.as_str();
            let source = if called == "__typename" {
                TopSource::TypeName
            } else {
                let field = field_of(&object.fields, called, node.pos)?;
                self.require(&field.requires);
                let (member, below) = field.pointer.split_first().unzip();
                let below = below.filter(|below| below.depth() > 0);
                let strip_prefix = field.strip_prefix.as_ref();
                TopSource::Part {
                    slot: match member {
                        Some(member) => {
                            let slot = top.members.add(member);
                            Some(
                                slot.and_then(|slot| u16::try_from(slot).ok())
                                    .ok_or_else(too_large)?,
                            )
                        }
                        None => None,
                    },
                    part: self.part(member, below, &field.ty, strip_prefix, &sets, node.pos)?,
                }
            };
            top.fields.push(TopField {
                key: Key::new(key),
                source,
            });
        }
        Ok(top)
    }

    /// What is selected of a member of a document. It has a plan of its own, so that it is equal to that of another
    /// operation, whatever else the two select.
    fn part(
        &mut self,
        member: Option<&str>,
        below: Option<Pointer>,
        ty: &TypeRef,
        strip_prefix: Option<&Arc<str>>,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<PartRef, Refused> {
        self.plan = Plan::default();
        self.interned.clear();
        self.compiled.clear();
        let ty = self.reference(ty, strip_prefix, sets, place)?;
        let part = self.interner.part(PartPlan {
            member: member.map(Box::from),
            below,
            ty,
            plan: std::mem::take(&mut self.plan),
            bytes_max: self.bytes_max,
        });
        Ok(PartRef::from(part))
    }

    fn reference(
        &mut self,
        ty: &TypeRef,
        strip_prefix: Option<&Arc<str>>,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<Type, Refused> {
        let shape = match ty {
            TypeRef::List { of, .. } => {
                Shape::List(Box::new(self.reference(of, strip_prefix, sets, place)?))
            }
            TypeRef::Named { name, .. } => self.named(name, strip_prefix, sets, place)?,
        };
        Ok(Type {
            nullable: ty.nullable(),
            shape,
        })
    }

    fn named(
        &mut self,
        name: &Name,
        strip_prefix: Option<&Arc<str>>,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<Shape, Refused> {
        let ty = self.checked(name, sets, place)?;
        let leaf = |leaf| Shape::Leaf {
            leaf,
            strip_prefix: strip_prefix.cloned(),
        };
        Ok(match &ty.kind {
            Kind::Scalar(scalar) => leaf(Leaf::Scalar(*scalar)),
            Kind::Enum(values) => leaf(Leaf::of_enum(values)),
            Kind::Object(_) => Shape::Object(self.selection(name, sets)?),
            Kind::Interface(graph::Interface {
                objects,
                discriminator,
                ..
            })
            | Kind::Union(graph::Union {
                objects,
                discriminator,
            }) => {
                let types = self.of_each(objects, |compiler, object| compiler.selection(object, sets))?;
                let selections = types.iter().filter_map(|(_, id)| self.plan.selection(*id));
                same_shapes(selections.flat_map(Selection::keys), place)?;
                Shape::OneOf {
                    discriminator: discriminator.clone(),
                    types: types.into(),
                }
            }
            Kind::Input(_) => return Err(broken(name)),
        })
    }

    /// A type of which a value must have fields selected, or must not.
    fn checked(
        &mut self,
        name: &Name,
        sets: &[&'a SelectionSet],
        place: Pos,
    ) -> Result<&'a graph::Type, Refused> {
        let ty = self.graph.types.get(name).ok_or_else(|| broken(name))?;
        self.require(&ty.requires);
        let is_leaf = matches!(ty.kind, Kind::Scalar(_) | Kind::Enum(_));
        if is_leaf == sets.iter().any(|set| !set.items.is_empty()) {
            let rule = if is_leaf {
                "has no fields"
            } else {
                "needs a selection of fields"
            };
            return Err(invalid(format!("type {name} {rule}"), place));
        }
        Ok(ty)
    }

    /// What is selected of each type that a value can have, ordered by what documents call it.
    fn of_each<T>(
        &mut self,
        objects: &'a [Name],
        compile: impl Fn(&mut Self, &Name) -> Result<T, Refused>,
    ) -> Result<Vec<(Arc<str>, T)>, Refused> {
        let mut types = Vec::with_capacity(objects.len());
        for object in objects {
            let selected = compile(self, object)?;
            let (_, object) = self.object_type(object)?;
            types.push((Arc::clone(&object.discriminator), selected));
        }
        types.sort_by(|(one, _), (other, _)| one.cmp(other));
        types.dedup_by(|(one, _), (other, _)| one == other);
        Ok(types)
    }

    fn selection(&mut self, name: &Name, sets: &[&'a SelectionSet]) -> Result<SelectionId, Refused> {
        let addresses = sets.iter().map(|set| std::ptr::from_ref(*set).addr()).collect();
        let known = (addresses, Arc::clone(name));
        if let Some(id) = self.compiled.get(&known) {
            return Ok(*id);
        }
        let (ty, object) = self.object_type(name)?;
        let mut selection = Selection {
            name: Arc::clone(&ty.name),
            members: Names::new(),
            fields: Vec::new(),
        };
        for (key, nodes) in self.collect(sets, name)? {
            self.require(&ty.requires);
            let (node, sets) = merged(key, &nodes)?;
            let source = self.source(object, &mut selection.members, node, &sets)?;
            selection.fields.push(Field {
                key: Key::new(key),
                source,
            });
        }
        let id = match self.interned.get(&selection) {
            Some(id) => *id,
            None => {
                let number = u32::try_from(self.plan.selections.len()).map_err(|_| too_large())?;
                self.plan.selections.push(selection.clone());
                self.interned.insert(selection, SelectionId(number));
                SelectionId(number)
            }
        };
        self.compiled.insert(known, id);
        Ok(id)
    }

    fn source(
        &mut self,
        object: &'a graph::Object,
        members: &mut Names,
        node: &'a Positioned<FieldNode>,
        sets: &[&'a SelectionSet],
    ) -> Result<Source, Refused> {
        let called = node.node.name.node.as_str();
        if called == "__typename" {
            return Ok(Source::TypeName);
        }
        let field = field_of(&object.fields, called, node.pos)?;
        self.require(&field.requires);
        let ty = self.reference(&field.ty, field.strip_prefix.as_ref(), sets, node.pos)?;
        let Some((first, below)) = field.pointer.split_first() else {
            return Ok(Source::Itself(ty));
        };
        Ok(Source::Member {
            slot: members.add(first).ok_or_else(too_large)?,
            below: (below.depth() > 0).then_some(below),
            ty,
        })
    }

    fn object_type(&self, name: &Name) -> Result<(&'a graph::Type, &'a graph::Object), Refused> {
        match self.graph.types.get(name) {
            Some(ty) => match &ty.kind {
                Kind::Object(object) => Ok((ty, object)),
                _ => Err(broken(name)),
            },
            None => Err(broken(name)),
        }
    }

    fn require(&mut self, requires: &Requires) {
        if *requires != Requires::default() && !self.requires.contains(requires) {
            self.requires.push(requires.clone());
        }
    }
}

/// The one field that all of these are, and all that is selected of it.
fn merged<'d>(
    key: &str,
    nodes: &[&'d Positioned<FieldNode>],
) -> Result<(&'d Positioned<FieldNode>, Vec<&'d SelectionSet>), Refused> {
    let first = *nodes.first().ok_or_else(|| broken(key))?;
    if let Some(other) = nodes
        .iter()
        .find(|node| node.node.name.node != first.node.name.node)
    {
        let message = format!(
            "fields {key:?} conflict: {} and {} are different fields; give one an alias",
            first.node.name.node, other.node.name.node
        );
        return Err(Refused::new(
            Code::OPERATION_INVALID,
            GraphqlError::new(VALIDATION, message).at(first.pos).at(other.pos),
        ));
    }
    let sets = nodes.iter().map(|node| &node.node.selection_set.node).collect();
    Ok((first, sets))
}

fn field_of<'g>(fields: &'g [graph::Field], name: &str, place: Pos) -> Result<&'g graph::Field, Refused> {
    fields
        .iter()
        .find(|field| &*field.name == name)
        .ok_or_else(|| invalid(format!("unknown field {name:?}"), place))
}

/// What Apollo's servers call it.
pub(super) const VALIDATION: &str = "GRAPHQL_VALIDATION_FAILED";

pub(super) fn invalid(message: impl Into<String>, place: Pos) -> Refused {
    Refused::new(
        Code::OPERATION_INVALID,
        GraphqlError::new(VALIDATION, message).at(place),
    )
}

fn too_large() -> Refused {
    Refused::ours(
        Code::OPERATION_TOO_LARGE,
        "its fragments and types make too many combinations",
    )
}

/// A checked graph names what it has.
fn broken(name: &str) -> Refused {
    tracing::error!(name, "the contract's graph is not complete");
    Refused::ours(Code::INTERNAL, Code::INTERNAL.title)
}
