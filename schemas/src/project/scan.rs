//! One pass over JSON text: strict RFC 8259, and an index of spans comes out. Stricter than the RFC in two ways, both
//! because readers disagree about what such text means: a member name twice in one object, and half of a surrogate
//! pair, are refused. Knows nothing of masks.

use std::borrow::Cow;
use std::collections::HashSet;

use super::document::{BadDocument, Document};
use super::text::{hex4, plain_run, unescape};

/// One value or member name. In pre-order; an object's children are name, value, name, value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) start: u32,
    pub(super) end: u32,
    /// The node after this one's subtree; the two high bits are flags.
    next: u32,
}

/// The string has a backslash in it.
const ESCAPED: u32 = 1 << 31;
/// The container has white space between its tokens, at any depth.
const SPACED: u32 = 1 << 30;

impl Node {
    pub(super) fn next(self) -> usize {
        (self.next & !(ESCAPED | SPACED)) as usize
    }

    pub(super) fn is_escaped(self) -> bool {
        self.next & ESCAPED != 0
    }

    pub(super) fn is_spaced(self) -> bool {
        self.next & SPACED != 0
    }

    pub(super) fn span(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The same node of a document that begins `bytes` later and `nodes` nodes later.
    pub(super) fn shifted(self, bytes: u32, nodes: u32) -> Self {
        Self {
            start: self.start - bytes,
            end: self.end - bytes,
            next: self.next - nodes,
        }
    }
}

/// Checks `text` and returns its index; the root is the first node.
pub(super) fn scan(text: &[u8]) -> Result<Vec<Node>, BadDocument> {
    if text.len() > Document::BYTES_MAX {
        return Err(BadDocument::TooLarge);
    }
    if let Err(error) = std::str::from_utf8(text) {
        return Err(BadDocument::Syntax {
            at: error.valid_up_to(),
        });
    }
    // Real resources have about one token in sixteen bytes; a wrong guess costs one more allocation.
    let nodes = Vec::with_capacity(text.len() / 16 + 4);
    let mut scanner = Scanner {
        text,
        at: 0,
        nodes,
        open: [0; Document::DEPTH_MAX],
        depth: 0,
    };
    scanner.document()?;
    Ok(scanner.nodes)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// The nodes of the containers that are open.
    open: [u32; Document::DEPTH_MAX],
    depth: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<(), BadDocument> {
        loop {
            // At a value.
            self.space();
            let start = self.at;
            match self.peek() {
                Some(b'{') => {
                    self.enter(start)?;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(start)?;
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.syntax()),
            }
            // After a value, or before the end of an empty container.
            loop {
                let Some(top) = self.depth.checked_sub(1).map(|top| self.open[top] as usize) else {
                    self.space();
                    return if self.at == self.text.len() {
                        Ok(())
                    } else {
                        Err(self.syntax())
                    };
                };
                self.space();
                let is_object = self.text[self.nodes[top].start as usize] == b'{';
                match self.peek() {
                    Some(b',') if !self.is_empty(top) => {
                        self.at += 1;
                        if is_object {
                            self.space();
                            self.name()?;
                        }
                        break;
                    }
                    Some(b'}') if is_object => self.leave(top)?,
                    Some(b']') if !is_object => self.leave(top)?,
                    _ => return Err(self.syntax()),
                }
            }
        }
    }

    fn is_empty(&self, container: usize) -> bool {
        self.nodes.len() == container + 1
    }

    fn enter(&mut self, start: usize) -> Result<(), BadDocument> {
        if self.depth == Document::DEPTH_MAX {
            return Err(BadDocument::TooDeep);
        }
        self.open[self.depth] = narrow(self.nodes.len());
        self.depth += 1;
        self.at += 1;
        self.nodes.push(Node {
            start: narrow(start),
            end: 0,
            next: 0,
        });
        Ok(())
    }

    fn leave(&mut self, container: usize) -> Result<(), BadDocument> {
        self.at += 1;
        self.depth -= 1;
        let next = narrow(self.nodes.len());
        let node = &mut self.nodes[container];
        node.end = narrow(self.at);
        node.next |= next;
        let spaced = node.is_spaced();
        if spaced && self.depth > 0 {
            self.nodes[self.open[self.depth - 1] as usize].next |= SPACED;
        }
        if self.text[self.nodes[container].start as usize] == b'{' {
            self.distinct_names(container)?;
        }
        Ok(())
    }

    /// A member's name and the colon.
    fn name(&mut self) -> Result<(), BadDocument> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        Ok(())
    }

