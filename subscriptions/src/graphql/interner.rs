//! Equal parts of different operations are one [`Part`], so that what is finished of it for one reader is there for all.
//!
//! Invariant: a part in here is held by operations alone; those that nobody holds any more are forgotten before the table
//! grows beyond twice the living ones. It is a matter of cost only: parts that were not made one are equal as data.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::plan::{Part, PartPlan};

/// Below this, nothing is forgotten.
const SWEPT_FROM: usize = 1_024;

/// Of the whole process: a number is never given twice, whichever schema a part belongs to.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// The parts of all operations of a schema.
pub(super) struct Interner {
    /// Keyed by chance: nobody can prepare documents whose parts collide.
    hasher: ahash::RandomState,
    known: Mutex<Known>,
}

struct Known {
    /// By the hash of what they are. Where two have one hash, only the first is shared.
    parts: HashMap<u64, Weak<Part>, ahash::RandomState>,
    sweep_at: usize,
}

impl Interner {
    pub(super) fn new() -> Self {
        Self {
            hasher: ahash::RandomState::new(),
            known: Mutex::new(Known {
                parts: HashMap::default(),
                sweep_at: SWEPT_FROM,
            }),
        }
    }

    /// The part that is this.
    pub(super) fn part(&self, plan: PartPlan) -> Arc<Part> {
        let hash = self.hasher.hash_one(&plan);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there = known.parts.get(&hash).and_then(Weak::upgrade);
        if let Some(there) = &there
            && *there.plan() == plan
        {
            return Arc::clone(there);
        }
        let part = Arc::new(Part::new(NUMBERS.fetch_add(1, Ordering::Relaxed), plan));
        if there.is_none() {
            known.parts.insert(hash, Arc::downgrade(&part));
            known.sweep();
        }
        part
    }

    /// How many parts are in the table, living or not.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.parts.len()
    }
}

impl Known {
    fn sweep(&mut self) {
        if self.parts.len() < self.sweep_at {
            return;
        }
        self.parts.retain(|_, part| part.strong_count() > 0);
        self.sweep_at = (self.parts.len() * 2).max(SWEPT_FROM);
    }
}

#[cfg(test)]
mod tests {
    use schemas::graph::Scalar;

    use super::super::plan::{Leaf, PartRef, Plan, Shape, Type};
    use super::*;

    fn plan(member: &str) -> PartPlan {
        PartPlan {
            member: Some(member.into()),
            below: None,
            ty: Type {
                nullable: true,
                shape: Shape::Leaf {
                    leaf: Leaf::Scalar(Scalar::String),
                    strip_prefix: None,
                },
            },
            plan: Plan::default(),
            bytes_max: 1 << 20,
        }
    }

    #[test]
    fn equal_parts_are_one_and_others_are_not() {
        let interner = Interner::new();
        let part = |plan: PartPlan| PartRef::from(interner.part(plan));
        assert!(Arc::ptr_eq(&interner.part(plan("a")), &interner.part(plan("a"))));
        let first = part(plan("a"));
        let required = PartPlan {
            ty: Type {
                nullable: false,
                ..plan("a").ty
            },
            ..plan("a")
        };
        let shorter = PartPlan {
            bytes_max: 1 << 10,
            ..plan("a")
        };
        for other in [plan("b"), required, shorter] {
            let other = part(other);
            assert_ne!(other.number(), first.number());
            assert_ne!(other, first);
        }
        let of_another = PartRef::from(Interner::new().part(plan("a")));
        assert_eq!(of_another, first, "as data");
        assert_ne!(of_another.number(), first.number());
    }

    #[test]
    fn parts_that_nobody_holds_are_forgotten_and_their_numbers_not_given_again() {
        let interner = Interner::new();
        let kept = interner.part(plan("kept"));
        let first = PartRef::from(interner.part(plan("again"))).number();
        for number in 0..10_000 {
            interner.part(plan(&format!("m{number}")));
            assert!(interner.len() <= SWEPT_FROM);
        }
        assert!(Arc::ptr_eq(&kept, &interner.part(plan("kept"))));
        assert_ne!(PartRef::from(interner.part(plan("again"))).number(), first);
    }
}
