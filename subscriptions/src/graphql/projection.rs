//! What of an event a subscription shows, and the writing of it.
//!
//! One invariant: the document is read through [`Seen`] alone. Whatever is hidden is absent, and so null.

use schemas::event::{Change, Data, Event, json};
use schemas::graph::{Emit, Kinds};
use schemas::project::{Mask, Seen, Shape as JsonShape, Sight};

use super::leaf::{self, Written};
use super::path::Path;
use super::plan::{EventField, EventSelection, EventSource, Plan, SelectionId, Shape, Source, Type};

/// The most errors that one event's payload tells.
const ERRORS_MAX: usize = 100;

/// What of an event a subscription shows. Equal projections are equal as data, whatever documents they came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Projection {
    pub(super) kinds: Kinds,
    /// The field's response key.
    pub(super) key: std::sync::Arc<str>,
    /// Whether null may stand for the whole field.
    pub(super) nullable: bool,
    pub(super) root: Root,
    pub(super) plan: Plan,
    /// The longest payload.
    pub(super) bytes_max: usize,
}

/// What the subscription's field gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Root {
    /// Events.
    Event(EventSelection),
    /// The data alone.
    Entity(Type),
}

impl Projection {
    /// Appends the payload of an event without line breaks: `{"data":{...},"errors":[...]?,"extensions":{"cursor":"..."}}`.
    /// What the mask hides reads as absent. A value that is none of its field's type is null, with an error that says
    /// where and never what; null propagates as the specification says (section 6.4.4). A payload that would be longer than
    /// the limit has no data, and one error `data_too_large`.
    pub fn event(&self, event: &Event, mask: &Mask, cursor: &str, out: &mut Vec<u8>) {
        let sight = Sight::new(mask);
        let seen = match &event.data {
            Data::Json(document) if !matches!(event.change, Change::Left | Change::Deleted) => {
                document.seen(&sight)
            }
            _ => None,
        };
        let told = Told {
            kind: kind(event.change).1,
            cursor,
            key: if self.tells_key() {
                event.key_text(mask)
            } else {
                None
            },
            time_ms: event.time_ms,
            seen,
        };
        self.payload(&told, out);
        end(cursor, "", out);
    }

    /// Appends the payload of a gap; `partitions` is a JSON array without line breaks.
    ///
    /// An event of kind `GAP`; where the field gives the data alone, null with an error `gap`.
    pub fn gap(&self, partitions: &str, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        match &self.root {
            Root::Event(_) => self.payload(&Told::without_data("GAP", cursor, at_ms), out),
            Root::Entity(_) => {
                out.extend_from_slice(br#"{"data":{"#);
                json::string(&self.key, out);
                out.extend_from_slice(
                    br#":null},"errors":[{"message":"some events cannot be given any more","path":"#,
                );
                Path::Field(&Path::Root, &self.key).write(out);
                out.extend_from_slice(br#","extensions":{"code":"gap"}}]"#);
            }
        }
        end(cursor, partitions, out);
    }

    /// Appends the payload that tells a cursor and nothing else: an event of kind `PROGRESS`.
    pub fn progress(&self, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        self.payload(&Told::without_data("PROGRESS", cursor, at_ms), out);
        end(cursor, "", out);
    }

    /// Whether events of this change are given.
    #[must_use]
    pub fn wants(&self, change: Change) -> bool {
        self.kinds.has(kind(change).0)
    }

    /// Whether quiet progress is told.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        self.kinds.has(Kinds::PROGRESS) && self.emit() == Emit::Event
    }

    /// Whether gaps are told.
    #[must_use]
    pub fn wants_gap(&self) -> bool {
        self.kinds.has(Kinds::GAP)
    }

    /// What the subscription's field gives.
    #[must_use]
    pub fn emit(&self) -> Emit {
        match self.root {
            Root::Event(_) => Emit::Event,
            Root::Entity(_) => Emit::Entity,
        }
    }

    fn tells_key(&self) -> bool {
        let is_key = |field: &EventField| field.source == EventSource::Key;
        matches!(&self.root, Root::Event(selection) if selection.fields.iter().any(is_key))
    }

    /// What it holds in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.plan.memory()
    }

