//! A running gateway: its files in a temporary folder, its process, its ports, its log.
//!
//! It is the same binary that users run; nothing of it is linked into the promises.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::issuer::Issuer;
use crate::{contract, http, leash, ports, process, wait};

/// What a gateway is started with.
#[derive(Clone)]
pub struct Setup {
    /// Where Kafka is.
    pub bootstrap: String,
    /// `streams.toml`.
    pub streams: String,
    /// SDL; that of [`contract::SDL`] unless the streams name types of their own.
    pub sdl: Option<String>,
    /// The `[[issuers]]` tables.
    pub issuers: String,
    /// `[limits]`, name and value.
    pub limits: Vec<(String, u64)>,
    /// The secrets that seal cursors; the first seals.
    pub cursor_keys: Vec<String>,
    /// Whole tables that are added as they stand.
    pub more: String,
    /// What is added to `[listen]`.
    pub listen: String,
    /// What is added to `[kafka]`.
    pub kafka: String,
    /// What is added to `[keys]`.
    pub keys: String,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// What a gateway that delivers webhooks is started with.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Where the store is; a file beside the configuration, unless nodes share one.
    pub store: String,
    /// The group that nodes share.
    pub group: String,
    /// The topic of deliveries that were given up.
    pub dead_letters: String,
    /// The topic of the gateway's own events.
    pub events: String,
    /// The topic of revocations and denials.
    pub control: String,
    /// Whether receivers may be on loopback.
    pub allow_loopback: bool,
    /// More of `[webhooks]`, name and value.
    pub settings: Vec<(&'static str, u64)>,
}

impl Webhooks {
    /// With another setting, instead of one that is there.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u64) -> Self {
        self.settings.retain(|(have, _)| *have != name);
        self.settings.push((name, value));
        self
    }
}

impl Setup {
    /// A gateway of these streams on this Kafka, which trusts this issuer.
    #[must_use]
    pub fn new(bootstrap: &str, issuer: &Issuer, streams: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            streams: streams.into(),
            sdl: Some(contract::SDL.to_owned()),
            issuers: issuer.settings(),
            limits: Vec::new(),
            cursor_keys: vec!["a cursor key that all nodes of the promises share".to_owned()],
            more: String::new(),
            listen: String::new(),
            kafka: String::new(),
            keys: String::new(),
            environment: Vec::new(),
        }
    }

    /// With webhooks.
    #[must_use]
    pub fn webhooks(mut self, webhooks: &Webhooks) -> Self {
        self.kafka
            .push_str(&format!("control_topic = {:?}\n", webhooks.control));
        self.keys
            .push_str("store = [\"a store key that all nodes of the promises share\"]\n");
        let mut text = format!(
            "[store]\nurl = {:?}\n\n[webhooks]\nenabled = true\nallow_loopback = {}\nconsumer_group = {:?}\n\
             dead_letter_topic = {:?}\nevents_topic = {:?}\n",
            webhooks.store, webhooks.allow_loopback, webhooks.group, webhooks.dead_letters, webhooks.events
        );
        for (name, value) in &webhooks.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        self.more.push_str(&text);
        self
    }

    /// With another limit.
    #[must_use]
    pub fn limit(mut self, name: &str, value: u64) -> Self {
        self.limits.push((name.to_owned(), value));
        self
    }

    /// With another variable in its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn write(&self, folder: &Path, listen: u16, admin: u16) -> Result<()> {
        let contracts = folder.join("contracts");
        std::fs::create_dir_all(&contracts)?;
        std::fs::write(contracts.join("streams.toml"), &self.streams)?;
        if let Some(sdl) = &self.sdl {
            std::fs::write(contracts.join("types.graphql"), sdl)?;
        }
        let mut text = String::new();
        write!(
            text,
            "contracts = \"contracts\"\nenvironment = \"development\"\n\n\
             [listen]\naddress = \"127.0.0.1:{listen}\"\nadmin = \"127.0.0.1:{admin}\"\n{}\n\n\
             [kafka]\nbootstrap_servers = {:?}\nmetadata_interval_ms = 500\n{}\n\n{}\n\
             [keys]\ncursor = {:?}\nticket = [\"a ticket key that all nodes of the promises share\"]\n\
             event_id = \"a key for event ids that all nodes of the promises share\"\n{}\n\n{}\n\n[limits]\n",
            self.listen, self.bootstrap, self.kafka, self.issuers, self.cursor_keys, self.keys, self.more
        )?;
        for (name, value) in &self.limits {
            writeln!(text, "{name} = {value}")?;
        }
        std::fs::write(folder.join("tidewire.toml"), text)?;
        Ok(())
    }

    /// Writes the files without starting anything: the path of `tidewire.toml`.
    pub fn files(&self, folder: &Path) -> Result<PathBuf> {
        self.write(folder, ports::free(), ports::free())?;
        Ok(folder.join("tidewire.toml"))
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn start(&self) -> Result<Gateway> {
        let gateway = self.start_unready().await?;
        gateway.ready().await?;
        Ok(gateway)
    }

    /// Starts a gateway and waits until it listens.
    pub async fn start_unready(&self) -> Result<Gateway> {
        let folder = tempfile::Builder::new()
            .prefix("tidewire-gateway-")
            .tempdir()?
            .keep();
        leash::sweep(&folder);
        self.write(&folder, ports::free(), ports::free())?;
        let mut gateway = Gateway {
            folder,
            environment: self.environment.clone(),
            running: None,
            listen: None,
            admin: None,
        };
        gateway.resume().await?;
        Ok(gateway)
    }
}

