//! What is only wrong when two parts of the configuration, or the configuration and the contract, are seen together.

use schemas::contract::{ClaimsUsed, Contract, Stream, TopicPattern};
use schemas::cursor::Sealer;

use super::kafka::Cluster;
use super::section::Section;
use super::{Draft, Environment};

pub(super) fn check(root: &Section, draft: &Draft, contract: Option<&Contract>) {
    check_environment(root, draft);
    check_cursor_size(root, draft, contract);
    check_webhooks(root, draft);
    check_own_topics(root, draft);
    let Some(contract) = contract else { return };
    if draft.issuers_whole && !draft.issuers.is_empty() {
        for used in contract.claims_used() {
            check_rule(root, draft, &used);
        }
    }
    for stream in &contract.streams {
        check_topics(root, draft, stream);
    }
}

/// Conveniences of development stay out of production.
fn check_environment(root: &Section, draft: &Draft) {
    let is_production = draft.environment == Environment::Production;
    let real_kafka = draft.kafka.as_ref().filter(|kafka| kafka.is_production());
    for issuer in draft.issuers.iter().filter(|issuer| issuer.development.is_some()) {
        if is_production {
            root.report(
                &issuer.place,
                "development_issuer_in_production",
                "a development issuer signs tokens for anybody who can read its key file".to_owned(),
                "remove it, or write `environment = \"development\"`",
            );
        }
        if real_kafka.is_some() {
            root.report(
                &issuer.place,
                "development_issuer_with_production_kafka",
                "a development issuer would open a Kafka that is protected or not on this machine".to_owned(),
                "remove the issuer, or use a Kafka on a loopback address in plain text",
            );
        }
    }
    for issuer in draft
        .issuers
        .iter()
        .filter(|issuer| issuer.trusted.reach.loopback)
    {
        if is_production {
            root.report(
                &issuer.place,
                "loopback_keys_in_production",
                format!(
                    "keys of {:?} may be fetched from a loopback address",
                    issuer.trusted.issuer
                ),
                "remove `allow_loopback`, or write `environment = \"development\"`",
            );
        }
    }
    if let Some(kafka) = &draft.kafka
        && is_production
        && kafka.cluster == Cluster::Embedded
    {
        root.report(
            &kafka.place,
            "embedded_broker_in_production",
            "the embedded broker forgets everything when the process ends".to_owned(),
            "give `bootstrap_servers`, or write `environment = \"development\"`",
        );
    }
}

/// Endpoints and what is parked are sealed, and receivers on this machine are for development.
fn check_webhooks(root: &Section, draft: &Draft) {
    if !draft.webhooks.enabled {
        return;
    }
    let place = root.table.place_of("webhooks").clone();
    if draft.keys.as_ref().is_some_and(|keys| keys.store.is_empty()) {
        root.report(
            &place,
            "store_key_missing",
            "webhooks are enabled, and `keys.store` has no secret to seal what is stored with".to_owned(),
            "write `store = [\"...\"]` into [keys]: openssl rand -base64 32",
        );
    }
    if draft.webhooks.allow_loopback && draft.environment == Environment::Production {
        root.report(
            &place,
            "loopback_receivers_in_production",
            "`webhooks.allow_loopback` lets tenants call this machine".to_owned(),
            "remove it, or write `environment = \"development\"`",
        );
    }
}

/// A cursor must fit however many partitions a stream may have.
fn check_cursor_size(root: &Section, draft: &Draft, contract: Option<&Contract>) {
    let partitions = draft.limits.partitions_per_stream_max;
    let topics = contract
        .and_then(|contract| contract.streams.iter().map(|stream| stream.topics.len()).max())
        .unwrap_or(1)
        .clamp(1, partitions);
    // As even as can be: what is left goes to the first topic.
    let counts =
        (0..topics).map(|topic| partitions / topics + if topic == 0 { partitions % topics } else { 0 });
    let needed = Sealer::text_bytes_max(counts);
    if needed > draft.limits.cursor_bytes_max {
        let place = root.table.place_of("limits").clone();
        root.report(
            &place,
            "cursor_too_small",
            format!(
                "a cursor over {partitions} partitions needs up to {needed} bytes, and `limits.cursor_bytes_max` is {}",
                draft.limits.cursor_bytes_max
            ),
            "raise `limits.cursor_bytes_max`, or lower `limits.partitions_per_stream_max`",
        );
    }
}

/// A rule needs claims that one and the same issuer passes through.
fn check_rule(root: &Section, draft: &Draft, used: &ClaimsUsed) {
    let mut passed = draft.issuers.iter().map(|issuer| &issuer.trusted.claims);
    if passed.any(|passed| used.claims.iter().all(|claim| passed.contains(claim))) {
        return;
    }
    let claims = used
        .claims
        .iter()
        .map(|claim| format!("{claim:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    let things = if used.claims.len() == 1 { "claim" } else { "claims" };
    root.report(
        &used.place,
        "rule_never_matches",
        format!(
            "this access rule of `{}` can never match: no issuer passes the {things} {claims} through",
            used.stream
        ),
        "add it to the `claims` of an issuer in tidewire.toml",
    );
}

/// A dead letter is no record of the control topic.
fn check_own_topics(root: &Section, draft: &Draft) {
    let Some(kafka) = &draft.kafka else { return };
    if kafka.control_topic.as_ref() == Some(&kafka.dead_letter_topic) {
        root.report(
            &kafka.place,
            "control_consumed",
            format!(
                "the control topic is the dead-letter topic, too: {:?}",
                kafka.dead_letter_topic
            ),
            "name another topic in `kafka.control_topic`",
        );
    }
}

/// Dead letters must not come back as events, nor must what operators know of readers be read by them.
fn check_topics(root: &Section, draft: &Draft, stream: &Stream) {
    let Some(kafka) = &draft.kafka else { return };
    if let Some(control) = &kafka.control_topic {
        let is_read = |topic: &TopicPattern| topic.is_literal() && topic.as_str() == control;
        if stream.topics.iter().any(is_read) {
            root.report(
                &kafka.place,
                "control_consumed",
                format!("the stream `{}` reads the control topic {control:?}", stream.name),
                "name another topic in `kafka.control_topic`, or in the stream",
            );
        }
    }
    if stream
        .topics
        .iter()
        .any(|topic| topic.is_literal() && topic.as_str() == kafka.dead_letter_topic)
    {
        root.report(
            &kafka.place,
            "dead_letters_consumed",
            format!(
                "the stream `{}` reads the dead-letter topic {:?}",
                stream.name, kafka.dead_letter_topic
            ),
            "name another topic in `kafka.dead_letter_topic`, or in the stream",
        );
    }
}
