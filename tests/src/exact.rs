//! The exact sequence: what a reader must get, partition by partition, in order, each once.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What a reader is still owed. Events carry `partition` and `n` in their data.
#[derive(Debug, Clone, Default)]
pub struct Exact {
    owed: BTreeMap<i64, VecDeque<i64>>,
    got: usize,
}

impl Exact {
    /// Owes one more, behind the others of its partition.
    pub fn owe(&mut self, partition: i64, n: i64) {
        self.owed.entry(partition).or_default().push_back(n);
    }

    /// Takes an event: an error if it is not the next one that is owed of its partition.
    pub fn take(&mut self, event: &Value) -> Result<()> {
        let data = &event["data"];
        let field = |name: &str| {
            data[name]
                .as_i64()
                .with_context(|| format!("no {name} in {event}"))
        };
        let (partition, n) = (field("partition")?, field("n")?);
        let owed = self
            .owed
            .get_mut(&partition)
            .with_context(|| format!("partition {partition} is not owed"))?;
        match owed.front() {
            Some(next) if *next == n => {
                owed.pop_front();
                self.got += 1;
                Ok(())
            }
            Some(next) => {
                let what = match owed.iter().position(|later| *later == n) {
                    Some(missing) => format!("{missing} are missing"),
                    None => "it was given before, or is not for this reader".to_owned(),
                };
                bail!(
                    "partition {partition}: {n} instead of {next} after {} events: {what}",
                    self.got
                )
            }
            None => bail!("partition {partition}: {n} after all that was owed"),
        }
    }

    /// Whether nothing is owed any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.owed.values().all(VecDeque::is_empty)
    }

    /// How many are owed still.
    #[must_use]
    pub fn left(&self) -> usize {
        self.owed.values().map(VecDeque::len).sum()
    }

    /// How many were taken.
    #[must_use]
    pub fn got(&self) -> usize {
        self.got
    }

    /// Forgets what is owed of a partition before `n`: a gap told that it is gone.
    pub fn forgive(&mut self, partition: i64, before: i64) {
        if let Some(owed) = self.owed.get_mut(&partition) {
            owed.retain(|n| *n >= before);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(partition: i64, n: i64) -> Value {
        json!({"data": {"partition": partition, "n": n}})
    }

    #[test]
    fn what_is_missing_twice_or_out_of_order_is_noticed() {
        let mut exact = Exact::default();
        for n in [1, 2, 5] {
            exact.owe(0, n);
        }
        exact.owe(1, 1);
        assert!(exact.take(&event(0, 2)).is_err());
        exact.take(&event(0, 1)).expect("in order");
        assert!(exact.take(&event(0, 1)).is_err());
        exact.take(&event(1, 1)).expect("another partition");
        assert!(exact.take(&event(1, 2)).is_err());
        assert!(exact.take(&event(0, 3)).is_err());
        exact.take(&event(0, 2)).expect("in order");
        exact.take(&event(0, 5)).expect("a hole that is not owed");
        assert!(exact.is_done());
        assert_eq!((exact.got(), exact.left()), (4, 0));
    }
}
