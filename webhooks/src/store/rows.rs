//! Statements that insert many rows at once: each statement is a round trip to the engine.

use super::{Engine, Store};

/// Rows of one statement. Few sizes, so that few statements are prepared.
const ROWS: [usize; 3] = [32, 8, 1];

/// A statement by its parts. Values are written `?`, in the order in which they are bound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) head: &'static str,
    pub(super) row: &'static str,
    pub(super) tail: &'static str,
}

impl Store {
    /// The statement for so many rows. PostgreSQL wants numbers. To SQLite they are names, each looked for among all others,
    /// and so it gets none.
    pub(super) fn rows(&self, rows: Rows, count: usize) -> sqlx::AssertSqlSafe<String> {
        let mut text = rows.head.to_owned();
        let mut number = 0;
        for place in 0..count {
            text.push_str(if place == 0 { "" } else { ", " });
            match &self.engine {
                Engine::Sqlite { .. } => text.push_str(rows.row),
                Engine::Postgres(_) => {
                    for (place, part) in rows.row.split('?').enumerate() {
                        if place > 0 {
                            number += 1;
                            text.push_str(&format!("${number}"));
                        }
                        text.push_str(part);
                    }
                }
            }
        }
        text.push_str(rows.tail);
        self.sql(&text)
    }
}

/// Cuts them into pieces of these sizes.
pub(super) fn batches<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS.into_iter().find(|size| *size <= rest.len())?;
        let (batch, later) = rest.split_at(size);
        rest = later;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_all_of_it_in_order() {
        for count in [0, 1, 7, 8, 31, 32, 100] {
            let all: Vec<usize> = (0..count).collect();
            let cut: Vec<&[usize]> = batches(&all).collect();
            assert!(cut.iter().all(|batch| ROWS.contains(&batch.len())));
            assert_eq!(cut.concat(), all);
        }
    }
}
