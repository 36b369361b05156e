//! A compiled selection: what is read from where, and how it is written. It is data, with one form for each meaning.
//!
//! Invariant: a [`Plan`] was compiled against a checked graph, so that executing it can fail on documents only.

use std::sync::Arc;

use schemas::graph::{EnumValue, Name, Scalar};
use schemas::project::{Names, Pointer};

/// The selections of a subscription; each is in here once, however often it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Plan {
    pub(super) selections: Vec<Selection>,
}

/// Which selection of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SelectionId(pub(super) u32);

/// What is selected of one object type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Selection {
    /// The type's name.
    pub(super) name: Name,
    /// The members that are read, found in one pass.
    pub(super) members: Names,
    /// In the order of the response.
    pub(super) fields: Vec<Field>,
}

/// One field of the response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Field {
    /// The response key.
    pub(super) key: Arc<str>,
    /// What it shows.
    pub(super) source: Source,
}

/// What a field shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// The type's name.
    TypeName,
    /// The value itself, which another type presents.
    Itself(Type),
    /// A member.
    Member {
        /// Its slot in [`Selection::members`].
        slot: usize,
        /// What follows below it; empty: nothing.
        below: Option<Pointer>,
        /// Its type.
        ty: Type,
    },
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Type {
    /// Whether null may stand for it.
    pub(super) nullable: bool,
    /// What it is.
    pub(super) shape: Shape,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// A leaf.
    Leaf {
        /// Which.
        leaf: Leaf,
        /// Cut from the front of strings.
        strip_prefix: Option<Arc<str>>,
    },
    /// A list.
    List(Box<Type>),
    /// An object of one type.
    Object(SelectionId),
    /// An object of one of several types.
    OneOf {
        /// Where the document says which.
        discriminator: Pointer,
        /// Ordered by what it says there.
        types: Arc<[(Arc<str>, SelectionId)]>,
    },
}

/// A leaf.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Leaf {
    /// A scalar.
    Scalar(Scalar),
    /// An enum: what stands in the document, and the name for it. Ordered by the former.
    Enum(Arc<[(Arc<str>, Name)]>),
}

impl Leaf {
    /// An enum's leaf.
    pub(super) fn of_enum(values: &[EnumValue]) -> Self {
        let mut pairs: Vec<(Arc<str>, Name)> = values
            .iter()
            .map(|value| (Arc::clone(&value.json), Arc::clone(&value.name)))
            .collect();
        pairs.sort();
        Self::Enum(pairs.into())
    }
}

impl Plan {
    /// The selection of this number; compiled plans name none that is not there.
    pub(super) fn selection(&self, id: SelectionId) -> Option<&Selection> {
        self.selections.get(id.0 as usize)
    }

    /// What it holds in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        let field = |field: &Field| size_of::<Field>() + field.key.len() + 32;
        let selection = |selection: &Selection| {
            size_of::<Selection>()
                + selection.members.len() * 32
                + selection.fields.iter().map(field).sum::<usize>()
        };
        self.selections.iter().map(selection).sum()
    }
}

/// What is selected of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventSelection {
    /// The event type's name.
    pub(super) name: Name,
    /// In the order of the response.
    pub(super) fields: Vec<EventField>,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventField {
    /// The response key.
    pub(super) key: Arc<str>,
    /// What it shows.
    pub(super) source: EventSource,
    /// Whether null may stand for it.
    pub(super) nullable: bool,
}

/// What a field of an event shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum EventSource {
    /// `__typename`.
    TypeName,
    /// What happened.
    Kind,
    /// The position after it.
    Cursor,
    /// The record's key.
    Key,
    /// When.
    Time,
    /// The document.
    Data(Type),
}
