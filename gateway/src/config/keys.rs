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
}

pub(super) fn read(root: &Section) -> Option<Keys> {
    let section = root.required_below("keys")?;
    let cursor = ring(&section, "cursor");
    let ticket = ring(&section, "ticket");
    let event_id = section
        .required_text("event_id")
        .map(|text| secret(&section, "event_id", text));
    section.table.finish();
    Some(Keys {
        cursor: cursor?,
        ticket: ticket?,
        event_id: event_id?,
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
