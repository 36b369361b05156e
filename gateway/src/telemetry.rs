//! Logs and metrics: how they are set up, and what the process says about itself.
//!
//! Nothing of an event, a token, a secret or a person is ever logged or made a label. Logs go to standard error;
//! standard output belongs to the lines that programs read (`listen=...`).

use std::fmt;
use std::io::IsTerminal;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logs {
    /// Directives as in `info,gateway=debug`.
    pub filter: String,
    /// The format.
    pub format: Format,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: Format::Text,
        }
    }
}

/// The environment variable that overrides the configured filter.
pub const LOG_VARIABLE: &str = "TIDEWIRE_LOG";

/// Whether these directives can be understood.
///
/// # Errors
///
/// What is wrong with them, in words.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// Starts logging. The first call in a process counts; later ones (tests) change nothing.
pub fn start(logs: &Logs) {
    let directives = std::env::var(LOG_VARIABLE)
        .ok()
        .filter(|text| check_filter(text).is_ok());
    let filter = EnvFilter::try_new(directives.as_deref().unwrap_or(&logs.filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber in one process is only ever a test's.
    drop(match logs.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    });
}

/// The registry of a process, with what the process says about itself. Our own metrics go below the prefix `tidewire`
/// (see [`ours`]).
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    ours(&mut registry).register(
        "build",
        "The version that runs",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry
}

/// The part of a registry in which every name begins with `tidewire_`.
pub fn ours(registry: &mut Registry) -> &mut Registry {
    registry.sub_registry_with_prefix("tidewire")
}

/// Reads `/proc/self` whenever metrics are asked for. Elsewhere than on Linux it has nothing to say.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(usage) = Usage::read() {
            let cpu = ConstCounter::new(usage.cpu_seconds);
            cpu.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system time spent",
                None,
                cpu.metric_type(),
            )?)?;
            let gauges = [
                (
                    "process_resident_memory_bytes",
                    "Resident memory",
                    usage.resident_bytes,
                ),
                (
                    "process_virtual_memory_bytes",
                    "Virtual memory",
                    usage.virtual_bytes,
                ),
                ("process_threads", "Threads", usage.threads),
            ];
            for (name, help, value) in gauges {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
        }
        let descriptors = [
            ("process_open_fds", "Open file descriptors", open_descriptors()),
            (
                "process_max_fds",
                "The most file descriptors that may be open",
                descriptors_max(),
            ),
        ];
        for (name, help, value) in descriptors {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
            }
        }
        Ok(())
    }
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
}

impl Usage {
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let ticks = rustix::param::clock_ticks_per_second();
        Self::parse(&stat, ticks, rustix::param::page_size() as u64)
    }

    /// proc_pid_stat(5): the fields after the command's closing bracket begin with the third, `state`.
    fn parse(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = u32::try_from(field(14)? + field(15)?).ok()?;
        Some(Self {
            cpu_seconds: f64::from(ticks) / f64::from(u32::try_from(ticks_per_second).ok()?.max(1)),
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_bytes,
        })
    }
}

fn open_descriptors() -> Option<u64> {
    // One of them is the directory that is being read.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u64::try_from(count).ok()
}

fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Raises the limit of open files as far as the system allows: each reader is one. Returns the limit, if there is one.
pub fn raise_descriptor_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => limit.current,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_past_a_command_with_spaces_and_brackets() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 6 7 20 0 9 0 100 4096000 25 18446744073709551615 1";
        assert_eq!(
            Usage::parse(stat, 100, 4096),
            Some(Usage {
                cpu_seconds: 2.0,
                resident_bytes: 102_400,
                virtual_bytes: 4_096_000,
                threads: 9
            })
        );
        assert_eq!(Usage::parse("7 (a) S 1", 100, 4096), None);
    }

    #[test]
    fn metrics_have_the_prefix_and_the_process() {
        let mut registry = registry();
        ours(&mut registry).register("probes", "For the test", ConstCounter::new(1_u64));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text is written");
        assert!(text.contains("tidewire_probes_total 1"), "{text}");
        assert!(text.contains("tidewire_build_info{version="), "{text}");
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn bad_filters_are_told() {
        assert!(check_filter("info,gateway=debug").is_ok());
        assert!(check_filter("gateway=loudly").is_err());
    }
}
