//! Where a lane's partitions come, go, or are not what they were: it is told as gaps, and things go on from there.

use super::*;

impl Lane {
    /// Tells a gap over these slots (with the offsets of the hole, where they are known). `names` is the layout that
    /// names the slots: the one before, where they are gone.
    pub(crate) fn gap(
        &mut self,
        reason: &'static str,
        slots: &[(Slot, Option<(i64, i64)>)],
        names: &Layout,
        around: &Surroundings<'_>,
    ) {
        let tenant = &self.share.selection.tenant;
        let partitions = gap_partitions(reason, slots, tenant, self.since_ms, names, around.show_offsets);
        self.gaps.extend(partitions.iter().cloned());
        let cursor = self.seal(around);
        self.push(Frame {
            cursor,
            kind: Kind::Gap {
                partitions: Arc::from(Value::Array(partitions).to_string()),
                at_ms: around.now_ms,
            },
        });
    }

    /// A partition is gone: nothing more is wanted of it.
    pub(crate) fn removed(&mut self, slot: Slot) {
        self.vector.remove(slot);
        self.pages.retain(|(have, _)| *have != slot);
        self.ahead.retain(|have| *have != slot);
        self.asking.retain(|(have, asked)| {
            if *have == slot {
                asked.abort();
            }
            *have != slot
        });
    }

    /// Takes over what another lane owed its reader.
    pub(crate) fn inherit(&mut self, before: &Self) {
        self.live_owed =
            before.live_owed || before.queue.iter().any(|frame| matches!(frame.kind, Kind::Live));
        self.since_ms = before.since_ms;
        self.carried_until = before.carried_until;
    }

    /// Tells a gap again that was dropped unsent.
    pub(crate) fn repeat_gap(&mut self, partitions: Arc<str>, around: &Surroundings<'_>) {
        let cursor = self.seal(around);
        self.push(Frame {
            cursor,
            kind: Kind::Gap {
                partitions,
                at_ms: around.now_ms,
            },
        });
    }

    /// A partition appeared: a carried position may belong to it.
    pub(crate) fn added(&mut self, slot: Slot, start: Position, around: &Surroundings<'_>) {
        let Some(entry) = around.layout.entry(slot) else {
            return;
        };
        let same = self
            .carried
            .iter()
            .position(|carried| carried.is(&entry.partition));
        if let Some(place) = same {
            let carried = self.carried.swap_remove(place);
            self.vector.set(slot, carried.position);
            return;
        }
        let digest = topic_digest(&entry.partition.topic);
        let number = entry.partition.partition;
        let other = self
            .carried
            .iter()
            .position(|carried| carried.topic == digest && carried.partition == number);
        if let Some(place) = other {
            // The cursor knew another life of the topic.
            self.carried.swap_remove(place);
            self.vector.set(slot, Position::At(0));
            self.gap("recreated", &[(slot, None)], around.layout, around);
            return;
        }
        let position = match (start, self.since_ms) {
            // A topic that the cursor does not name, found late: it is read from when the cursor was issued.
            (Position::At(offset), Some(since)) if offset > 0 => Position::Since(since - ISSUED_AT_SLACK_MS),
            (start, _) => start,
        };
        self.vector.set(slot, position);
    }

    /// Partitions that nobody found in time count as deleted.
    pub(crate) fn expire_carried(&mut self, now: Instant, around: &Surroundings<'_>) -> bool {
        if self.carried.is_empty() || now < self.carried_until {
            return false;
        }
        let gone = self.carried.len();
        self.carried.clear();
        let mut value = Map::new();
        value.insert("reason".to_owned(), json!("deleted"));
        value.insert("count".to_owned(), json!(gone));
        let value = Value::Object(value);
        self.gaps.push(value.clone());
        let cursor = self.seal(around);
        self.push(Frame {
            cursor,
            kind: Kind::Gap {
                partitions: Arc::from(Value::Array(vec![value]).to_string()),
                at_ms: around.now_ms,
            },
        });
        true
    }
}

/// The `partitions` member of a gap.
pub(crate) fn gap_partitions(
    reason: &'static str,
    slots: &[(Slot, Option<(i64, i64)>)],
    tenant: &TenantId,
    since_ms: Option<i64>,
    names: &Layout,
    show_offsets: bool,
) -> Vec<Value> {
    let describe = |(slot, hole): &(Slot, Option<(i64, i64)>)| {
        let mut value = Map::new();
        if let Some(ordinal) = names.ordinal(tenant, *slot) {
            value.insert("partition".to_owned(), json!(ordinal));
        }
        value.insert("reason".to_owned(), json!(reason));
        if let Some((from, to)) = hole
            && show_offsets
        {
            value.insert("from".to_owned(), json!(from));
            value.insert("to".to_owned(), json!(to));
        }
        if let Some(since) = since_ms {
            value.insert("since".to_owned(), json!(crate::session::rfc3339(since)));
        }
        Value::Object(value)
    };
    slots.iter().map(describe).collect()
}
