//! `tidewire docs`: documents that follow from a contract, for composition and publication in CI.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use schemas::contract::Contract;
use schemas::contract::settings::Finding;
use schemas::docs::openapi::{self, ROUTES, Shown};

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
    /// Print the HTTP API as OpenAPI 3.1, with every stream: what `/v1/docs/openapi.json` shows to one who may see all of it.
    Openapi(Source),
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
        let text = match self.document {
            Document::Sdl(source) => source.contract().map(|contract| contract.graph.sdl.clone()),
            Document::Openapi(source) => source.contract().map(|contract| openapi(&contract)),
        };
        match text {
            Ok(text) if print_line(text.trim_end()) => Exit::Done,
            Ok(_) => Exit::Unavailable,
            Err(findings) => {
                tell_findings(&findings);
                Exit::Usage
            }
        }
    }
}

impl Source {
    fn contract(self) -> Result<Arc<Contract>, Vec<Finding>> {
        match self.contracts {
            Some(folder) => Contract::load(&folder).map(Arc::new),
            None => config::load(&chosen_config(self.config)).map(|checked| checked.contract),
        }
    }
}

fn openapi(contract: &Contract) -> String {
    let streams = contract.streams.iter().map(|stream| Shown {
        stream,
        attributes: stream
            .attributes
            .iter()
            .map(|attribute| attribute.name.as_str())
            .collect(),
    });
    let document = openapi::Document {
        version: env!("CARGO_PKG_VERSION"),
        routes: ROUTES.iter().collect(),
        streams: streams.collect(),
        specification: webhooks::endpoint::schema(),
    };
    format!("{:#}", document.to_json())
}
