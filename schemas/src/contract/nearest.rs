//! "Did you mean": the known word that is nearest to a mistyped one.
//!
//! Invariant: a word that is further off than a third of its letters is never suggested. It does not know what the words
//! are for.

/// The nearest of the known words, if one is near enough to be what was meant.
#[must_use]
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    known
        .into_iter()
        .filter_map(|candidate| {
            let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
            let allowed = (word.len().max(letters.len()) / 3).max(1);
            let far = distance(&word, &letters);
            (far <= allowed && far < word.len().max(letters.len())).then_some((far, candidate))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let known = ["topics", "format", "schema", "tenant", "attributes"];
        assert_eq!(nearest("topic", known), Some("topics"));
        assert_eq!(nearest("fromat", known), Some("format"));
        assert_eq!(nearest("Tennant", known), Some("tenant"));
    }

    #[test]
    fn a_word_of_its_own_is_left_alone() {
        assert_eq!(nearest("retention", ["topics", "format"]), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("", ["a"]), None);
    }
}
