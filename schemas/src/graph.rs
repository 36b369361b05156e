//! What GraphQL clients see of a contract: its types, and the fields of `Subscription`, each bound to a stream.
//!
//! Invariant: a [`Graph`] in hand was checked together with its streams: every type that is named exists, every argument
//! that filters is an attribute of its stream, every pointer can be read. It does not know operations or principals.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{AttributeId, StreamName};
use crate::project::Pointer;

/// The name of a type, a field, an argument or an enum value.
pub type Name = Arc<str>;

/// The types and the subscription fields of a contract.
#[derive(Debug, Default)]
pub struct Graph {
    /// Every type that can be reached from `Subscription`, by name: those of the SDL, the event types and enums that
    /// were generated, and GraphQL's own scalars. Neither `Query` nor `Subscription` itself.
    pub types: BTreeMap<Name, Type>,
    /// The fields of `Subscription`, by name.
    pub fields: BTreeMap<Name, RootField>,
    /// The subgraph's SDL, as it is given to composition: without the directives that bind it to streams.
    pub sdl: String,
}

/// A type.
#[derive(Debug)]
pub struct Type {
    /// Its name.
    pub name: Name,
    /// For people.
    pub description: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Who may select it.
    pub requires: Requires,
    /// What composition reads beside it, as GraphQL text: `@key(fields: "id", resolvable: false)`.
    pub directives: Vec<String>,
}

/// What a type is.
#[derive(Debug)]
pub enum Kind {
    /// A leaf.
    Scalar(Scalar),
    /// A leaf with named values.
    Enum(Vec<EnumValue>),
    /// Fields.
    Object(Object),
    /// Fields that several objects have.
    Interface(Interface),
    /// One of several objects.
    Union(Union),
    /// Of arguments only.
    Input(Vec<Argument>),
}

/// How JSON becomes a scalar's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// A whole number of 32 bits.
    Int,
    /// A number.
    Float,
    /// A string; numbers and booleans are given as their text.
    String,
    /// A boolean.
    Boolean,
    /// A string; a whole number is given as its text.
    Id,
    /// A string (`DateTime`).
    DateTime,
    /// A whole number of any size (`Long`).
    Long,
    /// Anything, as it is in the document (`JSON`, and every other scalar).
    Any,
}

/// One value of an enum.
#[derive(Debug)]
pub struct EnumValue {
    /// Its name in GraphQL.
    pub name: Name,
    /// What it is in the document: its name, or `@jsonValue(is:)`.
    pub json: Arc<str>,
    /// For people.
    pub description: Option<String>,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// What composition reads beside it, as GraphQL text.
    pub directives: Vec<String>,
}

/// An object type.
#[derive(Debug)]
pub struct Object {
    /// Its fields, in the order of the SDL.
    pub fields: Vec<Field>,
    /// The interfaces that it implements, of those that are the type of some field.
    pub interfaces: Vec<Name>,
    /// Whether it presents an event (`@event`): its fields are `kind`, `cursor`, `key`, `time` and `data`.
    pub event: bool,
    /// What the discriminator of its interfaces and unions says for it: its name, or `@discriminatorValue(is:)`.
    pub discriminator: Arc<str>,
}

/// An interface.
#[derive(Debug)]
pub struct Interface {
    /// Its fields.
    pub fields: Vec<Field>,
    /// The interfaces that it implements.
    pub interfaces: Vec<Name>,
    /// The objects that implement it.
    pub objects: Vec<Name>,
    /// Where the document says which object it is.
    pub discriminator: Pointer,
}

/// A union.
#[derive(Debug)]
pub struct Union {
    /// Its members.
    pub objects: Vec<Name>,
    /// Where the document says which member it is.
    pub discriminator: Pointer,
}

/// A field of an object or an interface.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: Name,
    /// For people.
    pub description: Option<String>,
    /// Its type.
    pub ty: TypeRef,
    /// Where it is found, seen from its object's value: its name, or `@json(pointer:)`. No wildcards. The empty pointer
    /// is the object's value itself, so that an object may be made of a string, or lie over its parent's members.
    pub pointer: Pointer,
    /// Cut from the front of a string, or of each string of a list; one that does not begin with it is null
    /// (`@json(stripPrefix:)`).
    pub strip_prefix: Option<Arc<str>>,
    /// Who may select it.
    pub requires: Requires,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// What composition reads beside it, as GraphQL text.
    pub directives: Vec<String>,
}

/// A type as a field or an argument names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TypeRef {
    /// A type by its name.
    Named {
        /// Its name.
        name: Name,
        /// Whether null may stand for it.
        nullable: bool,
    },
    /// A list.
    List {
        /// Of what.
        of: Box<Self>,
        /// Whether null may stand for it.
        nullable: bool,
    },
}

