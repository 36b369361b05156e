//! Pointers followed through the SDL: does the field exist, what is at its end, may it be hidden.
//!
//! Invariant: a pointer that could reach a non-null field through any member of a union or any implementation of an
//! interface is told to reach it. It does not know why somebody asks.

use std::collections::BTreeSet;

use async_graphql_parser::types::{BaseType, Type};

use super::super::finding::Findings;
use super::super::settings::Placed;
use super::{BUILT_IN, Field, Sdl, Shape, directive};
use crate::project::Pointer;

/// What stands at the end of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::contract) enum End {
    /// An object: no value by itself.
    Object,
    /// A list: its elements have values.
    List,
    /// A scalar of the user's, which may hold anything.
    Open,
    /// A string, a number, a boolean or an enum.
    Leaf,
}

/// Why a pointer reaches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::contract) enum Missing {
    /// The type has no such field.
    Field {
        /// The segment that is not there.
        segment: String,
        /// The type's name.
        inside: String,
        /// The fields that it has, as they are named in the document.
        known: Vec<String>,
    },
    /// A list, and the segment is neither `*` nor an index.
    List {
        /// How many segments lead to the list.
        depth: usize,
    },
    /// Something without fields.
    Leaf {
        /// The segment that is not there.
        segment: String,
        /// The type's name.
        inside: String,
    },
}

/// A non-null field that would be hidden.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::contract) struct Hit {
    /// `Observation.status`.
    pub(in crate::contract) field: String,
    /// `/status`.
    pub(in crate::contract) pointer: String,
    /// Whether it is what tells the objects of an interface or a union apart, which is then named as the field.
    pub(in crate::contract) is_discriminator: bool,
}

/// How a field's path lies to a pointer.
enum Relation<'p> {
    /// The pointer ends at the field or above it.
    Reached,
    /// The pointer goes on below the field.
    Passed(&'p [String]),
    /// They have nothing to do with each other.
    Apart,
}

impl Sdl {
    /// Follows a pointer from a type.
    pub(in crate::contract) fn find(&self, root: &str, path: &[String]) -> Result<End, Missing> {
        self.find_inside(root, path, 0)
    }

    fn find_below(&self, ty: &Type, path: &[String], depth: usize) -> Result<End, Missing> {
        match (&ty.base, path.split_first()) {
            (BaseType::List(_), None) => Ok(End::List),
            (BaseType::List(inner), Some((first, rest))) if is_element(first) => {
                self.find_below(inner, rest, depth + 1)
            }
            (BaseType::List(_), Some(_)) => Err(Missing::List { depth }),
            (BaseType::Named(name), _) => self.find_inside(name, path, depth),
        }
    }

    fn find_inside(&self, name: &str, path: &[String], depth: usize) -> Result<End, Missing> {
        let Some(fields) = self.fields(name) else {
            return match path.first() {
                _ if self.is_open(name) => Ok(End::Open),
                None => Ok(End::Leaf),
                Some(segment) => Err(Missing::Leaf {
                    segment: segment.clone(),
                    inside: name.to_owned(),
                }),
            };
        };
        let Some(first) = path.first() else {
            // An object may be made of a string: then its value is that of the field.
            let own = fields.iter().filter(|(_, field)| field.path.is_empty());
            let ends = own.filter_map(|(_, field)| self.find_below(&field.ty, &[], depth).ok());
            return Ok(ends.max().map_or(End::Object, |end| end.max(End::Object)));
        };
        let mut best: Option<End> = None;
        let mut missing: Option<Missing> = None;
        if let Some(discriminator) = self.discriminator(name)
            && matches!(relation(&discriminator, path), Relation::Reached)
        {
            let inside = path.len() < discriminator.len();
            best = Some(if inside { End::Object } else { End::Leaf });
        }
        for (_, field) in &fields {
            let found = match relation(&field.path, path) {
                Relation::Apart => continue,
                Relation::Reached if path.len() < field.path.len() => Ok(End::Object),
                Relation::Reached => self.find_below(&field.ty, &[], depth + field.path.len()),
                Relation::Passed(rest) => self.find_below(&field.ty, rest, depth + field.path.len()),
            };
            match found {
                Ok(end) => best = best.max(Some(end)),
                Err(why) => missing = missing.or(Some(why)),
            }
        }
        best.ok_or_else(|| {
            missing.unwrap_or_else(|| Missing::Field {
                segment: first.clone(),
                inside: name.to_owned(),
                known: fields
                    .iter()
                    .filter_map(|(_, field)| field.path.first().cloned())
                    .collect(),
            })
        })
    }

