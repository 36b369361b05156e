//! The broker in the process: librdkafka's mock cluster, which speaks the Kafka protocol on a loopback port.
//!
//! Nothing survives it, and a partition keeps about 5 MB. It lives on a thread of its own, because its handle may not be
//! shared.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The system gave no thread.
    #[error("cannot start the embedded broker's thread")]
    Thread(#[source] std::io::Error),
    /// librdkafka refused.
    #[error("the embedded broker refused")]
    Kafka(#[source] KafkaError),
    /// Its thread is gone.
    #[error("the embedded broker is gone")]
    Gone,
}

enum Command {
    Create {
        topic: String,
        partitions: i32,
        answer: SyncSender<Result<(), KafkaError>>,
    },
    Reachable {
        reachable: bool,
        answer: SyncSender<Result<(), KafkaError>>,
    },
    Leader {
        topic: String,
        partition: i32,
        present: bool,
        answer: SyncSender<Result<(), KafkaError>>,
    },
}

/// A running mock cluster of one broker. Dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    bootstrap_servers: String,
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker with these topics, each with so many partitions.
    ///
    /// # Errors
    ///
    /// There is no thread for it, or librdkafka refuses.
    pub fn start<'a>(
        topics: impl IntoIterator<Item = &'a str>,
        partitions: i32,
    ) -> Result<Self, EmbeddedError> {
        let (commands, inbox) = sync_channel(16);
        let (ready, started) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("kafka-embedded".to_owned())
            .spawn(move || serve(&inbox, &ready))
            .map_err(EmbeddedError::Thread)?;
        let bootstrap_servers = started
            .recv()
            .map_err(|_| EmbeddedError::Gone)?
            .map_err(EmbeddedError::Kafka)?;
        let broker = Self {
            bootstrap_servers,
            commands: Some(commands),
            thread: Some(thread),
        };
        for topic in topics {
            broker.create_topic(topic, partitions)?;
        }
        Ok(broker)
    }

    /// Where any Kafka client reaches it.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Makes a topic. (Its admin API does not; a topic appears at the first produce, too, with four partitions.)
    ///
    /// # Errors
    ///
    /// It exists, or the broker is gone.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), EmbeddedError> {
        let topic = topic.to_owned();
        self.ask(|answer| Command::Create {
            topic,
            partitions,
            answer,
        })
    }

    /// Cuts the broker off, or lets it be reached again.
    ///
    /// # Errors
    ///
    /// The broker is gone.
    pub fn set_reachable(&self, reachable: bool) -> Result<(), EmbeddedError> {
        self.ask(|answer| Command::Reachable { reachable, answer })
    }

    /// Takes a partition's leader away, or gives it one again.
    ///
    /// # Errors
    ///
    /// There is no such partition, or the broker is gone.
    pub fn set_leader(&self, topic: &str, partition: i32, present: bool) -> Result<(), EmbeddedError> {
        let topic = topic.to_owned();
        self.ask(|answer| Command::Leader {
            topic,
            partition,
            present,
            answer,
        })
    }

    fn ask(
        &self,
        command: impl FnOnce(SyncSender<Result<(), KafkaError>>) -> Command,
    ) -> Result<(), EmbeddedError> {
        let (answer, answered) = sync_channel(1);
        let commands = self.commands.as_ref().ok_or(EmbeddedError::Gone)?;
        commands.send(command(answer)).map_err(|_| EmbeddedError::Gone)?;
        answered
            .recv()
            .map_err(|_| EmbeddedError::Gone)?
            .map_err(EmbeddedError::Kafka)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            // It panicked or it ended; either way it is gone.
            drop(thread.join());
        }
    }
}

fn serve(inbox: &Receiver<Command>, ready: &SyncSender<Result<String, KafkaError>>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            drop(ready.send(Err(error)));
            return;
        }
    };
    if ready.send(Ok(cluster.bootstrap_servers())).is_err() {
        return;
    }
    while let Ok(command) = inbox.recv() {
        let (answer, result) = match command {
            Command::Create {
                topic,
                partitions,
                answer,
            } => (answer, cluster.create_topic(&topic, partitions, 1)),
            Command::Reachable {
                reachable: true,
                answer,
            } => (answer, cluster.broker_up(1)),
            Command::Reachable {
                reachable: false,
                answer,
            } => (answer, cluster.broker_down(1)),
            Command::Leader {
                topic,
                partition,
                present,
                answer,
            } => (
                answer,
                cluster.partition_leader(&topic, partition, present.then_some(1)),
            ),
        };
        drop(answer.send(result));
    }
}
