//! Filters as clients write them: in a query string, and as JSON.

#![no_main]

#[path = "stream.rs"]
mod stream;

use libfuzzer_sys::fuzz_target;
use schemas::filter::{Predicate, VALUE_BYTES_MAX, VALUES_MAX};

fuzz_target!(|text: &str| {
    let stream = stream::clinical();
    let pairs = text
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    check(&stream, Predicate::from_query(&stream, pairs).ok());
    if let Ok(value) = serde_json::from_str(text) {
        check(&stream, Predicate::from_json(&stream, &value).ok());
    }
});

fn check(stream: &schemas::contract::Stream, predicate: Option<Predicate>) {
    let Some(predicate) = predicate else { return };
    assert!(!predicate.is_never());
    for (_, values) in predicate.terms() {
        assert!(values.len() <= VALUES_MAX);
        assert!(
            values
                .iter()
                .all(|value| !value.is_empty() && value.len() <= VALUE_BYTES_MAX)
        );
        assert!(values.is_sorted());
    }
    assert_eq!(
        Predicate::from_json(stream, &predicate.to_json(stream)).as_ref(),
        Ok(&predicate)
    );
    assert_eq!(predicate.and(&predicate), predicate);
}