/// A field of `Subscription`.
#[derive(Debug)]
pub struct RootField {
    /// Its name.
    pub name: Name,
    /// For people.
    pub description: Option<String>,
    /// The stream that it is bound to.
    pub stream: StreamName,
    /// What it gives.
    pub emit: Emit,
    /// The kinds of events that it gives.
    pub kinds: Kinds,
    /// Its type: an event type, or with [`Emit::Entity`] the nullable type of the data.
    pub ty: TypeRef,
    /// Its arguments, in the order of the SDL.
    pub arguments: Vec<RootArgument>,
    /// Who may select it.
    pub requires: Requires,
    /// Why it should not be used any more.
    pub deprecated: Option<String>,
    /// What composition reads beside it, as GraphQL text.
    pub directives: Vec<String>,
}

/// What a subscription field gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Emit {
    /// Events: `kind`, `cursor`, `key`, `time`, `data`.
    Event,
    /// The data alone; null where it was deleted or left the filter.
    Entity,
}

/// Kinds of events, `ChangeKind` in the schema, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kinds(pub u8);

impl Kinds {
    /// A thing is new.
    pub const CREATED: Self = Self(1);
    /// It has another value.
    pub const UPDATED: Self = Self(1 << 1);
    /// It moved out of the reader's filter.
    pub const LEFT: Self = Self(1 << 2);
    /// It is gone.
    pub const DELETED: Self = Self(1 << 3);
    /// It is given by a snapshot.
    pub const SNAPSHOT: Self = Self(1 << 4);
    /// It was written; whether it is new is not known.
    pub const CHANGED: Self = Self(1 << 5);
    /// Nothing for this reader, and the cursor moved.
    pub const PROGRESS: Self = Self(1 << 6);
    /// Something could not be given any more.
    pub const GAP: Self = Self(1 << 7);
    /// What a field gives that says nothing else: all but quiet progress.
    pub const USUAL: Self = Self(!Self::PROGRESS.0);
    /// Every kind with its name in `ChangeKind`, in the order of the schema.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::CREATED, "CREATED"),
        (Self::UPDATED, "UPDATED"),
        (Self::LEFT, "LEFT"),
        (Self::DELETED, "DELETED"),
        (Self::SNAPSHOT, "SNAPSHOT"),
        (Self::CHANGED, "CHANGED"),
        (Self::PROGRESS, "PROGRESS"),
        (Self::GAP, "GAP"),
    ];

    /// Whether all of these are among them.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An argument of a subscription field.
#[derive(Debug)]
pub struct RootArgument {
    /// What it is in GraphQL.
    pub argument: Argument,
    /// What it does.
    pub role: Role,
}

/// What an argument of a subscription field does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Only events whose attribute has this value, or one of these.
    Attribute {
        /// Which.
        id: AttributeId,
        /// Put before each value (`@attribute(prefix:)`).
        prefix: Option<Arc<str>>,
    },
    /// From where: a cursor, `earliest`, `latest` or an RFC 3339 time.
    After,
    /// The state first (a later version).
    Snapshot,
    /// What happens to a slow reader; `close` in this version.
    Overflow,
    /// The most events a second (a later version).
    Rate,
}

/// An argument, or a field of an input type.
#[derive(Debug)]
pub struct Argument {
    /// Its name.
    pub name: Name,
    /// For people.
    pub description: Option<String>,
    /// Its type.
    pub ty: TypeRef,
    /// What it is where it is not given, as GraphQL text.
    pub default: Option<String>,
    /// What composition reads beside it, as GraphQL text.
    pub directives: Vec<String>,
}

/// Who may select something (federation's `@authenticated` and `@requiresScopes`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requires {
    /// Somebody must be known.
    pub authenticated: bool,
    /// All scopes of one of these must be held; empty: none is needed.
    pub scopes: Vec<Vec<Arc<str>>>,
}

impl TypeRef {
    /// The name inside all lists.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Named { name, .. } => name,
            Self::List { of, .. } => of.name(),
        }
    }

    /// Whether null may stand for it.
    #[must_use]
    pub fn nullable(&self) -> bool {
        match self {
            Self::Named { nullable, .. } | Self::List { nullable, .. } => *nullable,
        }
    }
}

/// As GraphQL writes it: `[ID!]`.
impl std::fmt::Display for TypeRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named { name, .. } => f.write_str(name)?,
            Self::List { of, .. } => write!(f, "[{of}]")?,
        }
        f.write_str(if self.nullable() { "" } else { "!" })
    }
}
