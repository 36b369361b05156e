//! What the HTTP surface counts. Labels are route templates, listener names and codes: never ids, tenants or filters.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The counters; cheap to clone, clones share them.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    refused: Family<CodeLabels, Counter>,
    connections: Family<ListenerLabels, Gauge>,
    accepted: Family<ListenerLabels, Counter>,
    ended: Family<EndLabels, Counter>,
    saturated: Family<ListenerLabels, Counter>,
    graphql: Family<OperationLabels, Counter>,
    callbacks: Family<CallbackLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    transport: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    listener: &'static str,
    reason: &'static str,
}

impl Metrics {
    /// Registers the counters. The registry's own prefix comes before `http_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let http = registry.sub_registry_with_prefix("http");
        http.register(
            "requests",
            "Requests answered, by route template, method and status",
            metrics.requests.clone(),
        );
        http.register("refused", "Requests refused, by code", metrics.refused.clone());
        http.register(
            "connections",
            "Open connections that speak HTTP; WebSockets and event streams of HTTP/1.1 are the hub's",
            metrics.connections.clone(),
        );
        http.register(
            "connections_accepted",
            "Connections accepted",
            metrics.accepted.clone(),
        );
        http.register(
            "connections_ended",
            "Connections ended by the server, by reason",
            metrics.ended.clone(),
        );
        http.register(
            "connections_saturated",
            "Times that accepting waited because the listener was full",
            metrics.saturated.clone(),
        );
        http.register(
            "graphql_requests",
            "GraphQL requests, by transport and outcome: ok, or the code of the refusal; sockets count once, as opened",
            metrics.graphql.clone(),
        );
        http.register(
            "graphql_callbacks",
            "Posts to routers, by action and outcome: taken, gone, refused, failed (each attempt), overdue (not posted)",
            metrics.callbacks.clone(),
        );
        metrics
    }

    pub(crate) fn request(&self, route: &str, method: &http::Method, status: u16) {
        let labels = RequestLabels {
            route: route.to_owned(),
            method: method_label(method),
            status,
        };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&CodeLabels { code }).inc();
    }

    pub(crate) fn accepted(&self, listener: &'static str) -> OpenConnection {
        self.accepted.get_or_create(&ListenerLabels { listener }).inc();
        let open = self
            .connections
            .get_or_create(&ListenerLabels { listener })
            .clone();
        open.inc();
        OpenConnection(open)
    }

    pub(crate) fn ended(&self, listener: &'static str, reason: &'static str) {
        self.ended.get_or_create(&EndLabels { listener, reason }).inc();
    }

    pub(crate) fn graphql(&self, transport: &'static str, outcome: &'static str) {
        self.graphql
            .get_or_create(&OperationLabels { transport, outcome })
            .inc();
    }

    pub(crate) fn callback(&self, action: &'static str, outcome: &'static str) {
        self.callbacks
            .get_or_create(&CallbackLabels { action, outcome })
            .inc();
    }

    pub(crate) fn saturated(&self, listener: &'static str) {
        self.saturated.get_or_create(&ListenerLabels { listener }).inc();
    }
}

/// Counts as an open connection while it lives.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A closed set: a client cannot invent label values.
fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