    /// The non-null fields that hiding this pointer would take away from an object that stays.
    pub(in crate::contract) fn non_null_at(&self, root: &str, path: &[String]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.hide_inside(root, path, "", &mut hits);
        hits.sort();
        hits.dedup();
        hits
    }

    fn hide_inside(&self, name: &str, path: &[String], way: &str, hits: &mut Vec<Hit>) {
        if let Some(discriminator) = self.discriminator(name)
            && matches!(relation(&discriminator, path), Relation::Reached)
        {
            hits.push(told_apart(name, &discriminator, way));
        }
        for (owner, field) in self.fields(name).unwrap_or_default() {
            match relation(&field.path, path) {
                Relation::Apart => {}
                Relation::Reached if field.ty.nullable => {}
                Relation::Reached => hits.push(hit(owner, field, way)),
                Relation::Passed(rest) => {
                    let way = format!("{way}{}", written(&field.path));
                    self.hide_below(owner, field, &field.ty, rest, &way, hits);
                }
            }
        }
    }

    fn hide_below(
        &self,
        owner: &str,
        field: &Field,
        ty: &Type,
        path: &[String],
        way: &str,
        hits: &mut Vec<Hit>,
    ) {
        match (&ty.base, path) {
            (BaseType::Named(name), _) => self.hide_inside(name, path, way, hits),
            (BaseType::List(inner), [_]) if !inner.nullable => {
                hits.push(Hit {
                    field: format!("{owner}.{}", field.name),
                    pointer: format!("{way}/*"),
                    is_discriminator: false,
                });
            }
            (BaseType::List(inner), [_, rest @ ..]) if !rest.is_empty() => {
                self.hide_below(owner, field, inner, rest, &format!("{way}/*"), hits);
            }
            (BaseType::List(_), _) => {}
        }
    }

    /// The non-null fields that an allow-list leaves out of an object that it shows in part.
    pub(in crate::contract) fn non_null_beside(&self, root: &str, shown: &[Vec<String>]) -> Vec<Hit> {
        let mut hits = Vec::new();
        let shown: Vec<&[String]> = shown.iter().map(Vec::as_slice).collect();
        self.show_inside(root, &shown, "", &mut hits);
        hits.sort();
        hits.dedup();
        hits
    }

    fn show_inside(&self, name: &str, shown: &[&[String]], way: &str, hits: &mut Vec<Hit>) {
        if let Some(discriminator) = self.discriminator(name) {
            let reaches = |path: &&[String]| matches!(relation(&discriminator, path), Relation::Reached);
            if !shown.iter().any(reaches) {
                hits.push(told_apart(name, &discriminator, way));
            }
        }
        for (owner, field) in self.fields(name).unwrap_or_default() {
            let mut partly: Vec<&[String]> = Vec::new();
            let mut wholly = false;
            for path in shown {
                match relation(&field.path, path) {
                    Relation::Apart => {}
                    Relation::Reached => wholly = true,
                    Relation::Passed(rest) => partly.push(rest),
                }
            }
            if wholly {
                continue;
            }
            if partly.is_empty() {
                if !field.ty.nullable {
                    hits.push(hit(owner, field, way));
                }
                continue;
            }
            let mut way = format!("{way}{}", written(&field.path));
            let mut ty = &field.ty;
            while let BaseType::List(inner) = &ty.base {
                ty = inner;
                way.push_str("/*");
                if partly.iter().any(|path| path.len() < 2) {
                    // A whole element is shown.
                    partly.clear();
                }
                partly = partly.into_iter().filter_map(|path| path.get(1..)).collect();
            }
            if let (BaseType::Named(name), false) = (&ty.base, partly.is_empty()) {
                self.show_inside(name, &partly, &way, hits);
            }
        }
    }

