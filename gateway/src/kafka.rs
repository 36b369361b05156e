//! Kafka, on both of its sides: what comes now, and what was before.
//!
//! The only module that knows Kafka. It feeds streams' sequencers and knows nothing of readers.
