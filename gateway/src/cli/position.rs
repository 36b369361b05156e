//! `tidewire position`: opens what a partner names of a delivery.

use std::path::PathBuf;

use clap::Args;

use super::check::chosen_config;
use super::{Exit, print_line, tell, tell_findings};
use crate::config;
use crate::webhooks::positions::Positions;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Position {
    /// The configuration file, for its keys. Left out: the one that `TIDEWIRE_CONFIG` names, or `tidewire.toml`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the receiver got as `tidewire-position`.
    #[arg(value_name = "POSITION")]
    text: String,
}

impl Position {
    pub(super) fn execute(self) -> Exit {
        let checked = match config::load(&chosen_config(self.config)) {
            Ok(checked) => checked,
            Err(findings) => {
                tell_findings(&findings);
                return Exit::Usage;
            }
        };
        let positions = match Positions::new(&checked.config.keys.store) {
            Ok(positions) => positions,
            Err(error) => {
                tell(format_args!(
                    "tidewire position: `keys.store` cannot be used: {error}"
                ));
                return Exit::Usage;
            }
        };
        let Some(located) = positions.open(&self.text) else {
            tell("tidewire position: that was not sealed with the keys of this configuration (`keys.store`)");
            return Exit::Usage;
        };
        let at = &located.position;
        let is_written = print_line(format_args!(
            "tenant={}\nstream={}\ntopic={}\npartition={}\noffset={}",
            located.tenant, located.stream, at.topic, at.partition, at.offset
        ));
        if is_written { Exit::Done } else { Exit::Unavailable }
    }
}
