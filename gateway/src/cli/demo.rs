//! `tidewire demo`: everything in one process, and what to try.

use std::net::SocketAddr;
use std::path::PathBuf;

use auth::dev::ISSUER;
use clap::Args;
use schemas::graph::Emit;

use super::run::{on_runtime, refuse, serve};
use super::{Exit, tell, tell_findings};
use crate::app::{self, Addresses};
use crate::demo::{self, DemoError, Options, endpoints, partner, state};
use crate::telemetry::{self, Logs};

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Demo {
    /// The public listener; port 0 asks for a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The operations listener; port 0 asks for a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Events each second.
    #[arg(long, value_name = "EVENTS_PER_SECOND", default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// Produce nothing: bring your own events.
    #[arg(long, conflicts_with = "rate")]
    no_events: bool,
    /// A Kafka on this machine instead of the embedded broker; missing topics are made.
    #[arg(long, value_name = "BOOTSTRAP")]
    kafka: Option<String>,
    /// A folder with another contract than the clinical one.
    #[arg(long, value_name = "DIR")]
    contracts: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number".to_owned())?;
    if (0.0..=50_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("write a number from 0 to 50000".to_owned())
    }
}

impl Demo {
    pub(super) fn execute(self) -> Exit {
        // Unless asked for, a demo's terminal shows what to try, not what goes on.
        telemetry::start(&Logs {
            filter: "warn".to_owned(),
            ..Logs::default()
        });
        if !self.admin.ip().is_loopback() {
            tell(
                "tidewire demo: --admin: the operations listener of a demo has no token, so it stays on loopback",
            );
            return Exit::Usage;
        }
        if !self.listen.ip().is_loopback() {
            tell("tidewire: whoever can reach this address can read the demo's events and have tokens");
        }
        let options = Options {
            listen: self.listen,
            admin: self.admin,
            events_per_second: if self.no_events { 0.0 } else { self.rate },
            kafka: self.kafka,
            contracts: self.contracts,
            state: state::folder(),
        };
        on_runtime(run(options))
    }
}

/// Events a second up to which the demo's receiver is called: beyond it the demo would be about its backlog.
const RECEIVER_RATE_MAX: f64 = 500.0;

async fn run(options: Options) -> Exit {
    let is_called = options.events_per_second <= RECEIVER_RATE_MAX;
    if !is_called {
        tell(format_args!(
            "tidewire: the demo's receiver of webhooks is not called at more than {RECEIVER_RATE_MAX} events a second"
        ));
    }
    let demo = match demo::prepare(options).await {
        Ok(demo) => demo,
        Err(DemoError::Contract(findings)) => {
            tell_findings(&findings);
            return Exit::Usage;
        }
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            tell(format_args!("tidewire demo: {error}{cause}"));
            return if error.is_usage() {
                Exit::Usage
            } else {
                Exit::Unavailable
            };
        }
    };
    let readers = endpoints::sample_readers(&demo.setup.contract);
    let sample = demo::sample_stream(&demo.setup.contract).cloned();
    let stream = sample
        .as_ref()
        .map_or("observations", |stream| stream.name.as_str())
        .to_owned();
    // A field that gives events has the same fields on every contract.
    let mut fields = demo.setup.contract.graph.fields.values();
    let field = fields
        .find(|field| field.stream.as_str() == stream && field.emit == Emit::Event)
        .map(|field| field.name.to_string());
    let producer = demo.producer;
    // Until everything is drained: what is under way to it is answered.
    let receiver = demo.receiver;
    match app::build(demo.setup) {
        Ok(app) => {
            let reception = receiver.reception();
            let more = |addresses: &Addresses| {
                let mut lines = vec![
                    format!("kafka={}", addresses.kafka),
                    format!("issuer={ISSUER}"),
                    format!("receiver={}", reception.url()),
                ];
                lines.extend(examples(addresses, &stream, field.as_deref(), &readers));
                lines
            };
            let partner = app
                .desk()
                .zip(sample)
                .filter(|_| is_called)
                .map(|(desk, stream)| Box::pin(partner::run(desk, stream, receiver.reception())));
            let beside = async move {
                let produce = async {
                    if let Some(producer) = producer {
                        producer.run().await;
                    }
                };
                let make = async {
                    if let Some(partner) = partner {
                        partner.await;
                    }
                };
                tokio::join!(produce, make);
            };
            serve(app, more, beside).await
        }
        Err(error) => refuse(&error),
    }
}

/// Commands that work as they stand, in another terminal.
fn examples(
    addresses: &Addresses,
    stream: &str,
    field: Option<&str>,
    readers: &[endpoints::SampleReader],
) -> Vec<String> {
    let scheme = if addresses.is_tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", addresses.public);
    let program = std::env::current_exe().ok().map_or_else(
        || "tidewire".to_owned(),
        |path| quoted(&path.display().to_string()),
    );
    let mut lines = vec![
        String::new(),
        format!("# a page that shows it: {url}/ (and GraphQL, to try: {url}/graphql)"),
        "# or, in another terminal:".to_owned(),
    ];
    // Another terminal may have another environment.
    let key = match std::env::var_os(state::FOLDER_VARIABLE) {
        Some(_) => format!(
            " --dev-key {}",
            quoted(&state::folder().join(state::DEVELOPMENT_KEY).display().to_string())
        ),
        None => String::new(),
    };
    let clinician = readers.iter().find(|reader| reader.claims.is_empty());
    let patient = readers.iter().find(|reader| !reader.claims.is_empty());
    let token = |reader: &endpoints::SampleReader| {
        let claims: String = reader
            .claims
            .iter()
            .map(|(name, value)| format!(" --claim {}", quoted(&format!("{name}={value}"))))
            .collect();
        format!(
            "{program} token{key} --tenant {} --subject {} --scope {}{claims}",
            reader.tenant,
            quoted(&reader.subject),
            quoted(&reader.scopes)
        )
    };
    if let Some(reader) = clinician {
        lines.push(format!("TOKEN=$({})", token(reader)));
        lines.push(format!(
            "curl -N -H \"Authorization: Bearer $TOKEN\" -H 'Accept: text/event-stream' {url}/v1/streams/{stream}"
        ));
        if let Some(field) = field {
            lines.push(format!(
                "curl -N -H \"Authorization: Bearer $TOKEN\" -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \\\n  \
                 -d '{{\"query\":\"subscription {{ {field} {{ kind cursor key time }} }}\"}}' {url}/graphql"
            ));
        }
    }
    if let Some(reader) = patient {
        lines.push(format!(
            "{program} tail {stream} --url {url} --after earliest --token \"$({})\"",
            token(reader)
        ));
    }
    lines.push(format!(
        "echo 'Observation/mine:{}' | kcat -P -b {} -t fhir.observation -K : -H tenant=north",
        r#"{"resourceType":"Observation","id":"mine","status":"final","code":{"text":"typed by hand"}}"#,
        addresses.kafka
    ));
    lines
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '=' | ':');
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
