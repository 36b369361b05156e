//! A compiled selection: what is read from where, and how it is written. It is data, with one form for each meaning.
//!
//! Invariant: a [`Plan`] was compiled against a checked graph, so that executing it can fail on documents only.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use schemas::graph::{EnumValue, Name, Scalar};
use schemas::project::{Names, Pointer};
use smallvec::SmallVec;

/// What is selected of a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Selected {
    /// Whether null may stand for all of it.
    pub(super) nullable: bool,
    /// What it is.
    pub(super) whole: Whole,
}

/// What a whole document is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Whole {
    /// A leaf or a list.
    One(PartRef),
    /// An object of one type.
    Object(Top),
    /// An object of one of several types.
    OneOf {
        /// Where the document says which.
        discriminator: Pointer,
        /// Ordered by what it says there.
        types: Box<[(Arc<str>, Top)]>,
    },
}

/// What is selected of an object that is a whole document: parts, each under its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Top {
    /// The type's name.
    pub(super) name: Name,
    /// In the order of the response.
    pub(super) fields: Vec<TopField>,
    /// The members that parts begin with, found in one pass.
    pub(super) members: Names,
}

/// A response key as it stands in a response. In place where it is short: of a thousand selections that an event is shown
/// to, what is looked at for each should lie side by side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// `,"id":`
    text: SmallVec<[u8; 24]>,
}

impl Key {
    /// The key of this name.
    pub(super) fn new(name: &str) -> Self {
        // GraphQL's names need no escapes.
        let mut text = SmallVec::from_slice(b",\"");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\":");
        Self { text }
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        let quoted = std::str::from_utf8(self.quoted()).unwrap_or_default();
        quoted.trim_matches('"')
    }

    /// The name in its quotes.
    pub(super) fn quoted(&self) -> &[u8] {
        self.text.get(1..self.text.len() - 1).unwrap_or_default()
    }

    /// `"id":`, and a comma before it where it is not the first.
    pub(super) fn text(&self, number: usize) -> &[u8] {
        self.text.get(usize::from(number == 0)..).unwrap_or_default()
    }

    /// What it takes beside its own size.
    fn memory(&self) -> usize {
        if self.text.spilled() { self.text.len() } else { 0 }
    }
}

/// One field of such an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TopField {
    /// The response key.
    pub(super) key: Key,
    /// What it shows.
    pub(super) source: TopSource,
}

/// What such a field shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopSource {
    /// The type's name.
    TypeName,
    /// A part.
    Part {
        /// Its slot in [`Top::members`]; `None`: another view of the document itself.
        slot: Option<u16>,
        /// What is shown of it.
        part: PartRef,
    },
}

/// A part, and its number beside it: what is finished is found without looking at the part.
#[derive(Debug, Clone)]
pub(super) struct PartRef {
    number: u64,
    part: Arc<Part>,
}

impl PartRef {
    /// What tells the part from all others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What it is.
    pub(super) fn plan(&self) -> &PartPlan {
        &self.part.plan
    }
}

impl From<Arc<Part>> for PartRef {
    fn from(part: Arc<Part>) -> Self {
        Self {
            number: part.number,
            part,
        }
    }
}

/// Parts are what they show: two that were not made one are equal all the same.
impl PartialEq for PartRef {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number || self.part.plan == other.part.plan
    }
}

impl Eq for PartRef {}

impl Hash for PartRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.part.plan.hash(state);
    }
}

/// What is selected of one member of a document, without the key that it is shown under: what operations have in common,
/// however much else they select. What it shows depends on itself, the document and the mask, and on nothing else.
#[derive(Debug)]
pub(super) struct Part {
    /// No other part of this process ever has it.
    number: u64,
    plan: PartPlan,
}

/// What a part is, as data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PartPlan {
    /// The member; `None`: the document itself.
    pub(super) member: Option<Box<str>>,
    /// What follows below it; `None`: nothing.
    pub(super) below: Option<Pointer>,
    /// Its type.
    pub(super) ty: Type,
    /// The selections below.
    pub(super) plan: Plan,
    /// The longest that it may be.
    pub(super) bytes_max: usize,
}

impl Part {
    /// A part, to which nobody else has given this number.
    pub(super) fn new(number: u64, plan: PartPlan) -> Self {
        Self { number, plan }
    }

    /// What it is.
    pub(super) fn plan(&self) -> &PartPlan {
        &self.plan
    }
}

impl Selected {
    /// Every part, as often as it is selected.
    pub(super) fn parts(&self) -> impl Iterator<Item = &PartRef> {
        let one = match &self.whole {
            Whole::One(part) => Some(part),
            Whole::Object(_) | Whole::OneOf { .. } => None,
        };
        let parts = self.fields().filter_map(|field| match &field.source {
            TopSource::TypeName => None,
            TopSource::Part { part, .. } => Some(part),
        });
        one.into_iter().chain(parts)
    }

    fn fields(&self) -> impl Iterator<Item = &TopField> {
        let tops: Vec<&Top> = match &self.whole {
            Whole::One(_) => Vec::new(),
            Whole::Object(top) => vec![top],
            Whole::OneOf { types, .. } => types.iter().map(|(_, top)| top).collect(),
        };
        tops.into_iter().flat_map(|top| &top.fields)
    }

    /// What it holds in memory, roughly, as if no part of it were shared.
    pub(super) fn memory(&self) -> usize {
        // With the name of a member.
        let fields: usize = self
            .fields()
            .map(|field| size_of::<TopField>() + field.key.memory() + 32)
            .sum();
        let part = |part: &PartRef| size_of::<Part>() + part.plan().plan.memory();
        size_of::<Self>() + fields + self.parts().map(part).sum::<usize>()
    }
}

/// The selections of a part; each is in here once, however often it is used.
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
    pub(super) key: Key,
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
        let field = |field: &Field| size_of::<Field>() + field.key.memory() + 32;
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
    pub(super) key: Key,
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
    Data(Box<Selected>),
}