/// The path of the `tidewire` binary: `TIDEWIRE_BIN`, or where this build put it.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEWIRE_BIN") {
        return PathBuf::from(path);
    }
    let me = std::env::current_exe().expect("gateway: our own path is known");
    // target/<profile>/deps/promises-<hash>, or target/<profile>/load
    let found = me
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("tidewire"))
        .find(|path| path.is_file());
    found.expect("the tidewire binary is built first: cargo build -p tidewire-gateway, or make test")
}

/// A gateway, running or stopped.
pub struct Gateway {
    folder: PathBuf,
    environment: Vec<(String, String)>,
    running: Option<Running>,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    /// Starts it (again), with the same files and on the same ports, and waits until it listens.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "it is running");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut child = Command::new(binary())
            .arg("run")
            .arg("--config")
            .arg(self.folder.join("tidewire.toml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        leash::hold(child.id());
        let said = Arc::new(Mutex::new(Vec::new()));
        let stdout = child.stdout.take().context("stdout is piped")?;
        let heard = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let running = self.running.insert(Running { child, said });
        let said = |name: &str, running: &Running| {
            let lines = running.said.lock().unwrap_or_else(PoisonError::into_inner);
            lines
                .iter()
                .find_map(|line| line.strip_prefix(name)?.parse::<SocketAddr>().ok())
        };
        let addresses = wait::until("the gateway to listen", || {
            let both = said("listen=", running).zip(said("admin=", running));
            let over = matches!(running.child.try_wait(), Ok(Some(_))).then_some(None);
            std::future::ready(both.map(Some).or(over))
        })
        .await;
        match addresses {
            Ok(Some((listen, admin))) => {
                (self.listen, self.admin) = (Some(listen), Some(admin));
                Ok(())
            }
            other => bail!("the gateway did not start ({other:?}):\n{}", self.log_tail()),
        }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        let ready = wait::until("the gateway to be ready", || async {
            let answer = http::get(self.admin(), "/readyz", &[]).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        match ready {
            Ok(()) => Ok(()),
            Err(error) => {
                let last = http::get(self.admin(), "/readyz", &[])
                    .await
                    .map(|answer| answer.text());
                bail!("{error}: {last:?}\n{}", self.log_tail())
            }
        }
    }

    /// The public address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen.expect("gateway: it has started")
    }

    /// The operations address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("gateway: it has started")
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("gateway: it is running").child.id()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it is not running")?;
        running.child.kill()?;
        running.child.wait()?;
        leash::release(running.child.id());
        Ok(())
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) -> Result<()> {
        process::signal(self.pid(), "TERM")
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let mut running = self.running.take().context("it is not running")?;
        let status = wait::until("the gateway to end", || {
            std::future::ready(running.child.try_wait().ok().flatten())
        })
        .await;
        if status.is_err() {
            running.child.kill()?;
            running.child.wait()?;
        }
        leash::release(running.child.id());
        status
    }

    /// The value of the metrics whose names end like this, summed over their labels; `labels` are texts that must occur.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let text = http::get(self.admin(), "/metrics", &[]).await?.text();
        let mut sum = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
            let (have, labelled) = series.split_once('{').unwrap_or((series, ""));
            if have.ends_with(name) && labels.iter().all(|label| labelled.contains(label)) {
                sum += value.parse::<f64>()?;
            }
        }
        Ok(sum)
    }

    /// The open sessions, as `/admin/sessions` tells them.
    pub async fn sessions(&self) -> Result<Vec<Value>> {
        let body: Value = http::get(self.admin(), "/admin/sessions", &[]).await?.json()?;
        let list = body.get("sessions").unwrap_or(&body);
        Ok(list.as_array().context("a list of sessions")?.clone())
    }

    /// Everything that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("gateway.log")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ends with:\n{}", self.log_tail());
        }
        if self.running.is_some() && self.kill().is_err() {
            eprintln!("a gateway could not be killed");
        }
        if std::fs::remove_dir_all(&self.folder).is_err() {
            eprintln!("{} was not removed", self.folder.display());
        }
    }
}
