//! Record headers, looked up without guessing: what stands twice where one is wanted is an error, never the first or the
//! last of them.

use bytes::Bytes;

/// Where headers are looked up.
pub(super) struct Headers<'a> {
    /// The record's.
    pub(super) record: &'a [(Box<str>, Option<Bytes>)],
    /// A structured CloudEvent's attributes; names without `ce_`.
    pub(super) envelope: Option<&'a [(Box<str>, Box<str>)]>,
}

/// Why a header has no one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// It stands more than once.
    Duplicate,
    /// It is not UTF-8.
    NotText,
}

impl<'a> Headers<'a> {
    /// The text of the one header of that name. One without a value is as good as absent, but it is one.
    ///
    /// In a structured CloudEvent `ce_NAME` is the attribute NAME of the envelope: the record's `ce_` headers, if it has
    /// any, are not its attributes.
    pub(super) fn one(&self, name: &str) -> Result<Option<&'a str>, BadHeader> {
        if self
            .record
            .iter()
            .filter(|(have, _)| &**have == name)
            .nth(1)
            .is_some()
        {
            return Err(BadHeader::Duplicate);
        }
        self.all(name).next().transpose()
    }

    /// The texts of all headers of that name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = Result<&'a str, BadHeader>> {
        let enveloped = match (self.envelope, name.strip_prefix("ce_")) {
            (Some(envelope), Some(attribute)) => Some((envelope, attribute)),
            _ => None,
        };
        let of_record = if enveloped.is_some() { &[][..] } else { self.record };
        let of_envelope = enveloped.into_iter().flat_map(|(envelope, attribute)| {
            envelope
                .iter()
                .filter(move |(have, _)| &**have == attribute)
                .map(|(_, value)| Ok(&**value))
        });
        of_record
            .iter()
            .filter(move |(have, _)| &**have == name)
            .filter_map(|(_, value)| value.as_deref())
            .map(|value| std::str::from_utf8(value).map_err(|_| BadHeader::NotText))
            .chain(of_envelope)
    }
}