    fn distinct_names(&self, object: usize) -> Result<(), BadDocument> {
        // Few members: comparing each with each beats hashing. The bound keeps hostile objects linear.
        const PAIRWISE_MAX: usize = 12;
        let end = self.nodes[object].next();
        let names = || {
            let mut at = object + 1;
            std::iter::from_fn(move || {
                if at >= end {
                    return None;
                }
                let name = self.nodes[at];
                at = self.nodes[at + 1].next();
                Some(name)
            })
        };
        let mut seen = [(0_u32, None::<Node>); PAIRWISE_MAX];
        for (place, name) in names().enumerate() {
            if place == PAIRWISE_MAX {
                return self.distinct_names_hashed(names());
            }
            // The first bytes and the length as a cheap filter before the comparison; escaped names always compare.
            let length = name.end - name.start;
            for (have_length, have) in &seen[..place] {
                if let Some(have) = have
                    && (*have_length == length || name.is_escaped() || have.is_escaped())
                    && self.decoded(name) == self.decoded(*have)
                {
                    return Err(BadDocument::DuplicateMember {
                        at: name.start as usize,
                    });
                }
            }
            seen[place] = (length, Some(name));
        }
        Ok(())
    }

    fn distinct_names_hashed(&self, names: impl Iterator<Item = Node>) -> Result<(), BadDocument> {
        let mut seen = HashSet::with_hasher(ahash::RandomState::new());
        for name in names {
            if !seen.insert(self.decoded(name)) {
                return Err(BadDocument::DuplicateMember {
                    at: name.start as usize,
                });
            }
        }
        Ok(())
    }

    fn decoded(&self, string: Node) -> Cow<'_, [u8]> {
        decoded(self.text, string)
    }

    fn string(&mut self) -> Result<(), BadDocument> {
        let start = self.at;
        self.at += 1;
        let mut escaped = 0;
        loop {
            self.at += plain_run(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = ESCAPED;
                    self.escape()?;
                }
                _ => return Err(self.syntax()),
            }
        }
        self.at += 1;
        self.push_leaf(start, escaped);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), BadDocument> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let first = hex4(self.text, self.at + 2).ok_or(self.syntax())?;
                match first {
                    0xD800..=0xDBFF => {
                        let low = (self.text.get(self.at + 6..self.at + 8) == Some(b"\\u"))
                            .then(|| hex4(self.text, self.at + 8))
                            .flatten();
                        if !low.is_some_and(|low| (0xDC00..=0xDFFF).contains(&low)) {
                            return Err(self.syntax());
                        }
                        self.at += 12;
                    }
                    0xDC00..=0xDFFF => return Err(self.syntax()),
                    _ => self.at += 6,
                }
            }
            _ => return Err(self.syntax()),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), BadDocument> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return Err(self.syntax()),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push_leaf(start, 0);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), BadDocument> {
        let run = self.text[self.at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.at += run;
        if run == 0 { Err(self.syntax()) } else { Ok(()) }
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), BadDocument> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.syntax());
        }
        let start = self.at;
        self.at += word.len();
        self.push_leaf(start, 0);
        Ok(())
    }

    fn push_leaf(&mut self, start: usize, flags: u32) {
        let next = narrow(self.nodes.len() + 1) | flags;
        self.nodes.push(Node {
            start: narrow(start),
            end: narrow(self.at),
            next,
        });
    }

    fn space(&mut self) {
        let before = self.at;
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
        if self.at != before && self.depth > 0 {
            self.nodes[self.open[self.depth - 1] as usize].next |= SPACED;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn syntax(&self) -> BadDocument {
        BadDocument::Syntax { at: self.at }
    }
}

/// A string node's text, unescaped, without its quotes.
pub(super) fn decoded(text: &[u8], string: Node) -> Cow<'_, [u8]> {
    let raw = &text[string.start as usize + 1..string.end as usize - 1];
    if string.is_escaped() {
        Cow::Owned(unescape(raw))
    } else {
        Cow::Borrowed(raw)
    }
}

/// Positions fit: [`scan`] refuses what is longer.
fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
