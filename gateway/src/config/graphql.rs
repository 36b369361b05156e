//! `[graphql]`: whether GraphQL is served, what of it, and how much an operation may cost.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use schemas::contract::settings::Placed;
use subscriptions::graphql::Limits;

use super::section::Section;
use crate::http::graphql::{CallbackHost, CallbackSettings};

/// What `[graphql]` says.
#[derive(Debug, Clone)]
pub struct Graphql {
    /// Whether `/graphql` and its siblings are there at all.
    pub enabled: bool,
    /// Whether the schema may be asked for; then without credentials, too.
    pub introspection: bool,
    /// Whether a browser that opens `/graphql` gets GraphiQL.
    pub graphiql: bool,
    /// What one operation may cost.
    pub limits: Limits,
    /// Whether a document may be named by its hash after it was sent once (automatic persisted queries).
    pub apq: bool,
    /// Documents that operators trust, by the lower-case hexadecimal SHA-256 of their text.
    pub trusted_documents: BTreeMap<String, String>,
    /// Whether only those are executed.
    pub trusted_only: bool,
    /// A comment on server-sent events at least so often.
    pub sse_keep_alive: Duration,
    /// An empty part of a multipart answer at least so often.
    pub multipart_keep_alive: Duration,
    /// The callback protocol.
    pub callback: CallbackSettings,
}

impl Default for Graphql {
    fn default() -> Self {
        Self {
            enabled: true,
            introspection: false,
            graphiql: false,
            limits: Limits::default(),
            apq: true,
            trusted_documents: BTreeMap::new(),
            trusted_only: false,
            // What the clients of these protocols expect; proxies give up on a quiet answer later.
            sse_keep_alive: Duration::from_secs(12),
            multipart_keep_alive: Duration::from_secs(5),
            callback: CallbackSettings::default(),
        }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

pub(super) fn read(root: &Section) -> Graphql {
    let mut graphql = Graphql::default();
    let Some(section) = root.below("graphql") else {
        return graphql;
    };
    graphql.enabled = section.switch("enabled", graphql.enabled);
    graphql.introspection = section.switch("introspection", graphql.introspection);
    graphql.graphiql = section.switch("graphiql", graphql.graphiql);
    read_limits(&section, &mut graphql.limits);
    graphql.apq = section.switch("apq", graphql.apq);
    graphql.trusted_documents = read_trusted(&section);
    graphql.trusted_only = section.switch("trusted_only", graphql.trusted_only);
    if graphql.trusted_only && !section.table.has("trusted_documents") {
        section.report(
            section.table.place_of("trusted_only"),
            "no_trusted_documents",
            "`graphql.trusted_only` without `graphql.trusted_documents` refuses every operation".to_owned(),
            "name the file with the trusted documents, or remove `trusted_only`",
        );
    }
    if graphql.graphiql && !graphql.introspection {
        section.report(
            section.table.place_of("graphiql"),
            "graphiql_without_introspection",
            "GraphiQL can show nothing of a schema that it may not ask for".to_owned(),
            "write `introspection = true` too, or remove `graphiql`",
        );
    }
    graphql.sse_keep_alive = section.millis("sse_keep_alive_ms", graphql.sse_keep_alive, 100..=DAY_MS);
    graphql.multipart_keep_alive = section.millis(
        "multipart_keep_alive_ms",
        graphql.multipart_keep_alive,
        100..=DAY_MS,
    );
    read_callback(&section, &mut graphql.callback);
    section.table.finish();
    graphql
}

fn read_limits(section: &Section, limits: &mut Limits) {
    limits.document_bytes_max = section.size("document_bytes_max", limits.document_bytes_max, 256..=16 * MIB);
    limits.tokens_max = section.size("tokens_max", limits.tokens_max, 10..=1_000_000);
    limits.depth_max = section.size("depth_max", limits.depth_max, 2..=200);
    limits.complexity_max = section.size("complexity_max", limits.complexity_max, 1..=100_000);
    limits.aliases_max = section.size("aliases_max", limits.aliases_max, 0..=100_000);
    limits.directives_max = section.size("directives_max", limits.directives_max, 0..=100_000);
    limits.variables_bytes_max =
        section.size("variables_bytes_max", limits.variables_bytes_max, 256..=16 * MIB);
    limits.cached_operations_max = section.size(
        "cached_operations_max",
        limits.cached_operations_max,
        1..=1_000_000,
    );
    limits.cached_bytes_max = section.size("cached_bytes_max", limits.cached_bytes_max, KIB..=64 * GIB);
}

/// A JSON object: the SHA-256 of each document, and its text.
fn read_trusted(section: &Section) -> BTreeMap<String, String> {
    let Some(name) = section.text("trusted_documents") else {
        return BTreeMap::new();
    };
    let file = section.around.path(&name.value);
    let report = |code, message: String, mend: &str| section.report(&name.place, code, message, mend);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) => {
            report(
                "file_unreadable",
                format!("{} cannot be read: {error}", file.display()),
                "name a file that exists and that this user may read",
            );
            return BTreeMap::new();
        }
    };
    let documents: BTreeMap<String, String> = match serde_json::from_slice(&text) {
        Ok(documents) => documents,
        Err(error) => {
            report(
                "trusted_documents_invalid",
                format!("{} is no object of texts: {error}", file.display()),
                "write {\"<sha-256 of the document>\": \"<the document>\"}",
            );
            return BTreeMap::new();
        }
    };
    let mut wrong = documents
        .iter()
        .filter(|(hash, document)| **hash != sha256(document));
    if let Some((hash, document)) = wrong.next() {
        let more = match wrong.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        report(
            "trusted_document_hash",
            format!(
                "{hash:?} is not the SHA-256 of its document, which is {}{more}",
                sha256(document)
            ),
            "write the lower-case hexadecimal SHA-256 of each document's exact text",
        );
    }
    documents
}

fn sha256(text: &str) -> String {
    digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read_callback(section: &Section, callback: &mut CallbackSettings) {
    let Some(section) = section.below("callback") else {
        return;
    };
    callback.hosts = section
        .texts("hosts")
        .unwrap_or_default()
        .into_iter()
        .filter_map(|text| host(&section, &text))
        .collect();
    callback.post_timeout = section.millis("post_timeout_ms", callback.post_timeout, 10..=60_000);
    callback.retry_max = section.millis("retry_max_ms", callback.retry_max, 0..=DAY_MS);
    callback.heartbeat_min = section.millis("heartbeat_min_ms", callback.heartbeat_min, 10..=DAY_MS);
    section.table.finish();
}

fn host(section: &Section, text: &Placed<String>) -> Option<CallbackHost> {
    let host = CallbackHost::parse(&text.value);
    if host.is_none() {
        section.report(
            &text.place,
            "invalid_host",
            format!("{:?} is no host with a port", text.value),
            "write a name or an address and perhaps a port, such as router.internal:4000",
        );
    }
    host
}
