//! The `tidewire` binary: the allocator, the arguments, the exit code. Everything else is the library's.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::{Cli, Exit};

/// Sessions come and go by the thousand: this allocator gives their memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => cli.execute().into(),
        Err(error) => {
            let is_asked_for = error.exit_code() == 0;
            // Where not even this can be written, the exit code has to do.
            drop(error.print());
            if is_asked_for {
                Exit::Done.into()
            } else {
                Exit::Usage.into()
            }
        }
    }
}
