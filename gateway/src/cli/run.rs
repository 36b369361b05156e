//! `tidewire run`: the configuration, the runtime, the app, the lines that say where it listens, the wait, the drain.

use std::future::Future;
use std::path::PathBuf;

use clap::Args;

use super::check::CONFIG_FILE;
use super::{Exit, print_line, tell, tell_findings};
use crate::app::{self, Addresses, App, Setup, StartError};
use crate::config;
use crate::shutdown::Signals;
use crate::telemetry;

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE, env = "TIDEWIRE_CONFIG")]
    config: PathBuf,
}

impl Run {
    pub(super) fn execute(self) -> Exit {
        let checked = match config::load(&self.config) {
            Ok(checked) => checked,
            Err(findings) => {
                tell_findings(&findings);
                return Exit::Usage;
            }
        };
        telemetry::start(&checked.config.logs);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            revision = format_args!("{:016x}", checked.contract.revision),
            streams = checked.contract.streams.len(),
            "starting"
        );
        on_runtime(async move {
            let store = match app::open_store(&checked.config).await {
                Ok(store) => store,
                Err(error) => return refuse(&error),
            };
            let setup = Setup {
                config: checked.config,
                contract: checked.contract,
                broker: None,
                page: None,
                store,
            };
            match app::build(setup) {
                Ok(app) => serve(app, |_| Vec::new(), std::future::pending()).await,
                Err(error) => refuse(&error),
            }
        })
    }
}

/// Runs a server's future on a runtime with a thread per core.
pub(super) fn on_runtime(server: impl Future<Output = Exit>) -> Exit {
    if let Some(descriptors) = telemetry::raise_descriptor_limit() {
        tracing::debug!(descriptors, "limit of open files");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("gateway")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(format_args!("tidewire: the runtime cannot start: {error}"));
            return Exit::Unavailable;
        }
    };
    let exit = runtime.block_on(server);
    // What still blocks somewhere has had its time.
    runtime.shutdown_background();
    exit
}

/// Says why an app cannot be built, with its causes.
pub(super) fn refuse(error: &StartError) -> Exit {
    let mut text = format!("tidewire: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    tell(text);
    if error.is_configuration() {
        Exit::Usage
    } else {
        Exit::Unavailable
    }
}

/// Serves until a signal asks for the end, and drains. `more` gives lines to print after the addresses; `beside` runs
/// beside the app and ends with it.
pub(super) async fn serve(
    mut app: App,
    more: impl FnOnce(&Addresses) -> Vec<String>,
    beside: impl Future<Output = ()>,
) -> Exit {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tell(format_args!("tidewire: signals cannot be listened to: {error}"));
            return Exit::Unavailable;
        }
    };
    app.serve();
    let addresses = app.addresses();
    tracing::info!(listen = %addresses.public, admin = %addresses.operations, "listening");
    let first = [
        format!("listen={}", addresses.public),
        format!("admin={}", addresses.operations),
    ];
    for line in first.into_iter().chain(more(addresses)) {
        // Nobody has to listen.
        let _is_written: bool = print_line(line);
    }
    let beside = async {
        beside.await;
        std::future::pending::<()>().await;
    };
    let exit = tokio::select! {
        asked = signals.next() => {
            tracing::info!(signal = asked.name, "draining");
            Exit::Done
        }
        failed = app.failed() => {
            tracing::error!(%failed, "draining");
            Exit::Internal
        }
        () = beside => Exit::Internal,
    };
    tokio::select! {
        is_done = app.drain() => {
            tracing::info!(in_time = is_done, "drained");
            exit
        }
        asked = signals.next() => {
            tracing::warn!(signal = asked.name, "ended without a drain");
            Exit::Signal(asked.exit_code)
        }
    }
}
