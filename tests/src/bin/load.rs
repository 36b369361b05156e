//! `load`: the load generator. `load suite` makes the table of `BENCHMARKS.md` with a Kafka and a gateway of its own;
//! `load graphql` and `load webhooks` make those below it; `load run` drives a gateway that is running already; `load bare` and
//! `load posts` are the bare loops.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tidewire_tests::load::bare::Bare;
use tidewire_tests::load::cores::Cores;
use tidewire_tests::load::graphql;
use tidewire_tests::load::readers::Protocol;
use tidewire_tests::load::scenario::{self, Flow, Target};
use tidewire_tests::load::suite;
use tidewire_tests::load::webhooks::{self, posts::Posts};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load for a Tidewire gateway.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every scenario with its reference points, as a Markdown table.
    Suite {
        /// Makes the runs longer or shorter.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only the scenarios with this in their name.
        #[arg(long)]
        only: Option<String>,
    },
    /// What GraphQL costs beside the plain WebSocket, as a Markdown table: one operation for all, an argument for each, a
    /// selection for each.
    Graphql {
        /// Makes the runs longer or shorter, and the readers more or fewer.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only the rows with this in their name.
        #[arg(long)]
        only: Option<String>,
    },
    /// What webhooks cost beside a bare loop of the same HTTP client, as Markdown tables: fan-out, backlog, parked, storm.
    Webhooks {
        /// Makes the runs longer or shorter.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// Only what has this in its name.
        #[arg(long)]
        only: Option<String>,
    },
    /// Readers on a gateway that is running.
    Run(Box<Run>),
    /// The server of the bare loops.
    Bare(Bare),
    /// The bare loop of POSTs.
    Posts(Posts),
}

#[derive(clap::Args)]
struct Run {
    /// The gateway's public address.
    #[arg(long)]
    gateway: SocketAddr,
    /// The gateway's process id, on this machine.
    #[arg(long)]
    pid: u32,
    /// Kafka's bootstrap servers.
    #[arg(long)]
    kafka: String,
    /// STREAM=TOPIC; may be given several times. The topic's first partition is produced to, with the header tenant=north.
    #[arg(long = "stream", required = true)]
    streams: Vec<String>,
    /// A token that gives all rows of the tenant north. Without it, TIDEWIRE_TOKEN is used.
    #[arg(long, env = "TIDEWIRE_TOKEN", hide_env_values = true)]
    token: String,
    /// The subscription that readers ask for, with --protocol graphql; its events must have the data's `s` and `t` side by side.
    #[arg(long)]
    operation: Option<String>,
    /// What the readers speak.
    #[arg(long, value_enum, default_value_t = Protocol::Websocket)]
    protocol: Protocol,
    /// How many readers.
    #[arg(long, default_value_t = 1000)]
    readers: usize,
    /// Events a second.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// For how many seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bare(bare) => bare.serve(),
        Command::Suite { scale, only } => {
            // Before anything is started: every thread and process of the run inherits it.
            let cores = Cores::divide()?;
            runtime()?.block_on(async {
                let table = suite::table(scale, only.as_deref(), cores.as_ref()).await?;
                writeln!(std::io::stdout(), "{table}")?;
                Ok(())
            })
        }
        Command::Graphql { scale, only } => runtime()?.block_on(async {
            let table = graphql::table(scale, only.as_deref()).await?;
            writeln!(std::io::stdout(), "{table}")?;
            Ok(())
        }),
        Command::Webhooks { scale, only } => runtime()?.block_on(async {
            let table = webhooks::table(scale, only.as_deref()).await?;
            writeln!(std::io::stdout(), "{table}")?;
            Ok(())
        }),
        Command::Posts(posts) => posts.run(),
        Command::Run(run) => runtime()?.block_on(drive(*run)),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?)
}

async fn drive(run: Run) -> Result<()> {
    let streams = run.streams.iter().map(|pair| {
        let (stream, topic) = pair
            .split_once('=')
            .with_context(|| format!("{pair:?} is not STREAM=TOPIC"))?;
        Ok((stream.to_owned(), topic.to_owned()))
    });
    let target = Target {
        address: run.gateway,
        pid: run.pid,
        bootstrap: run.kafka,
        streams: streams.collect::<Result<_>>()?,
        token: run.token,
        operations: run
            .operation
            .map(|query| serde_json::json!({"query": query}).to_string())
            .into_iter()
            .collect(),
    };
    let flow = Flow::Rate(run.rate, Duration::from_secs(run.seconds));
    let outcome = scenario::run(&target, run.protocol, run.readers, flow).await?;
    let mut stdout = std::io::stdout();
    let quantile = |share: f64| outcome.latencies.value_at_quantile(share);
    writeln!(
        stdout,
        "readers={}\ndeliveries={}\ngaps={}",
        outcome.readers, outcome.deliveries, outcome.gaps
    )?;
    writeln!(
        stdout,
        "duplicates={}\np50_us={}\np99_us={}",
        outcome.duplicates,
        quantile(0.5),
        quantile(0.99)
    )?;
    writeln!(
        stdout,
        "p999_us={}\ncpu_seconds={:.2}",
        quantile(0.999),
        outcome.cpu_seconds
    )?;
    writeln!(
        stdout,
        "deliveries_per_cpu_second={:.0}",
        outcome.deliveries_per_cpu_second()
    )?;
    writeln!(stdout, "idle_bytes_per_connection={:.0}", outcome.idle_bytes)?;
    writeln!(stdout, "loaded_bytes_per_connection={:.0}", outcome.loaded_bytes)?;
    Ok(())
}
