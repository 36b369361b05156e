//! What of an event a subscription shows, and the writing of it.
//!
//! One invariant: the document is read through [`Seen`] alone, or comes from the sheet of what was seen under the same
//! mask. Whatever is hidden is absent, and so null.

use std::cell::OnceCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use schemas::event::{Change, Event, json};
use schemas::graph::{Emit, Kinds};
use schemas::project::{Mask, Seen, Shape as JsonShape, Sight};

use super::finished::{Finished, Sheet};
use super::leaf::Written;
use super::path::Path;
use super::plan::{EventField, EventSelection, EventSource, Key, PartRef, Selected, Top, TopSource, Whole};
use super::value::{self, ERRORS_MAX, Outcome, Wrong};

/// What of an event a subscription shows. Equal projections are equal as data, whatever documents they came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Projection {
    /// Of all below it, so that different projections are seldom compared any further.
    digest: u64,
    pub(super) kinds: Kinds,
    /// The field's response key.
    pub(super) key: Key,
    /// Whether null may stand for the whole field.
    pub(super) nullable: bool,
    pub(super) root: Root,
    /// The longest payload.
    pub(super) bytes_max: usize,
}

/// What the subscription's field gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Root {
    /// Events.
    Event(EventSelection),
    /// The data alone.
    Entity(Selected),
}

impl Projection {
    pub(super) fn new(kinds: Kinds, key: Key, nullable: bool, root: Root, bytes_max: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        (kinds, &key, nullable, &root, bytes_max).hash(&mut hasher);
        Self {
            digest: hasher.finish(),
            kinds,
            key,
            nullable,
            root,
            bytes_max,
        }
    }

    /// Appends the payload of an event without line breaks: `{"data":{...},"errors":[...]?,"extensions":{"cursor":"..."}}`.
    /// What the mask hides reads as absent. A value that is none of its field's type is null, with an error that says
    /// where and never what; null propagates as the specification says (section 6.4.4). A payload that would be longer than
    /// the limit has no data, and one error `data_too_large`.
    pub fn event(&self, event: &Event, mask: &Mask, cursor: &str, out: &mut Vec<u8>) {
        self.finish(&mut Finished::of(event), mask, cursor, out);
    }

    /// The same, with what other projections have finished of the event already; what this one finishes is left there.
    pub fn finish(&self, finished: &mut Finished<'_>, mask: &Mask, cursor: &str, out: &mut Vec<u8>) {
        let event = finished.event();
        let sight = Sight::new(mask);
        let told = Told {
            kind: kind(event.change).1,
            cursor,
            key: if self.tells_key() {
                event.key_text(mask)
            } else {
                None
            },
            time_ms: event.time_ms,
            seen: finished.document().and_then(|document| document.seen(&sight)),
        };
        self.payload(&told, Some(finished.sheet(mask)), out);
        end(cursor, "", out);
    }

