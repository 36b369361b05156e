//! Deliveries that are settled while something before them is not: written down, they are not sent again by whoever reads
//! the partition next. Pure.
//!
//! Invariant: nothing is noted that the watermark passes soon anyway: where receivers answer, nothing is written at all.
//! Bounded by the ledger's windows.

use std::collections::HashMap;

use schemas::ids::Incarnation;
use webhooks::delivery::DeliveryId;
use webhooks::ledger::Partition;
use webhooks::store::Note;

/// What may have to be noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    partitions: HashMap<Partition, Above>,
}

/// What of one partition was settled above its watermark.
#[derive(Debug)]
struct Above {
    incarnation: Incarnation,
    /// Since [`Notes::due`] was asked last.
    fresh: Vec<(i64, DeliveryId)>,
    /// Before that.
    old: Vec<(i64, DeliveryId)>,
}

impl Notes {
    /// A delivery was settled above the watermark.
    pub(super) fn settled(
        &mut self,
        partition: &Partition,
        incarnation: Incarnation,
        offset: i64,
        delivery: DeliveryId,
    ) {
        if !self.partitions.contains_key(partition) {
            let above = Above {
                incarnation,
                fresh: Vec::new(),
                old: Vec::new(),
            };
            self.partitions.insert(partition.clone(), above);
        }
        if let Some(above) = self.partitions.get_mut(partition) {
            above.fresh.push((offset, delivery));
        }
    }

    /// What was settled before this was asked last, and is above the watermark still. `hold`: nothing can be noted now, and
    /// it is kept for the next time.
    pub(super) fn due(&mut self, hold: bool, watermark: impl Fn(&Partition) -> Option<i64>) -> Vec<Note> {
        let mut notes = Vec::new();
        self.partitions.retain(|partition, above| {
            let Some(watermark) = watermark(partition) else {
                return false;
            };
            above.pass(watermark);
            if !hold && !above.old.is_empty() {
                notes.push(Note {
                    partition: partition.clone(),
                    incarnation: above.incarnation,
                    settled: std::mem::take(&mut above.old),
                });
            }
            above.old.append(&mut above.fresh);
            !above.old.is_empty()
        });
        notes
    }

    /// Everything above the watermark of a partition that is given up.
    pub(super) fn take(&mut self, partition: &Partition, watermark: i64) -> Option<Note> {
        let mut above = self.partitions.remove(partition)?;
        above.pass(watermark);
        above.old.append(&mut above.fresh);
        (!above.old.is_empty()).then(|| Note {
            partition: partition.clone(),
            incarnation: above.incarnation,
            settled: above.old,
        })
    }
}

impl Above {
    fn pass(&mut self, watermark: i64) {
        self.fresh.retain(|(offset, _)| *offset >= watermark);
        self.old.retain(|(offset, _)| *offset >= watermark);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn partition() -> Partition {
        Partition {
            topic: Arc::from("fhir.observation"),
            number: 0,
        }
    }

    fn settled(notes: &mut Notes, offset: i64) -> DeliveryId {
        let delivery = DeliveryId::parse(&format!("msg_{offset}")).expect("an id");
        notes.settled(&partition(), Incarnation(1), offset, delivery.clone());
        delivery
    }

    #[test]
    fn what_the_watermark_passes_soon_is_not_noted() {
        let mut notes = Notes::default();
        settled(&mut notes, 5);
        assert_eq!(notes.due(false, |_| Some(3)), []);
        assert_eq!(notes.due(false, |_| Some(6)), []);
        assert!(notes.partitions.is_empty());
    }

    #[test]
    fn what_stays_above_it_is_noted_once() {
        let mut notes = Notes::default();
        let five = settled(&mut notes, 5);
        assert_eq!(notes.due(false, |_| Some(3)), []);
        let seven = settled(&mut notes, 7);
        let noted = |notes: &[Note]| {
            notes
                .iter()
                .flat_map(|note| note.settled.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(noted(&notes.due(false, |_| Some(3))), [(5, five)]);
        assert_eq!(noted(&notes.due(false, |_| Some(3))), [(7, seven)]);
        assert_eq!(notes.due(false, |_| Some(3)), []);
    }

    #[test]
    fn what_cannot_be_noted_now_is_noted_later_and_all_of_it_when_the_partition_goes() {
        let mut notes = Notes::default();
        let (four, nine) = (settled(&mut notes, 4), settled(&mut notes, 9));
        assert_eq!(notes.due(true, |_| Some(3)), []);
        assert_eq!(notes.due(true, |_| Some(3)), []);
        let ten = settled(&mut notes, 10);
        let note = notes.take(&partition(), 5).expect("something is above");
        assert_eq!(note.settled, [(9, nine), (10, ten)], "{four} is below");
        assert_eq!(notes.take(&partition(), 5), None);
    }

    #[test]
    fn nothing_is_noted_of_a_partition_that_is_not_ours() {
        let mut notes = Notes::default();
        settled(&mut notes, 5);
        settled(&mut notes, 6);
        assert_eq!(notes.due(false, |_| None), []);
        assert!(notes.partitions.is_empty());
    }
}
