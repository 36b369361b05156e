//! What is wrong with a file that the user wrote, and where: the words in which `check` reports.
//!
//! Invariant: a [`Findings`] only grows; nothing that was found is ever swallowed. It does not know what the files mean.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as it was named to us.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One thing wrong with a file that the user wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// A stable code: `unknown_key`, `attribute_name_reserved`, `hidden_non_null`, ...
    pub code: &'static str,
    /// What is wrong: a sentence without a full stop.
    pub message: String,
    /// How to mend it: a sentence without a full stop.
    pub mend: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// `file:line:column: code: message`, and on a second line `  mend: ...`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.code, self.message)?;
        if self.mend.is_empty() {
            Ok(())
        } else {
            write!(f, "\n  mend: {}", self.mend)
        }
    }
}

/// The shared collector of one check. Clones share the same list, so that every reader of every file can hold one.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    list: Rc<RefCell<Vec<Finding>>>,
}

impl Findings {
    /// An empty collector.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a finding.
    pub fn report(
        &self,
        place: &Place,
        code: &'static str,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.list.borrow_mut().push(Finding {
            place: place.clone(),
            code,
            message: message.into(),
            mend: mend.into(),
        });
    }

    /// Adds findings that somebody else made.
    pub fn extend(&self, findings: impl IntoIterator<Item = Finding>) {
        self.list.borrow_mut().extend(findings);
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// Whether something with this code was found.
    #[must_use]
    pub fn has(&self, code: &str) -> bool {
        self.list.borrow().iter().any(|finding| finding.code == code)
    }

    /// Everything found so far, ordered by place, each once. The collector is empty afterwards.
    #[must_use]
    pub fn take(&self) -> Vec<Finding> {
        let mut list = std::mem::take(&mut *self.list.borrow_mut());
        list.sort_by(|a, b| (&a.place, a.code, &a.message).cmp(&(&b.place, b.code, &b.message)));
        list.dedup();
        list
    }
}