    /// Appends the payload of a gap; `partitions` is a JSON array without line breaks.
    ///
    /// An event of kind `GAP`; where the field gives the data alone, null with an error `gap`.
    pub fn gap(&self, partitions: &str, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        match &self.root {
            Root::Event(_) => self.payload(&Told::without_data("GAP", cursor, at_ms), None, out),
            Root::Entity(_) => {
                out.extend_from_slice(br#"{"data":{"#);
                out.extend_from_slice(self.key.text(0));
                out.extend_from_slice(
                    br#"null},"errors":[{"message":"some events cannot be given any more","path":"#,
                );
                Path::Field(&Path::Root, &self.key).write(out);
                out.extend_from_slice(br#","extensions":{"code":"gap"}}]"#);
            }
        }
        end(cursor, partitions, out);
    }

    /// Appends the payload that tells a cursor and nothing else: an event of kind `PROGRESS`.
    pub fn progress(&self, cursor: &str, at_ms: i64, out: &mut Vec<u8>) {
        self.payload(&Told::without_data("PROGRESS", cursor, at_ms), None, out);
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

    /// What is selected of documents, once for each field that shows the document.
    pub(super) fn selected(&self) -> impl Iterator<Item = &Selected> {
        let (fields, entity): (&[EventField], _) = match &self.root {
            Root::Event(selection) => (&selection.fields, None),
            Root::Entity(selected) => (&[], Some(selected)),
        };
        let of_fields = fields.iter().filter_map(|field| match &field.source {
            EventSource::Data(selected) => Some(&**selected),
            _ => None,
        });
        of_fields.chain(entity)
    }

    /// What it holds in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.selected().map(Selected::memory).sum::<usize>()
    }

    /// `{"data":{...}` and `"errors"` where there are some; the object is not ended.
    fn payload(&self, told: &Told<'_>, sheet: Option<&mut Sheet>, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut writer = Writer {
            sheet,
            end_max: begin.saturating_add(self.bytes_max),
            too_large: false,
            out,
            errors: Vec::new(),
            told_errors: 0,
        };
        writer.out.extend_from_slice(br#"{"data":"#);
        let start = writer.out.len();
        writer.out.push(b'{');
        writer.out.extend_from_slice(self.key.text(0));
        let path = Path::Field(&Path::Root, &self.key);
        let done = match &self.root {
            Root::Event(selection) => writer.or_null(
                self.nullable,
                |writer| writer.event(selection, told, &path).map(|()| Written::Value),
                &path,
            ),
            Root::Entity(selected) => writer.selected(selected, told.seen.as_ref(), &path),
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

struct Writer<'s, 'o> {
    /// `None`: there is no document.
    sheet: Option<&'s mut Sheet>,
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
            self.out.extend_from_slice(field.key.text(number));
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
            EventSource::Time => match json::time(told.time_ms) {
                Some(time) => json::string(time.as_str(), self.out),
                // Kafka's "no timestamp". Where that cannot be said, the epoch is nearer to the truth than no event.
                None if field.nullable => self.out.extend_from_slice(b"null"),
                None => json::string(json::Time::EPOCH.as_str(), self.out),
            },
            EventSource::Data(selected) => return self.selected(selected, told.seen.as_ref(), path),
        }
        Ok(())
    }

    /// Appends what is selected of the document, or null where it may stand for it.
    fn selected(
        &mut self,
        selected: &Selected,
        seen: Option<&Seen<'_>>,
        path: &Path<'_>,
    ) -> Result<(), Broken> {
        self.or_null(
            selected.nullable,
            |writer| writer.whole(&selected.whole, seen, path),
            path,
        )
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
            Ok(Written::Mismatch) => self.error(Wrong::Mismatch, path, b""),
            Ok(Written::Null) if !nullable => self.error(Wrong::Missing, path, b""),
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

    fn whole(&mut self, whole: &Whole, seen: Option<&Seen<'_>>, path: &Path<'_>) -> Result<Written, Broken> {
        let Some(seen) = seen else {
            return Ok(Written::Null);
        };
        match whole {
            Whole::One(part) => {
                self.part(part, || Some(seen.clone()), path)?;
                Ok(Written::Value)
            }
            _ if seen.shape() == JsonShape::Null => Ok(Written::Null),
            Whole::Object(top) => self.top(top, seen, path),
            Whole::OneOf { discriminator, types } => match value::one_of(discriminator, types, seen) {
                Some(top) => self.top(top, seen, path),
                None => Ok(Written::Mismatch),
            },
        }
    }

    fn top(&mut self, top: &Top, seen: &Seen<'_>, path: &Path<'_>) -> Result<Written, Broken> {
        // Only where a part is not finished yet.
        let members = OnceCell::new();
        self.out.push(b'{');
        for (number, field) in top.fields.iter().enumerate() {
            self.out.extend_from_slice(field.key.text(number));
            match &field.source {
                TopSource::TypeName => json::string(&top.name, self.out),
                TopSource::Part { slot, part } => {
                    let find = || match slot {
                        Some(slot) => members
                            .get_or_init(|| seen.pick(&top.members))
                            .get(usize::from(*slot)),
                        None => Some(seen.clone()),
                    };
                    self.part(part, find, &Path::Field(path, &field.key))?;
                }
            }
        }
        self.out.push(b'}');
        Ok(Written::Value)
    }

    /// Appends a part; it has null where that may stand for it.
    fn part<'d>(
        &mut self,
        part: &PartRef,
        find: impl FnOnce() -> Option<Seen<'d>>,
        path: &Path<'_>,
    ) -> Result<(), Broken> {
        let Some(sheet) = self.sheet.take() else {
            return Err(Broken);
        };
        let finish = sheet.part(part, find);
        self.out.extend_from_slice(finish.value);
        if !finish.is_clean() {
            self.too_large |= finish.outcome == Outcome::TooLarge;
            for (wrong, below) in finish.mistakes() {
                self.error(wrong, path, below);
            }
        }
        let broken = finish.outcome != Outcome::Value;
        self.sheet = Some(sheet);
        if broken || self.is_too_large() {
            return Err(Broken);
        }
        Ok(())
    }

    /// An error at a place, or at these steps below it.
    fn error(&mut self, wrong: Wrong, path: &Path<'_>, below: &[u8]) {
        self.told_errors += 1;
        if self.told_errors > ERRORS_MAX {
            return;
        }
        if !self.errors.is_empty() {
            self.errors.push(b',');
        }
        self.errors.extend_from_slice(br#"{"message":"#);
        json::string(wrong.message(), &mut self.errors);
        self.errors.extend_from_slice(br#","path":["#);
        path.write_steps(&mut self.errors);
        if !below.is_empty() {
            self.errors.push(b',');
            self.errors.extend_from_slice(below);
        }
        self.errors
            .extend_from_slice(br#"],"extensions":{"code":"data_invalid"}}"#);
    }
}
