//! `${NAME}`, `${NAME:-default}` and `${file:path}` in a setting's text.
//!
//! What a variable or a file holds is never expanded again, and no message repeats it: it may be a secret. `$${` stands
//! for a plain `${`.

use std::path::{Path, PathBuf};

/// Gives a variable's value.
type Variable = Box<dyn Fn(&str) -> Option<String>>;

/// Where values come from.
pub struct Surroundings {
    variable: Variable,
    folder: PathBuf,
}

impl Surroundings {
    /// The process's environment variables, and files relative to this folder.
    #[must_use]
    pub fn of_process(folder: &Path) -> Self {
        Self::new(folder, |name| std::env::var(name).ok())
    }

    /// Variables as this function knows them, and files relative to this folder.
    #[must_use]
    pub fn new(folder: &Path, variable: impl Fn(&str) -> Option<String> + 'static) -> Self {
        Self {
            variable: Box::new(variable),
            folder: folder.to_path_buf(),
        }
    }

    /// The path, relative to the folder of the configuration file.
    #[must_use]
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }

    /// Expands a text.
    pub(super) fn expand(&self, text: &str) -> Result<String, Unexpanded> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let (inside, after) = after.split_once('}').ok_or(Unexpanded::Unclosed)?;
            out.push_str(&self.value(inside)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, inside: &str) -> Result<String, Unexpanded> {
        if let Some(path) = inside.strip_prefix("file:") {
            let text = std::fs::read_to_string(self.path(path)).map_err(|error| Unexpanded::File {
                path: path.to_owned(),
                why: error.to_string(),
            })?;
            return Ok(text
                .strip_suffix('\n')
                .map_or(text.as_str(), |text| text.trim_end_matches('\r'))
                .to_owned());
        }
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !is_name {
            return Err(Unexpanded::Name(name.to_owned()));
        }
        match ((self.variable)(name), default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(Unexpanded::Variable(name.to_owned())),
        }
    }
}

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unexpanded {
    /// The variable is not set, and there is no default.
    Variable(String),
    /// The file cannot be read.
    File {
        /// As it was written.
        path: String,
        /// The system's words.
        why: String,
    },
    /// `${` without `}`.
    Unclosed,
    /// Not a variable's name.
    Name(String),
}

impl Unexpanded {
    /// Code, message, mend.
    pub(super) fn finding(&self) -> (&'static str, String, String) {
        match self {
            Self::Variable(name) => (
                "environment_missing",
                format!("the environment variable {name} is not set"),
                format!("set {name}, or give a default: ${{{name}:-default}}"),
            ),
            Self::File { path, why } => (
                "file_unreadable",
                format!("the file {path:?} cannot be read: {why}"),
                "name a file that this user may read; relative paths begin at this file's folder".to_owned(),
            ),
            Self::Unclosed => (
                "expansion_invalid",
                "a `${` is not closed".to_owned(),
                "close it with `}`, or write `$${` for a plain `${`".to_owned(),
            ),
            Self::Name(name) => (
                "expansion_invalid",
                format!("{name:?} is no name of an environment variable"),
                "write ${NAME}, ${NAME:-default} or ${file:path}; `$${` stands for a plain `${`".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(folder: &Path) -> Surroundings {
        Surroundings::new(folder, |name| match name {
            "HOST" => Some("kafka".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${HOST}".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn variables_defaults_and_files_are_filled_in() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("secret"), "s3cret$\n").expect("a file");
        let table = [
            ("plain $ and $HOST", "plain $ and $HOST"),
            ("${HOST}:9092", "kafka:9092"),
            ("${HOST},${HOST}", "kafka,kafka"),
            ("[${EMPTY}]", "[]"),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("${file:secret}", "s3cret$"),
            ("$${HOST}", "${HOST}"),
            ("${TRICK}", "${HOST}"),
        ];
        for (text, wanted) in table {
            assert_eq!(
                surroundings(folder.path()).expand(text).as_deref(),
                Ok(wanted),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let expand = |text: &str| surroundings(folder.path()).expand(text);
        assert_eq!(expand("${NONE}"), Err(Unexpanded::Variable("NONE".to_owned())));
        assert_eq!(expand("a${HOST"), Err(Unexpanded::Unclosed));
        assert_eq!(expand("${}"), Err(Unexpanded::Name(String::new())));
        assert_eq!(expand("${A-B}"), Err(Unexpanded::Name("A-B".to_owned())));
        assert!(matches!(expand("${file:absent}"), Err(Unexpanded::File { .. })));
    }
}
