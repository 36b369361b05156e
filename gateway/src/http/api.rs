//! The router of the API, made from the table of its routes.
//!
//! Invariant: a path and a method are served if and only if they stand in [`ROUTES`]. Each operation has its handler: the
//! compiler sees to it.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, patch, post};
use schemas::docs::openapi::{Operation, ROUTES, Route};

use super::webhooks::{deliveries, dry_run, endpoints, keys, replays, state};
use super::{Gateway, catalogue, documents, method_not_allowed, streams, tickets, websocket};

/// The routes of the table; those of webhooks where they are sent.
pub(super) fn router(has_webhooks: bool) -> Router<Arc<Gateway>> {
    let served = |route: &&Route| has_webhooks || !route.is_of_webhooks();
    let routes: Vec<&Route> = ROUTES.iter().filter(served).collect();
    let mut paths: Vec<&str> = routes.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut router = Router::new();
    for path in paths {
        let here = || routes.iter().filter(|route| route.path == path);
        let methods = here().fold(MethodRouter::new(), |methods, route| {
            methods.merge(handler(route.operation))
        });
        let allow = allow(here().copied());
        // Axum's own answers to a wrong method have no body: each resource says what works.
        router = router.route(
            path,
            methods.fallback(move || async move { method_not_allowed(&allow) }),
        );
    }
    router
}

/// The value of `Allow`.
fn allow<'a>(routes: impl Iterator<Item = &'a Route>) -> String {
    let mut methods = Vec::new();
    for route in routes {
        methods.push(route.method.to_ascii_uppercase());
        // An upgrade has nothing to be asked for without its body.
        if route.method == "get" && route.operation != Operation::OpenSocket {
            methods.push("HEAD".to_owned());
        }
    }
    methods.join(", ")
}

fn handler(operation: Operation) -> MethodRouter<Arc<Gateway>> {
    match operation {
        Operation::ListStreams => get(catalogue::get),
        Operation::ReadStream => get(streams::get),
        Operation::ReadStreamByPost => post(streams::post),
        Operation::IssueTicket => post(tickets::post),
        Operation::OpenSocket => get(websocket::upgrade),
        Operation::ReadOpenApi => get(documents::openapi),
        Operation::ReadWebhookKeys => get(keys::get),
        Operation::ListEndpoints => get(endpoints::list),
        Operation::CreateEndpoint => post(endpoints::create),
        Operation::ReadEndpoint => get(endpoints::read),
        Operation::ChangeEndpoint => patch(endpoints::change),
        Operation::DeleteEndpoint => delete(endpoints::remove),
        Operation::RotateSecrets => post(endpoints::rotate),
        Operation::PauseEndpoint => post(endpoints::pause),
        Operation::ResumeEndpoint => post(endpoints::resume),
        Operation::TestEndpoint => post(state::test),
        Operation::AskEndpoint => post(state::handshake),
        Operation::ReadHealth => get(state::health),
        Operation::ReadCursor => get(state::cursor),
        Operation::DryRunEndpoint => post(dry_run::of_endpoint),
        Operation::DryRunSpecification => post(dry_run::of_specification),
        Operation::BeginReplay => post(replays::begin),
        Operation::ListReplays => get(replays::list),
        Operation::CancelReplay => delete(replays::cancel),
        Operation::ListAttempts => get(deliveries::list),
        Operation::ReadAttempt => get(deliveries::read),
        Operation::ResendDelivery => post(deliveries::resend),
    }
}
