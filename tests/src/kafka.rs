//! Apache Kafka itself: one KRaft node on loopback, its data in a temporary folder, gone with the process that started
//! it. `KAFKA_BOOTSTRAP_SERVERS` points to a cluster of one's own instead.
//!
//! The jars are those of `tests/kafka/pom.xml`, resolved once by Maven into a cache folder.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::OnceCell;

use crate::{leash, ports, process, wait};

/// A Kafka that can be produced to and consumed from.
pub struct Kafka {
    bootstrap: String,
    node: Option<Node>,
}

/// A node of our own.
struct Node {
    folder: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Kafka {
    /// The one that all promises of this process share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
                    Ok(bootstrap) => Self {
                        bootstrap,
                        node: None,
                    },
                    Err(_) => Self::start()
                        .await
                        .expect("Apache Kafka starts (it needs a JDK 17 and Maven)"),
                }
            })
            .await
    }

    /// A node of one's own, for a promise that stops it.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("tidewire-kafka-")
            .tempdir()?
            .keep();
        leash::sweep(&folder);
        let (port, controller_port) = (ports::free(), ports::free());
        std::fs::write(
            folder.join("server.properties"),
            properties(&folder, port, controller_port),
        )?;
        std::fs::write(folder.join("log4j2.properties"), LOGGING)?;
        let jars = tokio::task::spawn_blocking(jars).await??;
        std::fs::write(folder.join("classpath"), format!("{}/*", jars.display()))?;
        let id: [u8; 16] = rand::random();
        let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id);
        let formatted = java(&folder)?
            .args(["kafka.tools.StorageTool", "format"])
            // In one word: an id may begin with a dash.
            .arg(format!("--cluster-id={id}"))
            .arg("--config")
            .arg(folder.join("server.properties"))
            .output()
            .context("java")?;
        ensure!(
            formatted.status.success(),
            "formatting: {}",
            String::from_utf8_lossy(&formatted.stderr)
        );
        let kafka = Self {
            bootstrap: format!("127.0.0.1:{port}"),
            node: Some(Node {
                folder,
                child: Mutex::new(None),
            }),
        };
        kafka.resume().await?;
        Ok(kafka)
    }

    /// Where clients find it.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Stops the node as an operator would; its data and its port stay.
    pub async fn stop(&self) -> Result<()> {
        let node = self
            .node
            .as_ref()
            .context("a cluster of one's own is not stopped")?;
        let child = node.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut child = child.context("it is not running")?;
        process::signal(child.id(), "TERM")?;
        wait::until_true("kafka to stop", || matches!(child.try_wait(), Ok(Some(_)))).await?;
        leash::release(child.id());
        Ok(())
    }

    /// Starts a stopped node again and waits until it answers.
    pub async fn resume(&self) -> Result<()> {
        let node = self
            .node
            .as_ref()
            .context("a cluster of one's own is not started")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(node.folder.join("kafka.log"))?;
        let child = java(&node.folder)?
            .args([
                "-Xms128m",
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .arg("kafka.Kafka")
            .arg(node.folder.join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        leash::hold(child.id());
        *node.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        let bootstrap = self.bootstrap.clone();
        let answer = wait::until("kafka to answer", || {
            let bootstrap = bootstrap.clone();
            async move {
                let gone = {
                    let mut child = node.child.lock().unwrap_or_else(PoisonError::into_inner);
                    child
                        .as_mut()
                        .is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
                };
                if gone {
                    return Some(false);
                }
                let answers = tokio::task::spawn_blocking(move || answers(&bootstrap)).await;
                answers.is_ok_and(|answers| answers).then_some(true)
            }
        })
        .await;
        if !matches!(answer, Ok(true)) {
            let log = std::fs::read_to_string(node.folder.join("kafka.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            bail!(
                "kafka did not start ({answer:?}):\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let killed = child.kill().and_then(|()| child.wait());
            leash::release(child.id());
            let removed = std::fs::remove_dir_all(&self.folder);
            if killed.is_err() || removed.is_err() {
                eprintln!("kafka was not cleaned up: {killed:?} {removed:?}");
            }
        }
    }
}

/// Whether a broker answers with itself.
fn answers(bootstrap: &str) -> bool {
    let consumer: Result<BaseConsumer, _> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "200")
        .create();
    consumer.is_ok_and(|consumer| {
        consumer
            .fetch_metadata(None, Duration::from_secs(1))
            .is_ok_and(|metadata| !metadata.brokers().is_empty())
    })
}

fn java(folder: &Path) -> Result<Command> {
    let program = match std::env::var_os("JAVA_HOME") {
        Some(home) => Path::new(&home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let mut command = Command::new(program);
    command
        .arg("-cp")
        .arg(std::fs::read_to_string(folder.join("classpath"))?)
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            folder.join("log4j2.properties").display()
        ));
    Ok(command)
}

/// The folder with Kafka's jars; resolved by Maven the first time, one process at a time.
pub fn jars() -> Result<PathBuf> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/pom.xml");
    let mut hasher = DefaultHasher::new();
    std::fs::read_to_string(&pom)?.hash(&mut hasher);
    let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => PathBuf::from(home).join(".cache"),
        (None, None) => std::env::temp_dir(),
    };
    let cache = cache.join("tidewire");
    let folder = cache.join(format!("kafka-{:016x}", hasher.finish()));
    std::fs::create_dir_all(&cache)?;
    let lock = File::create(cache.join("kafka.lock"))?;
    lock.lock()?;
    if !folder.is_dir() {
        let fresh = tempfile::Builder::new().prefix("kafka-").tempdir_in(&cache)?;
        let resolved = Command::new("mvn")
            .args(["-q", "-B", "-ntp", "-f"])
            .arg(&pom)
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", fresh.path().display()))
            .output()
            .context("mvn")?;
        ensure!(
            resolved.status.success(),
            "maven: {}",
            String::from_utf8_lossy(&resolved.stdout)
        );
        std::fs::rename(fresh.keep(), &folder)?;
    }
    Ok(folder)
}

fn properties(folder: &Path, port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.initial.task.delay.ms=500
log.retention.check.interval.ms=500
log.cleaner.backoff.ms=200
log.cleaner.dedupe.buffer.size=4194304
log.segment.delete.delay.ms=500
broker.session.timeout.ms=9000
controlled.shutdown.enable=false
",
        folder = folder.display()
    )
}

const LOGGING: &str = "status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";
