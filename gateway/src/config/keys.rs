//! The secrets that all nodes of one installation share.

use schemas::contract::settings::Placed;
use secrecy::{ExposeSecret, SecretString};

use super::section::Section;

/// The shortest secret, in characters.
pub const SECRET_MIN: usize = 32;

/// Secrets that all nodes share.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Seal cursors: the first seals, all open.
    pub cursor: Vec<SecretString>,
    /// Seal tickets and cookies: the first seals, all open.
    pub ticket: Vec<SecretString>,
    /// Keys the hash that is an event's default id. Changing it changes the ids.
    pub event_id: SecretString,
    /// Seal what is stored for webhooks: the first seals, all open. Empty where there are none.
    pub store: Vec<SecretString>,
    /// Of which webhooks' message signatures (RFC 9421) are made: the first one's is the current key. Empty: those of
    /// `store`.
    pub signing: Vec<SecretString>,
}

impl Keys {
    /// Of which message signatures are made.
    #[must_use]
    pub fn signing(&self) -> &[SecretString] {
        if self.signing.is_empty() {
            &self.store
        } else {
            &self.signing
        }
    }
}

pub(super) fn read(root: &Section) -> Option<Keys> {
    let section = root.required_below("keys")?;
    let cursor = ring(&section, "cursor");
    let ticket = ring(&section, "ticket");
    let event_id = section
        .required_text("event_id")
        .map(|text| secret(&section, "event_id", text));
    let optional = |key| {
        let given = section.table.has(key);
        given.then(|| ring(&section, key)).flatten().unwrap_or_default()
    };
    let (store, signing) = (optional("store"), optional("signing"));
    section.table.finish();
    Some(Keys {
        cursor: cursor?,
        ticket: ticket?,
        event_id: event_id?,
        store,
        signing,
    })
}

fn ring(section: &Section, key: &str) -> Option<Vec<SecretString>> {
    if !section.table.has(key) {
        section
            .table
            .missing(key, "an array of secrets of at least 32 characters");
        return None;
    }
    let texts = section.texts(key)?;
    if texts.is_empty() && section.table.strings(key).is_some_and(|all| all.is_empty()) {
        let message = format!("`keys.{key}` is empty");
        section.report(
            section.table.place_of(key),
            "key_missing",
            message,
            "give at least one: openssl rand -base64 32",
        );
    }
    for (place, text) in texts.iter().enumerate() {
        if texts.iter().take(place).any(|before| before.value == text.value) {
            let message = format!("`keys.{key}` has the same secret twice");
            section.report(&text.place, "duplicate_key", message, "keep one of the two");
        }
    }
    Some(texts.into_iter().map(|text| secret(section, key, text)).collect())
}

fn secret(section: &Section, key: &str, text: Placed<String>) -> SecretString {
    let secret = SecretString::from(text.value);
    if secret.expose_secret().chars().count() < SECRET_MIN {
        let message = format!("`keys.{key}` has a secret of fewer than {SECRET_MIN} characters");
        section.report(
            &text.place,
            "secret_too_short",
            message,
            "write a longer one: openssl rand -base64 32",
        );
    }
    secret
}
