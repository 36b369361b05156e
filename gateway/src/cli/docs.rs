//! `tidewire docs`: documents that follow from a contract, for composition and publication in CI.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use schemas::contract::Contract;

use super::check::chosen_config;
use super::{Exit, print_line, tell_findings};
use crate::config;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Docs {
    #[command(subcommand)]
    document: Document,
}

#[derive(Debug, Subcommand)]
enum Document {
    /// Print the federation subgraph's SDL, as composition takes it.
    Sdl(Source),
}

/// Whose document.
#[derive(Debug, Args)]
struct Source {
    /// A folder with a contract (`streams.toml`, `*.graphql`). Left out: the one that the configuration names.
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    contracts: Option<PathBuf>,
    /// The configuration file. Left out: the one that `TIDEWIRE_CONFIG` names, or `tidewire.toml`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Docs {
    pub(super) fn execute(self) -> Exit {
        let Document::Sdl(source) = self.document;
        let sdl = match source.contracts {
            Some(folder) => Contract::load(&folder).map(|contract| contract.graph.sdl.clone()),
            None => {
                config::load(&chosen_config(source.config)).map(|checked| checked.contract.graph.sdl.clone())
            }
        };
        match sdl {
            Ok(sdl) if print_line(sdl.trim_end()) => Exit::Done,
            Ok(_) => Exit::Unavailable,
            Err(findings) => {
                tell_findings(&findings);
                Exit::Usage
            }
        }
    }
}
