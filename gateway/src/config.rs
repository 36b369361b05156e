//! `tidewire.toml`: what the user writes, as values.
//!
//! A [`Config`] exists only if nothing was found wrong with the file, with the contract that it names, or with the two
//! together; everything that is wrong is reported at once, with its place and a mend. The reference file,
//! `deploy/tidewire.toml`, is compiled in ([`REFERENCE`]), and a test holds its values equal to the defaults here.
//! Knows nothing of how the parts are built from it.

mod cross;
pub mod expand;
pub mod graphql;
pub mod issuers;
pub mod kafka;
pub mod keys;
pub mod limits;
pub mod listen;
mod section;
pub mod webhooks;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use schemas::contract::Contract;
use schemas::contract::settings::{Finding, Findings, Place, Placed, Settings};

pub use expand::Surroundings;
use section::Section;

use crate::kafka::ReplaySettings;
use crate::telemetry::{self, Logs};

/// The reference file: every setting, its default, and why.
pub const REFERENCE: &str = include_str!("../../deploy/tidewire.toml");

/// Everything that the file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder with the contract.
    pub contracts: PathBuf,
    /// Whether conveniences of development are refused.
    pub environment: Environment,
    /// Addresses.
    pub listen: listen::Listen,
    /// Kafka.
    pub kafka: kafka::Kafka,
    /// Reading what is older than the rings.
    pub replay: ReplaySettings,
    /// Whose tokens are accepted.
    pub issuers: Vec<issuers::Issuer>,
    /// Secrets that all nodes share.
    pub keys: keys::Keys,
    /// Origins of pages that may call us from a browser.
    pub origins: Vec<String>,
    /// Everything that is bounded.
    pub limits: limits::Limits,
    /// GraphQL.
    pub graphql: graphql::Graphql,
    /// Webhooks, and the store behind them.
    pub webhooks: webhooks::Webhooks,
    /// Logs.
    pub logs: Logs,
}

/// What kind of installation this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// The default: a development issuer or an embedded broker is refused.
    Production,
    /// Conveniences are allowed.
    Development,
}

/// A configuration and its contract, checked together.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// The contract that it names.
    pub contract: Arc<Contract>,
}

/// Reads a configuration file and the contract that it names.
///
/// # Errors
///
/// Everything that is wrong with either, or with the two together.
pub fn load(file: &Path) -> Result<Checked, Vec<Finding>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return Err(vec![unreadable(file, &error)]),
    };
    let folder = file.parent().unwrap_or(Path::new(""));
    parse(file, &text, Surroundings::of_process(folder))
}

/// As [`load`], of a text that was read before.
///
/// # Errors
///
/// Everything that is wrong.
pub fn parse(file: &Path, text: &str, around: Surroundings) -> Result<Checked, Vec<Finding>> {
    let findings = Findings::new();
    let table = Settings::read(file, text, &findings);
    let root = Section {
        table,
        around: Rc::new(around),
    };
    let draft = Draft::read(&root);
    root.table.finish();
    let contract = draft.contracts.as_ref().and_then(|folder| {
        match Contract::load_with(&folder.value, draft.webhook_events()) {
            Ok(contract) => Some(Arc::new(contract)),
            Err(found) => {
                findings.extend(found);
                None
            }
        }
    });
    cross::check(&root, &draft, contract.as_deref());
    let found = findings.take();
    match (draft.finish(), contract) {
        (Some(config), Some(contract)) if found.is_empty() => Ok(Checked { config, contract }),
        _ => Err(found),
    }
}

/// What could be read, which need not be everything.
struct Draft {
    contracts: Option<Placed<PathBuf>>,
    environment: Environment,
    listen: Option<listen::Listen>,
    kafka: Option<kafka::Kafka>,
    replay: ReplaySettings,
    issuers: Vec<issuers::Issuer>,
    /// Whether every issuer in the file could be read.
    issuers_whole: bool,
    keys: Option<keys::Keys>,
    origins: Vec<String>,
    limits: limits::Limits,
    graphql: graphql::Graphql,
    webhooks: webhooks::Webhooks,
    logs: Logs,
}

impl Draft {
    fn read(root: &Section) -> Self {
        let contracts = root.required_text("contracts");
        let contracts = contracts.map(|text| text.map(|text| root.around.path(&text)));
        let environment = match root.table.choice("environment", &["production", "development"]) {
            Some(word) if word.value == "development" => Environment::Development,
            _ => Environment::Production,
        };
        let (issuers, issuers_whole) = issuers::read(root);
        Self {
            contracts,
            environment,
            listen: listen::read(root),
            kafka: kafka::read(root),
            replay: kafka::read_replay(root),
            issuers,
            issuers_whole,
            keys: keys::read(root),
            origins: listen::read_origins(root),
            limits: limits::read(root),
            graphql: graphql::read(root),
            webhooks: webhooks::read(root),
            logs: read_logs(root),
        }
    }

    /// The topic of our own stream, where there is one.
    fn webhook_events(&self) -> Option<&str> {
        let webhooks = &self.webhooks;
        webhooks.enabled.then_some(webhooks.events_topic.as_str())
    }

    fn finish(self) -> Option<Config> {
        Some(Config {
            contracts: self.contracts?.value,
            environment: self.environment,
            listen: self.listen?,
            kafka: self.kafka?,
            replay: self.replay,
            issuers: self.issuers,
            keys: self.keys?,
            origins: self.origins,
            limits: self.limits,
            graphql: self.graphql,
            webhooks: self.webhooks,
            logs: self.logs,
        })
    }
}

fn read_logs(root: &Section) -> Logs {
    let mut logs = Logs {
        filter: "info".to_owned(),
        format: telemetry::Format::Json,
    };
    let Some(section) = root.below("telemetry") else {
        return logs;
    };
    if let Some(filter) = section.text("log") {
        if let Err(why) = telemetry::check_filter(&filter.value) {
            let message = format!("`telemetry.log` cannot be understood: {why}");
            section.report(
                &filter.place,
                "log_filter_invalid",
                message,
                "write a level, or `info,gateway=debug`",
            );
        }
        logs.filter = filter.value;
    }
    if let Some(word) = section.table.choice("format", &["json", "text"])
        && word.value == "text"
    {
        logs.format = telemetry::Format::Text;
    }
    section.table.finish();
    logs
}

/// The finding for a file that cannot be read at all.
#[must_use]
pub fn unreadable(file: &Path, error: &std::io::Error) -> Finding {
    Finding {
        place: Place {
            file: file.to_path_buf(),
            line: 1,
            column: 1,
        },
        code: "file_unreadable",
        message: format!("the file cannot be read: {error}"),
        mend: "name a file that exists and that this user may read".to_owned(),
    }
}

#[cfg(test)]
mod tests;
