//! A partner: the REST API of webhooks as a client uses it, with one token.
//!
//! It does not know what an answer means: an error is an answer like others, unless a function says that it has to work.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{self, Answer, bearer};
use crate::receiver::Hook;
use crate::wait;

/// Scopes that a partner has beside those of streams.
pub const SCOPES: &str = "webhooks:read webhooks:write";

/// Where endpoints are.
pub const ENDPOINTS: &str = "/v1/webhooks/endpoints";

/// Who asks whom.
#[derive(Debug, Clone)]
pub struct Partner {
    /// The gateway's public address; another node's may be put here.
    pub address: SocketAddr,
    /// The token.
    pub token: String,
}

/// An endpoint that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// Its secret (`whsec_...`), empty where it has none.
    pub secret: String,
    /// Its public key (`whpk_...`), empty where it has none.
    pub public_key: String,
    /// Its tag.
    pub etag: String,
    /// The whole answer.
    pub body: Value,
}

impl Partner {
    /// Somebody with this token.
    #[must_use]
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            address,
            token: token.to_owned(),
        }
    }

    /// Any request, with more headers. Who asks too often is told so, and asks again.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        wait::until(format!("{path} to be asked less often"), || {
            let asked = self.ask_once(method.clone(), path, headers, body);
            async {
                let answer = asked.await;
                let is_again = answer
                    .as_ref()
                    .is_ok_and(|answer| answer.code() == "rate_limited");
                (!is_again).then_some(answer)
            }
        })
        .await?
    }

    /// The same, whatever is said of how often.
    pub async fn ask_once(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let authorization = bearer(&self.token);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        let given = |name: &str| headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name));
        if body.is_some() && !given("content-type") {
            let kind = if method == Method::PATCH {
                "application/merge-patch+json"
            } else {
                "application/json"
            };
            all.push(("content-type", kind));
        }
        let body = body.map(|body| body.to_string().into_bytes());
        http::request(method, self.address, path, &all, body).await
    }

    /// Asks for an endpoint.
    pub async fn post(&self, body: &Value) -> Result<Answer> {
        self.ask(Method::POST, ENDPOINTS, &[], Some(body)).await
    }

    /// Makes an endpoint.
    pub async fn make(&self, body: &Value) -> Result<Made> {
        let answer = self.post(body).await?;
        ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
        let made = answer.json()?;
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        Ok(Made {
            id: text("id"),
            secret: text("secret"),
            public_key: text("public_key"),
            etag: answer.header("etag"),
            body: made,
        })
    }

    /// Makes an endpoint for a hook, which learns its secret. `more` is merged into the request.
    pub async fn hook(&self, hook: &Hook, streams: &[&str], more: Value) -> Result<Made> {
        let mut body = json!({"url": hook.url, "streams": streams});
        if let Value::Object(more) = more {
            body.as_object_mut().context("an object")?.extend(more);
        }
        let made = self.make(&body).await?;
        if !made.secret.is_empty() {
            hook.know(&made.secret);
        }
        Ok(made)
    }

    /// What is shown at a path below an endpoint (`""`: the endpoint itself).
    pub async fn read(&self, id: &str, below: &str) -> Result<Value> {
        self.get(&format!("{ENDPOINTS}/{id}{below}")).await
    }

    /// What is shown at a path.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.ask(Method::GET, path, &[], None).await?;
        ensure!(
            answer.status == 200,
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
        answer.json()
    }

    /// Tells an endpoint to do something: `pause`, `resume`, `test`, `rotate`, `replay`, `dry-run`.
    pub async fn tell(&self, id: &str, what: &str, body: Option<&Value>) -> Result<Value> {
        let path = format!("{ENDPOINTS}/{id}/{what}");
        let answer = self.ask(Method::POST, &path, &[], body).await?;
        ensure!(
            (200..300).contains(&answer.status),
            "{what}: {} {}",
            answer.status,
            answer.text()
        );
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        answer.json()
    }

    /// Changes an endpoint, whatever its version is.
    pub async fn change(&self, id: &str, patch: &Value) -> Result<Value> {
        let path = format!("{ENDPOINTS}/{id}");
        let now = self.ask(Method::GET, &path, &[], None).await?;
        ensure!(now.status == 200, "{} {}", now.status, now.text());
        let tag = now.header("etag");
        let answer = self
            .ask(Method::PATCH, &path, &[("if-match", &tag)], Some(patch))
            .await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        answer.json()
    }

    /// The attempts on record that fit a query (`endpoint=...&outcome=...`), oldest or newest first as they are given.
    pub async fn attempts(&self, query: &str) -> Result<Vec<Value>> {
        let mut attempts = Vec::new();
        let mut after = String::new();
        loop {
            let page = self
                .get(&format!("/v1/webhooks/deliveries?limit=100&{query}{after}"))
                .await?;
            attempts.extend(page["attempts"].as_array().context("attempts")?.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(attempts),
            }
        }
    }
}
