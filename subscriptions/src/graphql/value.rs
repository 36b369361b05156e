//! The writing of one [`Part`](super::plan::Part) of a document.
//!
//! One invariant: what is written depends on the part and on what is seen, not on where in a response it will stand. So
//! mistakes are told with paths that begin at the part.

use schemas::event::json;
use schemas::project::{Seen, Shape as JsonShape};

use super::leaf::{self, Written};
use super::path::Path;
use super::plan::{PartPlan, Plan, SelectionId, Shape, Source, Type};

/// The most errors that one event's payload tells.
pub(super) const ERRORS_MAX: usize = 100;

/// What an error takes beside its path, roughly.
const MISTAKE_BYTES: usize = 100;

/// What is wrong with a value. Never says which value: it may be hidden from whoever reads the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is none of its field's type.
    Mismatch,
    /// It must not be null, and is.
    Missing,
}

impl Wrong {
    /// What the client is told.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Mismatch => "the value is none of this field's type",
            Self::Missing => "a value that must not be null is missing",
        }
    }
}

/// Mistakes of parts: what is wrong, and where below its part.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    /// Each with the end of its path in `paths`.
    told: Vec<(Wrong, usize)>,
    /// The steps of one path after the other: `"a",0`.
    paths: Vec<u8>,
}

impl Mistakes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.told.len()
    }

    /// Bytes, roughly, as they will be told.
    pub(super) fn bytes(&self) -> usize {
        self.paths.len() + self.told.len() * MISTAKE_BYTES
    }

    /// Forgets all but the first.
    pub(super) fn truncate(&mut self, count: usize) {
        self.told.truncate(count);
        self.paths.truncate(self.told.last().map_or(0, |(_, end)| *end));
    }

    /// Those with these numbers.
    pub(super) fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (Wrong, &[u8])> {
        let before = |number: usize| number.checked_sub(1).and_then(|number| self.told.get(number));
        range.filter_map(move |number| {
            let (wrong, end) = *self.told.get(number)?;
            let start = before(number).map_or(0, |(_, end)| *end);
            Some((wrong, self.paths.get(start..end)?))
        })
    }

    fn push(&mut self, wrong: Wrong, path: &Path<'_>) {
        path.write_steps(&mut self.paths);
        self.told.push((wrong, self.paths.len()));
    }
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was appended, or null where that may stand for it.
    Value,
    /// It must not be null, and is; the mistake was noted.
    Broken,
    /// It is longer than it may be.
    TooLarge,
}

/// Appends what a part shows of its member. Where it shows nothing, nothing is left of what was appended.
pub(super) fn write(
    part: &PartPlan,
    member: Option<&Seen<'_>>,
    out: &mut Vec<u8>,
    mistakes: &mut Mistakes,
) -> Outcome {
    let start = out.len();
    let (begin, first) = (start + mistakes.bytes(), mistakes.len());
    let mut writer = Writer {
        plan: &part.plan,
        end_max: begin.saturating_add(part.bytes_max),
        mistakes_max: first + ERRORS_MAX,
        too_large: false,
        out,
        mistakes,
    };
    let below;
    let seen = match (member, &part.below) {
        (Some(member), Some(pointer)) => {
            below = member.at(pointer);
            below.as_ref()
        }
        (member, _) => member,
    };
    let done = writer.value(&part.ty, seen, &Path::Root);
    let too_large = writer.is_too_large();
    match done {
        _ if too_large => {
            out.truncate(start);
            mistakes.truncate(first);
            Outcome::TooLarge
        }
        Ok(()) => Outcome::Value,
        Err(Broken) => {
            out.truncate(start);
            Outcome::Broken
        }
    }
}

/// A place that must not be null is null, and the error was told; or it is all too large.
struct Broken;

struct Writer<'p, 'o> {
    plan: &'p Plan,
    /// The most that `out` may hold, together with the mistakes.
    end_max: usize,
    /// More are not noted.
    mistakes_max: usize,
    /// It would have held more: nothing more is written.
    too_large: bool,
    out: &'o mut Vec<u8>,
    mistakes: &'o mut Mistakes,
}

