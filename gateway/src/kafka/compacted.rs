//! Topics of our own: compacted, and made where they are missing.
//!
//! Invariant: a topic that is there is left as it is.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::client::Context;
use super::settings::KafkaSettings;

/// How long the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the topic, with one partition, if it is not there. Blocks. The mock cluster has no admin API: it makes topics at the
/// first produce.
pub(super) fn create(settings: &KafkaSettings, topic: &str) -> KafkaResult<()> {
    if settings.embedded {
        return Ok(());
    }
    let admin: AdminClient<Context> = settings.producer().create_with_context(Context)?;
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| KafkaError::AdminOpCreation(error.to_string()))?;
    for result in runtime.block_on(admin.create_topics([&topic], &options))? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}
