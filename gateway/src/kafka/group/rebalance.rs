//! Partitions that come and go: given and taken by the group, made again, or cut under their reader.
//!
//! Invariant: a partition is read only from where the resolver said that it begins, and nothing of one that was taken is
//! committed or handed on any more.

use std::sync::Arc;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use schemas::ids::Incarnation;
use webhooks::ledger::Partition;
use webhooks::scheduler::Input;

use super::{Ask, Beginning, Giving, Reading, Work, count, list, report};

impl Work {
    /// The partitions of a rebalance, or ones that have to begin anew, can be read.
    pub(super) fn begin(&mut self, question: u64, beginnings: Vec<Beginning>) {
        let giving = self.giving.take_if(|giving| giving.question == question);
        // Whatever the resolver knew of endpoints, the planner is to know too.
        self.planner.refresh();
        let mut assigned = TopicPartitionList::new();
        for beginning in beginnings {
            let partition = beginning.partition;
            let is_wanted = match &giving {
                Some(giving) => giving.partitions.contains(&partition),
                // Or else it began anew in the meantime, or is another node's.
                None => self.reading.contains_key(&partition) && self.ledger.next(&partition).is_none(),
            };
            if !is_wanted {
                continue;
            }
            for (endpoint, keys) in beginning.blocked {
                self.waiting.push_back(Input::Blocked(endpoint, keys));
            }
            for interested in beginning.catching_up {
                self.catching_up
                    .entry((interested, partition.clone()))
                    .or_default();
            }
            self.ledger
                .assign(partition.clone(), beginning.incarnation, beginning.offset);
            let added = assigned.add_partition_offset(
                &partition.topic,
                partition.number,
                Offset::Offset(beginning.offset),
            );
            report("assign", added);
            let reading = Reading {
                covered: beginning.covered,
                settled: beginning.settled,
                paused: false,
            };
            self.reading.insert(partition, reading);
        }
        // The group waits for an answer, also if nothing is left of what it gave.
        if giving.is_some() || assigned.count() > 0 {
            report("assign", self.consumer.incremental_assign(&assigned));
        }
        self.metrics.partitions.set(count(self.reading.len()));
        self.is_paused = false;
        self.hold_back();
    }

    /// A topic was made again: its partitions begin anew. What is under way of its former life goes on; nothing of it is
    /// committed.
    pub(super) fn recreated(&mut self, topic: &Arc<str>, incarnation: Incarnation) {
        let mut again = Vec::new();
        let mut removed = TopicPartitionList::new();
        for partition in self.reading.keys().filter(|partition| partition.topic == *topic) {
            if self
                .ledger
                .incarnation(partition)
                .is_some_and(|known| known != incarnation)
            {
                removed.add_partition(topic, partition.number);
                again.push(partition.clone());
            }
        }
        if again.is_empty() {
            return;
        }
        report("unassign", self.consumer.incremental_unassign(&removed));
        for partition in &again {
            drop(self.ledger.revoke(partition));
        }
        self.questions += 1;
        self.ask(Ask::Begin(self.questions, again));
    }

    pub(super) fn rebalance(&mut self, given: bool, partitions: Vec<(Arc<str>, i32)>) {
        let partitions: Vec<Partition> = partitions
            .into_iter()
            .map(|(topic, number)| Partition { topic, number })
            .collect();
        if given {
            self.questions += 1;
            if partitions.is_empty() {
                report(
                    "assign",
                    self.consumer.incremental_assign(&TopicPartitionList::new()),
                );
                return;
            }
            self.giving = Some(Giving {
                question: self.questions,
                partitions: partitions.iter().cloned().collect(),
            });
            self.ask(Ask::Begin(self.questions, partitions));
            return;
        }
        self.settle();
        let is_lost = self.consumer.assignment_lost();
        let (mut commits, mut notes) = (Vec::new(), Vec::new());
        let mut removed = TopicPartitionList::new();
        for partition in &partitions {
            if let Some(giving) = &mut self.giving {
                giving.partitions.remove(partition);
            }
            self.reading.remove(partition);
            if let Some(watermark) = self.ledger.watermark(partition) {
                notes.extend(self.notes.take(partition, watermark));
            }
            commits.extend(self.ledger.revoke(partition));
            self.catching_up.retain(|(_, of), _| of != partition);
            // What waits for the scheduler is another node's to deliver.
            self.waiting
                .retain(|input| !matches!(input, Input::Job(job) if job.is_of(partition)));
            self.waiting.push_back(Input::Revoked(partition.clone()));
            removed.add_partition(&partition.topic, partition.number);
        }
        // True whoever has the partition by now.
        if !notes.is_empty() {
            self.ask(Ask::Noted(notes));
        }
        if !is_lost && !commits.is_empty() {
            report("commit", self.consumer.commit(&list(&commits), CommitMode::Async));
            self.ask(Ask::Settled(commits));
        }
        report("unassign", self.consumer.incremental_unassign(&removed));
        self.metrics.partitions.set(count(self.reading.len()));
    }

    /// Something is wrong with one partition.
    pub(super) fn trouble(&mut self, topic: Arc<str>, number: i32, offset: i64, code: RDKafkaErrorCode) {
        let partition = Partition { topic, number };
        match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                // Records were deleted that were not read yet; whoever decides where it goes on tells of them.
                if self.ledger.next(&partition).is_none() {
                    return;
                }
                tracing::warn!(
                    topic = &*partition.topic,
                    partition = number,
                    offset,
                    "webhooks begin anew: the log was cut"
                );
                let mut removed = TopicPartitionList::new();
                removed.add_partition(&partition.topic, number);
                report("unassign", self.consumer.incremental_unassign(&removed));
                if let Some(commit) = self.ledger.revoke(&partition) {
                    report(
                        "commit",
                        self.consumer
                            .commit(&list(std::slice::from_ref(&commit)), CommitMode::Async),
                    );
                    self.ask(Ask::Settled(vec![commit]));
                }
                self.questions += 1;
                self.ask(Ask::Begin(self.questions, vec![partition]));
            }
            code => {
                tracing::debug!(topic = &*partition.topic, partition = number, %code, "a partition cannot be read now")
            }
        }
    }
}