    /// `{"data":{...}` and `"errors"` where there are some; the object is not ended.
    fn payload(&self, told: &Told<'_>, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut writer = Writer {
            plan: &self.plan,
            end_max: begin.saturating_add(self.bytes_max),
            too_large: false,
            out,
            errors: Vec::new(),
            told_errors: 0,
        };
        writer.out.extend_from_slice(br#"{"data":"#);
        let start = writer.out.len();
        writer.out.push(b'{');
        json::string(&self.key, writer.out);
        writer.out.push(b':');
        let path = Path::Field(&Path::Root, &self.key);
        let done = match &self.root {
            Root::Event(selection) => writer.or_null(
                self.nullable,
                |writer| writer.event(selection, told, &path).map(|()| Written::Value),
                &path,
            ),
            Root::Entity(ty) => writer.value(ty, told.seen.as_ref(), &path),
        };
        match done {
            Ok(()) => writer.out.push(b'}'),
            Err(Broken) => {
                writer.out.truncate(start);
                writer.out.extend_from_slice(b"null");
            }
        }
        let too_large = writer.is_too_large();
        let Writer { out, errors, .. } = writer;
        if too_large {
            out.truncate(begin);
            out.extend_from_slice(
                br#"{"data":null,"errors":[{"message":"what is selected of the event is too large","path":"#,
            );
            Path::Field(&Path::Root, &self.key).write(out);
            out.extend_from_slice(br#","extensions":{"code":"data_too_large"}}]"#);
            return;
        }
        if !errors.is_empty() {
            out.extend_from_slice(br#","errors":["#);
            out.extend_from_slice(&errors);
            out.push(b']');
        }
    }
}

/// The bit and the name of a change.
fn kind(change: Change) -> (Kinds, &'static str) {
    match change {
        Change::Created => (Kinds::CREATED, "CREATED"),
        Change::Updated => (Kinds::UPDATED, "UPDATED"),
        Change::Left => (Kinds::LEFT, "LEFT"),
        Change::Deleted => (Kinds::DELETED, "DELETED"),
        Change::Changed => (Kinds::CHANGED, "CHANGED"),
    }
}

/// `,"extensions":{...}}`.
fn end(cursor: &str, partitions: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","extensions":{"cursor":"#);
    json::string(cursor, out);
    if !partitions.is_empty() {
        out.extend_from_slice(br#","gap":{"partitions":"#);
        out.extend_from_slice(partitions.as_bytes());
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
}

/// What is told: an event, or what stands for one.
struct Told<'a> {
    kind: &'static str,
    cursor: &'a str,
    key: Option<&'a str>,
    time_ms: i64,
    seen: Option<Seen<'a>>,
}

impl<'a> Told<'a> {
    fn without_data(kind: &'static str, cursor: &'a str, time_ms: i64) -> Self {
        Self {
            kind,
            cursor,
            key: None,
            time_ms,
            seen: None,
        }
    }
}

/// A place that must not be null is null, and the error was told; or it is all too large.
struct Broken;

struct Writer<'p, 'o> {
    plan: &'p Plan,
    /// The most that `out` may hold, together with the errors.
    end_max: usize,
    /// It would have held more: nothing more is written.
    too_large: bool,
    out: &'o mut Vec<u8>,
    /// The inside of `errors`.
    errors: Vec<u8>,
    told_errors: usize,
}

impl Writer<'_, '_> {
    fn event(&mut self, selection: &EventSelection, told: &Told<'_>, path: &Path<'_>) -> Result<(), Broken> {
        self.out.push(b'{');
        for (number, field) in selection.fields.iter().enumerate() {
            self.key(number, &field.key);
            let path = Path::Field(path, &field.key);
            self.event_field(selection, field, told, &path)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn event_field(
        &mut self,
        selection: &EventSelection,
        field: &EventField,
        told: &Told<'_>,
        path: &Path<'_>,
    ) -> Result<(), Broken> {
        match &field.source {
            EventSource::TypeName => json::string(&selection.name, self.out),
            EventSource::Kind => json::string(told.kind, self.out),
            EventSource::Cursor => json::string(told.cursor, self.out),
            EventSource::Key => {
                let key = told.key;
                return self.or_null(
                    field.nullable,
                    |writer| {
                        Ok(key.map_or(Written::Null, |key| {
                            json::string(key, writer.out);
                            Written::Value
                        }))
                    },
                    path,
                );
            }
            EventSource::Time if json::has_time(told.time_ms) => json::time(told.time_ms, self.out),
            // Kafka's "no timestamp". Where that cannot be said, the epoch is nearer to the truth than no event.
            EventSource::Time if field.nullable => self.out.extend_from_slice(b"null"),
            EventSource::Time => json::time(0, self.out),
            EventSource::Data(ty) => return self.value(ty, told.seen.as_ref(), path),
        }
        Ok(())
    }

    /// Appends a value of this type, or null where it may stand for it.
    fn value(&mut self, ty: &Type, seen: Option<&Seen<'_>>, path: &Path<'_>) -> Result<(), Broken> {
        self.or_null(ty.nullable, |writer| writer.complete(&ty.shape, seen, path), path)
    }

    fn or_null(
        &mut self,
        nullable: bool,
        write: impl FnOnce(&mut Self) -> Result<Written, Broken>,
        path: &Path<'_>,
    ) -> Result<(), Broken> {
        if self.is_too_large() {
            return Err(Broken);
        }
        let start = self.out.len();
        let written = write(self);
        // Before anything is taken back: what is too large is so, wherever null could stand for it.
        if self.is_too_large() {
            return Err(Broken);
        }
        match written {
            Ok(Written::Value) => return Ok(()),
            Ok(Written::Mismatch) => self.error("the value is none of this field's type", path),
            Ok(Written::Null) if !nullable => self.error("a value that must not be null is missing", path),
            Ok(Written::Null) | Err(Broken) => {}
        }
        self.out.truncate(start);
        if !nullable {
            return Err(Broken);
        }
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn is_too_large(&mut self) -> bool {
        self.too_large |= self.out.len() + self.errors.len() > self.end_max;
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
            Shape::OneOf { discriminator, types } => {
                let said = seen
                    .at(discriminator)
                    .and_then(|said| (said.shape() == JsonShape::String).then(|| said.text()).flatten());
                let found =
                    said.and_then(|said| types.binary_search_by(|(name, _)| (**name).cmp(&*said)).ok());
                match found.and_then(|at| types.get(at)) {
                    Some((_, id)) => self.object(*id, seen, path),
                    None => Ok(Written::Mismatch),
                }
            }
        }
    }

    fn object(&mut self, id: SelectionId, seen: &Seen<'_>, path: &Path<'_>) -> Result<Written, Broken> {
        let Some(selection) = self.plan.selection(id) else {
            return Ok(Written::Null);
        };
        let members = seen.pick(&selection.members);
        self.out.push(b'{');
        for (number, field) in selection.fields.iter().enumerate() {
            self.key(number, &field.key);
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

    fn key(&mut self, number: usize, key: &str) {
        // GraphQL's names need no escapes.
        self.out
            .extend_from_slice(if number > 0 { b",\"" } else { b"\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn error(&mut self, message: &str, path: &Path<'_>) {
        self.told_errors += 1;
        if self.told_errors > ERRORS_MAX {
            return;
        }
        if !self.errors.is_empty() {
            self.errors.push(b',');
        }
        self.errors.extend_from_slice(br#"{"message":"#);
        json::string(message, &mut self.errors);
        self.errors.extend_from_slice(br#","path":"#);
        path.write(&mut self.errors);
        self.errors
            .extend_from_slice(br#","extensions":{"code":"data_invalid"}}"#);
    }
}
