//! `tidewire check`: everything that is wrong, at once.

use std::path::{Path, PathBuf};

use clap::Args;
use schemas::contract::Contract;
use schemas::contract::settings::Finding;

use super::{Exit, print_line, tell, tell_findings};
use crate::config;

/// The configuration file that is taken where none is named.
pub(super) const CONFIG_FILE: &str = "tidewire.toml";
/// The environment variable that names it.
const CONFIG_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file; the contract that it names is checked with it. Left out: the one that `TIDEWIRE_CONFIG` names,
    /// or `tidewire.toml`.
    // Not clap's `env`: what is in the environment would conflict with a folder on the command line.
    #[arg(long, value_name = "FILE", conflicts_with = "contracts")]
    config: Option<PathBuf>,
    /// A folder with a contract alone (`streams.toml`, `*.graphql`).
    #[arg(value_name = "FOLDER")]
    contracts: Option<PathBuf>,
    /// Print the reference configuration: every setting with its default, and why. Checks nothing.
    #[arg(long, conflicts_with_all = ["config", "contracts"])]
    reference: bool,
}

impl Check {
    pub(super) fn execute(self) -> Exit {
        if self.reference {
            let is_written = print_line(config::REFERENCE.trim_end());
            return if is_written { Exit::Done } else { Exit::Unavailable };
        }
        let checked = match self.contracts {
            Some(folder) => Contract::load(&folder).map(|contract| describe(&folder, &contract)),
            None => check_config(&chosen_config(self.config)),
        };
        match checked {
            Ok(summary) => {
                tell(summary);
                Exit::Done
            }
            Err(findings) => {
                tell_findings(&findings);
                Exit::Usage
            }
        }
    }
}

/// The configuration file that is meant.
pub(super) fn chosen_config(named: Option<PathBuf>) -> PathBuf {
    let environment = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
    named
        .or_else(environment)
        .unwrap_or_else(|| PathBuf::from(CONFIG_FILE))
}

fn check_config(file: &Path) -> Result<String, Vec<Finding>> {
    let checked = config::load(file)?;
    Ok(format!(
        "{}: nothing wrong\n{}",
        file.display(),
        describe(&checked.config.contracts, &checked.contract)
    ))
}

fn describe(folder: &Path, contract: &Contract) -> String {
    let names: Vec<&str> = contract
        .streams
        .iter()
        .map(|stream| stream.name.as_str())
        .collect();
    format!(
        "{}: nothing wrong; revision {:016x}, streams: {}",
        folder.display(),
        contract.revision,
        names.join(", ")
    )
}
