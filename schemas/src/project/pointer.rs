//! Paths into a document. A pointer is data: it knows nothing of any document, and two that are equal as data select
//! the same places.

use std::fmt;
use std::sync::Arc;

use crate::ids::BadName;

/// A JSON pointer (RFC 6901) in which a segment `*` stands for each element of an array or each member of an object.
///
/// The empty pointer is the whole document. A segment that is a canonical decimal number (`0`, `17`, never `017`)
/// matches an array's element as well as a member of that name. A member that is really called `*` can only be
/// reached by the wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer {
    segments: Arc<[Box<str>]>,
}

/// The segment that matches everything.
const ANY: &str = "*";

impl Pointer {
    /// The most bytes of a pointer's text.
    pub const BYTES_MAX: usize = 1024;

    /// Parses the pointer, `~0` and `~1` unescaped.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |rule| BadName {
            what: "JSON pointer",
            value: text.chars().take(64).collect(),
            rule,
        };
        if text.len() > Self::BYTES_MAX {
            return Err(bad("at most 1024 bytes"));
        }
        if text.is_empty() {
            return Ok(Self {
                segments: Arc::from([]),
            });
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(bad("empty, or `/` before each segment (RFC 6901)"));
        };
        let segments = rest
            .split('/')
            .map(unescape)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad("`~` is written `~0` and `/` is written `~1` (RFC 6901)"))?;
        Ok(Self {
            segments: segments.into(),
        })
    }

    /// The segments, unescaped. `*` is the wildcard.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &str> {
        self.segments.iter().map(|segment| &**segment)
    }

    /// How many segments there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.segments.len()
    }

    /// The first segment, and what follows it.
    #[must_use]
    pub fn split_first(&self) -> Option<(&str, Self)> {
        let (first, rest) = self.segments.split_first()?;
        Some((
            first,
            Self {
                segments: rest.into(),
            },
        ))
    }

    /// Whether a segment is `*`: the pointer may select several values.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.segments.iter().any(|segment| &**segment == ANY)
    }

    /// Whether everything that `other` selects is at or below what this selects.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.segments.len() <= other.segments.len()
            && self
                .segments
                .iter()
                .zip(other.segments.iter())
                .all(|(mine, theirs)| &**mine == ANY || mine == theirs)
    }

    /// Whether some document has a place that one selects and that is at, above or below a place that the other
    /// selects.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.segments
            .iter()
            .zip(other.segments.iter())
            .all(|(mine, theirs)| &**mine == ANY || &**theirs == ANY || mine == theirs)
    }

    pub(super) fn segment(&self, depth: usize) -> Option<&str> {
        self.segments.get(depth).map(|segment| &**segment)
    }
}

/// Whether a segment is the wildcard.
pub(super) fn is_wildcard(segment: &str) -> bool {
    segment == ANY
}

/// The array index that a segment names: digits without a leading zero.
pub(super) fn index(segment: &str) -> Option<usize> {
    let canonical = match segment.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { segment.parse().ok() } else { None }
}

fn unescape(segment: &str) -> Option<Box<str>> {
    let mut text = String::with_capacity(segment.len());
    let mut chars = segment.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text.into())
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in self.segments() {
            f.write_str("/")?;
            for c in segment.chars() {
                match c {
                    '~' => f.write_str("~0")?,
                    '/' => f.write_str("~1")?,
                    c => write!(f, "{c}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        Pointer::parse(text).expect("a good pointer")
    }

    #[test]
    fn text_is_read_as_rfc_6901_says() {
        assert_eq!(pointer("").depth(), 0);
        assert_eq!(pointer("/").segments().collect::<Vec<_>>(), [""]);
        assert_eq!(
            pointer("/a~1b/m~0n/~01").segments().collect::<Vec<_>>(),
            ["a/b", "m~n", "~1"]
        );
        for bad in ["a", "a/b", "/~", "/~2", "/a~", "#/a"] {
            assert!(Pointer::parse(bad).is_err(), "{bad}");
        }
        assert!(Pointer::parse(&"/a".repeat(600)).is_err());
    }

    #[test]
    fn a_pointer_covers_what_is_below_it() {
        assert!(pointer("/a").covers(&pointer("/a/b")));
        assert!(pointer("").covers(&pointer("/a")));
        assert!(pointer("/a/*").covers(&pointer("/a/0/b")));
        assert!(!pointer("/a/0").covers(&pointer("/a/*")));
        assert!(!pointer("/a/b").covers(&pointer("/a")));
        assert!(!pointer("/a").covers(&pointer("/ab")));
    }

    #[test]
    fn overlap_is_at_above_or_below() {
        for (one, other) in [
            ("/a", "/a/b"),
            ("/a/b", "/a"),
            ("/*/b", "/a"),
            ("/a/*/c", "/a/0/c/d"),
            ("", "/x"),
        ] {
            assert!(pointer(one).overlaps(&pointer(other)), "{one} {other}");
            assert!(pointer(other).overlaps(&pointer(one)), "{other} {one}");
        }
        assert!(!pointer("/a/b").overlaps(&pointer("/a/c")));
        assert!(!pointer("/*/b").overlaps(&pointer("/a/c")));
    }

    #[test]
    fn only_canonical_numbers_are_indexes() {
        assert_eq!(index("0"), Some(0));
        assert_eq!(index("17"), Some(17));
        for not in ["", "00", "01", "-", "-1", "+1", "1a", "99999999999999999999999"] {
            assert_eq!(index(not), None, "{not}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(text in "(/([a-z~/*]|~0|~1){0,4}){0,4}") {
            if let Ok(pointer) = Pointer::parse(&text) {
                prop_assert_eq!(Pointer::parse(&pointer.to_string()), Ok(pointer));
            }
        }

        #[test]
        fn covering_is_overlapping(one in "(/[ab*]){0,4}", other in "(/[ab*]){0,4}") {
            let (one, other) = (pointer(&one), pointer(&other));
            prop_assert!(!one.covers(&other) || one.overlaps(&other));
            prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
        }
    }
}
