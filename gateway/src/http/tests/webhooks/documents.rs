//! The OpenAPI document: the routes that are served, and only what its reader may see.

use std::collections::BTreeSet;

use http::StatusCode;
use schemas::docs::openapi::ROUTES;
use serde_json::Value;

use super::house::{ALL, House};
use crate::http::tests::rig::{Rig, request};

const DOCUMENT: &str = "/v1/docs/openapi.json";

#[tokio::test]
async fn every_route_of_the_document_is_served_and_every_other_method_is_refused_with_those_that_are() {
    let house = House::new().await;
    for route in ROUTES {
        let path = route
            .path
            .replace("{stream}", "observations")
            .replace(['{', '}'], "x");
        let method = route.method.to_uppercase();
        let answer = house.rig.ask(request(&method, &path, &[], "")).await;
        // Nobody is let in without credentials, and nothing is said; the keys are everybody's.
        let expected = if route.operation.route().tag == "webhooks" && route.path.starts_with("/.well-known")
        {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        let is_upgrade = route.path == "/v1/ws";
        assert!(
            is_upgrade || answer.status == expected,
            "{method} {path}: {}",
            answer.text
        );
        let refused = house.rig.ask(request("PUT", &path, &[], "")).await;
        assert_eq!(refused.code(), "method_not_allowed", "{path}");
        let allowed: BTreeSet<&str> = refused.headers["allow"]
            .to_str()
            .expect("text")
            .split(", ")
            .collect();
        let mut declared: BTreeSet<String> = ROUTES
            .iter()
            .filter(|other| other.path == route.path)
            .map(|other| other.method.to_uppercase())
            .collect();
        if declared.contains("GET") && !is_upgrade {
            declared.insert("HEAD".to_owned());
        }
        assert_eq!(allowed, declared.iter().map(String::as_str).collect(), "{path}");
    }
}

#[tokio::test]
async fn where_no_webhooks_are_sent_none_of_their_routes_is_there() {
    let rig = Rig::new();
    for route in ROUTES.iter().filter(|route| route.is_of_webhooks()) {
        let path = route.path.replace(['{', '}'], "x");
        let answer = rig
            .ask(request(&route.method.to_uppercase(), &path, &[], ""))
            .await;
        assert_eq!(answer.code(), "not_found", "{path}");
    }
    let bearer = rig.bearer();
    let document = rig.get(DOCUMENT, &[("authorization", &bearer)]).await.json();
    assert!(document.get("webhooks").is_none());
    assert!(document["paths"].get("/v1/streams").is_some());
}

#[tokio::test]
async fn the_document_names_only_what_its_reader_may_see() {
    let house = House::new().await;
    let read = async |scopes: &str| {
        let bearer = house.bearer("north", scopes);
        house.ask_as(&bearer, "GET", DOCUMENT, &[], &Value::Null).await
    };
    let whole = read(ALL).await;
    let document = whole.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        document["webhooks"]
            .get("tidewire.observations.changed")
            .is_some()
    );
    for hidden in ["patients", "encounters", "medication_requests"] {
        assert!(!whole.text.contains(&format!("tidewire.{hidden}")), "{hidden}");
    }
    let limits = &document["components"]["schemas"]["EndpointSpecification"]["properties"];
    assert_eq!(limits["timeout_ms"]["maximum"], 30_000);

    let reader = read("webhooks:read user/Patient.rs").await.json();
    assert!(reader["webhooks"].get("tidewire.patients.changed").is_some());
    assert!(reader["webhooks"].get("tidewire.observations.changed").is_none());
    let endpoints = &reader["paths"]["/v1/webhooks/endpoints"];
    assert!(endpoints.get("get").is_some() && endpoints.get("post").is_none());
    let nobody = read("openid").await.json();
    assert_eq!(nobody["webhooks"], serde_json::json!({}));
    assert!(nobody["paths"].get("/v1/webhooks/endpoints").is_none());

    let tag = whole.headers["etag"].to_str().expect("text");
    let bearer = house.bearer("north", ALL);
    let known = house
        .ask_as(&bearer, "GET", DOCUMENT, &[("if-none-match", tag)], &Value::Null)
        .await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    assert_eq!(house.rig.get(DOCUMENT, &[]).await.code(), "unauthenticated");
}