    /// The fields of a type, each with the name of the type that declares it: of an interface those of all its
    /// implementations too, of a union those of its members. `None` for what has no fields.
    fn fields<'s>(&'s self, name: &'s str) -> Option<Vec<(&'s str, &'s Field)>> {
        match &self.types.get(name)?.shape {
            Shape::Object {
                interface, fields, ..
            } => {
                let mut all: Vec<_> = fields.iter().map(|field| (name, field)).collect();
                if *interface {
                    for (other, node) in &self.types {
                        let Shape::Object {
                            implements, fields, ..
                        } = &node.shape
                        else {
                            continue;
                        };
                        if implements.iter().any(|implemented| implemented.value == name) {
                            all.extend(fields.iter().map(|field| (other.as_str(), field)));
                        }
                    }
                }
                Some(all)
            }
            Shape::Union { members } => {
                let member = |member: &'s Placed<String>| {
                    self.types
                        .get_key_value(member.value.as_str())
                        .and_then(|(member, node)| match &node.shape {
                            Shape::Object { fields, .. } => Some((member, fields)),
                            _ => None,
                        })
                };
                let members = members.iter().filter_map(member);
                Some(
                    members
                        .flat_map(|(name, fields)| fields.iter().map(move |f| (name.as_str(), f)))
                        .collect(),
                )
            }
            Shape::Scalar | Shape::Enum { .. } | Shape::Input { .. } => None,
        }
    }

    /// Where an interface or a union says in the document which object it is.
    fn discriminator(&self, name: &str) -> Option<Vec<String>> {
        let node = self.types.get(name)?;
        let text = directive(&node.directives, "discriminator")?.text("pointer")?;
        let pointer = Pointer::parse(text).ok()?;
        Some(pointer.segments().map(str::to_owned).collect())
    }

    /// Refuses objects that lie in their own place, by fields with an empty pointer: they would have no end. True if
    /// there is none, so that pointers can be followed.
    pub(in crate::contract) fn check_places(&self, findings: &Findings) -> bool {
        let mut is_sound = true;
        for name in self.types.keys() {
            let mut seen: BTreeSet<&str> = BTreeSet::new();
            let mut next: Vec<(&str, &Field)> = self.in_place(name);
            while let Some((below, field)) = next.pop() {
                if below == name {
                    let message = format!("`{name}` lies in its own place, without an end");
                    let mend = "give the field a name of the document: `@json(pointer: \"/a\")`";
                    findings.report(&field.place, "json_cycle", message, mend);
                    is_sound = false;
                } else if seen.insert(below) {
                    next.extend(self.in_place(below));
                }
            }
        }
        is_sound
    }

    /// The types of the fields that lie in the place of their object.
    fn in_place<'s>(&'s self, name: &'s str) -> Vec<(&'s str, &'s Field)> {
        let fields = self.fields(name).unwrap_or_default().into_iter();
        fields
            .filter(|(_, field)| field.path.is_empty())
            .filter_map(|(_, field)| match &field.ty.base {
                BaseType::Named(below) => Some((below.as_str(), field)),
                BaseType::List(_) => None,
            })
            .collect()
    }

    /// Whether anything may be below: scalars that are not GraphQL's own, and what is not defined here.
    fn is_open(&self, name: &str) -> bool {
        match self.types.get(name) {
            Some(node) => matches!(node.shape, Shape::Scalar),
            None => !BUILT_IN.contains(&name),
        }
    }
}

/// `*` in the pointer stands for any member. A `*` never stands in a field's own path as anything but itself.
fn relation<'p>(field: &[String], pointer: &'p [String]) -> Relation<'p> {
    let same = field
        .iter()
        .zip(pointer)
        .all(|(own, wanted)| wanted == "*" || own == wanted);
    match pointer.get(field.len()..) {
        _ if !same => Relation::Apart,
        None | Some([]) => Relation::Reached,
        Some(rest) => Relation::Passed(rest),
    }
}

/// `*`, or an index without leading zeros.
fn is_element(segment: &str) -> bool {
    let digits = !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    segment == "*" || segment == "0" || (digits && !segment.starts_with('0'))
}

fn hit(owner: &str, field: &Field, way: &str) -> Hit {
    Hit {
        field: format!("{owner}.{}", field.name),
        pointer: format!("{way}{}", written(&field.path)),
        is_discriminator: false,
    }
}

fn told_apart(name: &str, discriminator: &[String], way: &str) -> Hit {
    Hit {
        field: name.to_owned(),
        pointer: format!("{way}{}", written(discriminator)),
        is_discriminator: true,
    }
}

/// A path as a JSON pointer (RFC 6901).
pub(in crate::contract) fn written(path: &[String]) -> String {
    path.iter()
        .map(|segment| format!("/{}", segment.replace('~', "~0").replace('/', "~1")))
        .collect()
}