impl Writer<'_, '_> {
    /// Appends a value of this type, or null where it may stand for it.
    fn value(&mut self, ty: &Type, seen: Option<&Seen<'_>>, path: &Path<'_>) -> Result<(), Broken> {
        if self.is_too_large() {
            return Err(Broken);
        }
        let start = self.out.len();
        let written = self.complete(&ty.shape, seen, path);
        // Before anything is taken back: what is too large is so, wherever null could stand for it.
        if self.is_too_large() {
            return Err(Broken);
        }
        match written {
            Ok(Written::Value) => return Ok(()),
            Ok(Written::Mismatch) => self.mistake(Wrong::Mismatch, path),
            Ok(Written::Null) if !ty.nullable => self.mistake(Wrong::Missing, path),
            Ok(Written::Null) | Err(Broken) => {}
        }
        self.out.truncate(start);
        if !ty.nullable {
            return Err(Broken);
        }
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn is_too_large(&mut self) -> bool {
        self.too_large |= self.out.len() + self.mistakes.bytes() > self.end_max;
        self.too_large
    }

    fn complete(
        &mut self,
        shape: &Shape,
        seen: Option<&Seen<'_>>,
        path: &Path<'_>,
    ) -> Result<Written, Broken> {
        let Some(seen) = seen else {
            return Ok(Written::Null);
        };
        match shape {
            Shape::Leaf { leaf, strip_prefix } => {
                Ok(leaf::write(leaf, strip_prefix.as_deref(), seen, self.out))
            }
            _ if seen.shape() == JsonShape::Null => Ok(Written::Null),
            Shape::List(of) => {
                if seen.shape() != JsonShape::Array {
                    return Ok(Written::Mismatch);
                }
                self.out.push(b'[');
                for (index, element) in seen.elements().enumerate() {
                    if index > 0 {
                        self.out.push(b',');
                    }
                    self.value(of, Some(&element), &Path::Index(path, index))?;
                }
                self.out.push(b']');
                Ok(Written::Value)
            }
            Shape::Object(id) => self.object(*id, seen, path),
            Shape::OneOf { discriminator, types } => match one_of(discriminator, types, seen) {
                Some(id) => self.object(*id, seen, path),
                None => Ok(Written::Mismatch),
            },
        }
    }

    fn object(&mut self, id: SelectionId, seen: &Seen<'_>, path: &Path<'_>) -> Result<Written, Broken> {
        let Some(selection) = self.plan.selection(id) else {
            return Ok(Written::Null);
        };
        let members = seen.pick(&selection.members);
        self.out.push(b'{');
        for (number, field) in selection.fields.iter().enumerate() {
            self.out.extend_from_slice(field.key.text(number));
            let path = Path::Field(path, &field.key);
            match &field.source {
                Source::TypeName => json::string(&selection.name, self.out),
                Source::Itself(ty) => self.value(ty, Some(seen), &path)?,
                Source::Member { slot, below, ty } => {
                    let mut member = members.get(*slot);
                    if let (Some(here), Some(below)) = (&member, below) {
                        member = here.at(below);
                    }
                    self.value(ty, member.as_ref(), &path)?;
                }
            }
        }
        self.out.push(b'}');
        Ok(Written::Value)
    }

    fn mistake(&mut self, wrong: Wrong, path: &Path<'_>) {
        if self.mistakes.len() < self.mistakes_max {
            self.mistakes.push(wrong, path);
        }
    }
}

/// What is selected of the type that the document says it has.
pub(super) fn one_of<'t, T>(
    discriminator: &schemas::project::Pointer,
    types: &'t [(std::sync::Arc<str>, T)],
    seen: &Seen<'_>,
) -> Option<&'t T> {
    let said = seen.at(discriminator)?;
    let said = (said.shape() == JsonShape::String)
        .then(|| said.text())
        .flatten()?;
    let found = types.binary_search_by(|(name, _)| (**name).cmp(&*said)).ok()?;
    types.get(found).map(|(_, found)| found)
}
