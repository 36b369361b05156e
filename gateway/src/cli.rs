//! The commands of the `tidewire` binary.
//!
//! Standard output is for what a program may read (`listen=...`, events, tokens) and is never buffered beyond a line;
//! everything for people goes to standard error.

pub mod check;
pub mod demo;
pub mod docs;
pub mod healthcheck;
pub mod position;
pub mod run;
pub mod tail;
pub mod token;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use schemas::contract::settings::Finding;

/// Kafka topics in, live streams out, each limited to what its reader may see.
#[derive(Debug, Parser)]
#[command(name = "tidewire", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve streams, as a configuration file says.
    Run(run::Run),
    /// Report everything that is wrong with a configuration file, or with a folder of contracts.
    Check(check::Check),
    /// Serve sample data with a broker and an issuer of its own, and a page to look at them.
    Demo(demo::Demo),
    /// Print a document that follows from a contract.
    Docs(docs::Docs),
    /// Print a token of the development issuer.
    Token(token::Token),
    /// Print a stream's events as they come, one JSON object a line.
    Tail(tail::Tail),
    /// Tell where the event of a webhook delivery lies in Kafka, from its `tidewire-position`.
    Position(position::Position),
    /// Ask a gateway's operations listener whether it is ready.
    Healthcheck(healthcheck::Healthcheck),
}

/// How a command ended (sysexits.h where it has a word for it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done,
    /// Not ready (`healthcheck`).
    NotReady,
    /// The arguments or the configuration are wrong; all problems were listed.
    Usage,
    /// Something that is needed cannot be had: a port, a broker, a server.
    Unavailable,
    /// Our fault.
    Internal,
    /// Not allowed: the token is not accepted or grants too little.
    Forbidden,
    /// A second signal ended a drain.
    Signal(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NotReady => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Forbidden => 77,
            Exit::Signal(code) => code,
        })
    }
}

impl Cli {
    /// Does what was asked.
    #[must_use]
    pub fn execute(self) -> Exit {
        match self.command {
            Command::Run(run) => run.execute(),
            Command::Check(check) => check.execute(),
            Command::Demo(demo) => demo.execute(),
            Command::Docs(docs) => docs.execute(),
            Command::Token(token) => token.execute(),
            Command::Tail(tail) => tail.execute(),
            Command::Position(position) => position.execute(),
            Command::Healthcheck(healthcheck) => healthcheck.execute(),
        }
    }
}

/// Writes a line to standard output, at once. Whether it could be written: a reader that went away ends the command.
fn print_line(line: impl Display) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// Writes a line for people to standard error.
fn tell(line: impl Display) {
    // There is nowhere left to complain.
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Lists findings, and how many there are.
fn tell_findings(findings: &[Finding]) {
    for finding in findings {
        tell(finding);
    }
    let things = if findings.len() == 1 {
        "problem"
    } else {
        "problems"
    };
    tell(format_args!("{} {things} found", findings.len()));
}

/// Runs a client's future on a runtime of one thread.
fn block_on(future: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => {
            tell(format_args!("tidewire: the runtime cannot start: {error}"));
            Exit::Unavailable
        }
    }
}
