//! What is finished of one event while it is shown to many: each part of it is written once for all operations that
//! select it.
//!
//! One invariant: what was written under a mask is given under an equal mask only, and of the event that it was written
//! from. Each mask has a sheet of its own, and the event is borrowed: neither can be mistaken for another.

use std::ops::Range;

use ahash::AHashMap;
use schemas::event::{Change, Data, Event};
use schemas::project::{Document, Mask, Seen};
use smallvec::SmallVec;

use super::plan::PartRef;
use super::value::{self, Mistakes, Outcome, Wrong};

/// How many masks have a sheet: grants are few, and their masks fewer. Another mask takes the last one's sheet.
const SHEETS_MAX: usize = 4;

/// What a sheet keeps, in bytes and in parts; what does not fit is written again for each who wants it, and the last of
/// that, at most as long as a payload may be, lies there until the next. A worker has one event in hand: that is
/// 4 sheets x (256 KiB + 4,096 x 100 bytes) = 2.6 MiB a worker at worst, and 4 payloads.
const SHEET_BYTES_MAX: usize = 256 << 10;
const SHEET_PARTS_MAX: usize = 4_096;

/// What one selection usually has.
const PARTS_USUAL: usize = 14;
const BYTES_USUAL: usize = 512;

/// What is finished of an event.
pub struct Finished<'e> {
    event: &'e Event,
    sheets: SmallVec<[Sheet; 1]>,
}

impl<'e> Finished<'e> {
    /// Nothing, yet.
    #[must_use]
    pub fn of(event: &'e Event) -> Self {
        Self {
            event,
            sheets: SmallVec::new(),
        }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// The document, where the event has one that is shown.
    pub(super) fn document(&self) -> Option<&'e Document> {
        match &self.event.data {
            Data::Json(document) if !matches!(self.event.change, Change::Left | Change::Deleted) => {
                Some(document)
            }
            _ => None,
        }
    }

    /// How many parts are kept, and how many bytes of them.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize) {
        self.sheets.iter().fold((0, 0), |(parts, bytes), sheet| {
            (parts + sheet.parts.len(), bytes + sheet.kept.0)
        })
    }

    /// The sheet of a mask.
    pub(super) fn sheet(&mut self, mask: &Mask) -> &mut Sheet {
        let place = self.sheets.iter().position(|sheet| sheet.mask == *mask);
        let place = place.unwrap_or_else(|| {
            self.sheets.truncate(SHEETS_MAX - 1);
            self.sheets.push(Sheet::new(mask));
            self.sheets.len() - 1
        });
        &mut self.sheets[place]
    }
}

/// What is finished of an event under one mask.
pub(super) struct Sheet {
    mask: Mask,
    /// By their numbers.
    parts: AHashMap<u64, Entry>,
    values: Vec<u8>,
    mistakes: Mistakes,
    /// What of `values` and `mistakes` is kept. Beyond it is what was written last, and did not fit.
    kept: (usize, usize),
}

/// Where a part is, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    value: (usize, usize),
    mistakes: (usize, usize),
    outcome: Outcome,
}

/// A finished part.
pub(super) struct Finish<'s> {
    /// What became of it.
    pub(super) outcome: Outcome,
    /// The value.
    pub(super) value: &'s [u8],
    mistakes: Range<usize>,
    of: &'s Mistakes,
}

impl<'s> Finish<'s> {
    /// Whether nothing is wrong with it.
    pub(super) fn is_clean(&self) -> bool {
        self.outcome == Outcome::Value && self.mistakes.is_empty()
    }

    /// What is wrong, and the steps of a path from the part to it: `"a",0`.
    pub(super) fn mistakes(&self) -> impl Iterator<Item = (Wrong, &'s [u8])> {
        self.of.range(self.mistakes.clone())
    }
}

impl Sheet {
    fn new(mask: &Mask) -> Self {
        Self {
            mask: mask.clone(),
            // Most events are shown to one selection, which should not pay for many: what usual ones need, at once.
            parts: AHashMap::with_capacity(PARTS_USUAL),
            values: Vec::with_capacity(BYTES_USUAL),
            mistakes: Mistakes::default(),
            kept: (0, 0),
        }
    }

    /// A part; written now if it is not there. `find` gives its member as it is seen under this sheet's mask.
    pub(super) fn part<'d>(&mut self, part: &PartRef, find: impl FnOnce() -> Option<Seen<'d>>) -> Finish<'_> {
        let entry = match self.parts.get(&part.number()) {
            Some(entry) => *entry,
            None => self.write(part, find().as_ref()),
        };
        Finish {
            outcome: entry.outcome,
            value: self.values.get(entry.value.0..entry.value.1).unwrap_or_default(),
            mistakes: entry.mistakes.0..entry.mistakes.1,
            of: &self.mistakes,
        }
    }

    fn write(&mut self, part: &PartRef, member: Option<&Seen<'_>>) -> Entry {
        let (value, mistake) = self.kept;
        self.values.truncate(value);
        self.mistakes.truncate(mistake);
        let outcome = value::write(part.plan(), member, &mut self.values, &mut self.mistakes);
        let entry = Entry {
            value: (value, self.values.len()),
            mistakes: (mistake, self.mistakes.len()),
            outcome,
        };
        if self.parts.len() < SHEET_PARTS_MAX && self.values.len() + self.mistakes.bytes() <= SHEET_BYTES_MAX
        {
            self.kept = (self.values.len(), self.mistakes.len());
            self.parts.insert(part.number(), entry);
        }
        entry
    }
}
