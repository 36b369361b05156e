//! `/v1/webhooks/deliveries` and `/v1/webhooks/attempts`: the log of attempts, and one delivery sent again.

use std::sync::Arc;

use ::webhooks::delivery::{DeliveryId, EndpointId};
use ::webhooks::store::{Attempt, AttemptFilter};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::StatusCode;
use schemas::docs::openapi::Operation;
use schemas::problem::Code;
use serde_json::{Value, json};

use super::super::problem::{Problem, not_found};
use super::super::query::{self, Parameters};
use super::super::{Gateway, body};
use super::fields::Fields;
use super::replays::begun;
use super::{PAGE, PAGE_MAX, answer, with_next};
use crate::webhooks::desk::attempts::Shown;

/// Every parameter of the list.
const PARAMETERS: [&str; 8] = [
    "endpoint", "delivery", "outcome", "status", "since", "until", "after", "limit",
];

/// A page of attempts, the latest first.
pub(crate) async fn list(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::ListAttempts)
        .await?;
    let parameters = query::only(request.uri().query(), &PARAMETERS)?;
    let (filter, limit) = filter(&parameters)?;
    let (page, has_more) = partner.desk.attempts(partner.tenant(), &filter, limit).await?;
    let last = page
        .last()
        .filter(|_| has_more)
        .map(|attempt| attempt.id.to_string());
    let next = last.as_ref().map(|last| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters.iter().filter(|(name, _)| *name != "after"));
        query.append_pair("after", last);
        format!("/v1/webhooks/deliveries?{}", query.finish())
    });
    let attempts: Vec<Value> = page.iter().map(shown).collect();
    let shown = json!({ "attempts": attempts, "next": last });
    Ok(with_next(answer(StatusCode::OK, shown), next.as_deref()))
}

/// One attempt, with its bodies where they were kept and may be shown.
pub(crate) async fn read(
    State(gateway): State<Arc<Gateway>>,
    attempt: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway.partner(request.headers(), Operation::ReadAttempt).await?;
    Parameters::none(request.uri().query())?;
    let Path(attempt) = attempt.map_err(|_| not_found())?;
    let id = ulid::Ulid::from_string(&attempt).map_err(|_| not_found())?;
    let (attempt, bodies) = partner.desk.attempt(&partner.principal, id).await?;
    let mut shown = shown(&attempt);
    match bodies {
        Shown::Kept { request, answer } => {
            shown["bodies"] = json!("kept");
            shown["request"] = request;
            shown["answer"] = answer;
        }
        Shown::Withheld => shown["bodies"] = json!("withheld"),
        Shown::None => shown["bodies"] = json!("none"),
    }
    Ok(answer(StatusCode::OK, shown))
}

/// Sends a delivery again.
pub(crate) async fn resend(
    State(gateway): State<Arc<Gateway>>,
    delivery: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let partner = gateway
        .partner(request.headers(), Operation::ResendDelivery)
        .await?;
    Parameters::none(request.uri().query())?;
    let Path(delivery) = delivery.map_err(|_| not_found())?;
    let delivery = DeliveryId::parse(&delivery).map_err(|_| not_found())?;
    Fields::new(body::optional(request, &gateway.limits).await?).finish()?;
    let replay = partner.desk.resend(partner.tenant(), &delivery).await?;
    Ok(begun(
        &replay,
        &format!("/v1/webhooks/deliveries?delivery={delivery}"),
    ))
}

fn filter(parameters: &[(&'static str, String)]) -> Result<(AttemptFilter, usize), Problem> {
    let bad = |detail: &str| Problem::new(Code::PARAMETER_INVALID, detail);
    let (mut filter, mut limit) = (AttemptFilter::default(), PAGE);
    for (name, value) in parameters {
        match *name {
            "endpoint" => {
                let id = EndpointId::parse(value).map_err(|_| bad("endpoint is an endpoint's id"))?;
                filter.endpoint = Some(id);
            }
            "delivery" => {
                let id = DeliveryId::parse(value).map_err(|_| bad("delivery is a delivery's id"))?;
                filter.delivery = Some(id);
            }
            "outcome" => {
                let is_word = (1..=64).contains(&value.len())
                    && value
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                if !is_word {
                    return Err(bad("outcome is a word such as delivered or timeout"));
                }
                filter.outcome = Some(value.clone());
            }
            "status" => {
                let status: u16 = value
                    .parse()
                    .map_err(|_| bad("status is an HTTP status, 100 to 599"))?;
                if !(100..600).contains(&status) {
                    return Err(bad("status is an HTTP status, 100 to 599"));
                }
                filter.status = Some(status);
            }
            "since" => filter.since_ms = Some(time("since", value)?),
            "until" => filter.until_ms = Some(time("until", value)?),
            "after" => {
                let id = ulid::Ulid::from_string(value).map_err(|_| bad("after is an attempt's id"))?;
                filter.before = Some(id);
            }
            _ => limit = query::number("limit", value, 1, PAGE_MAX)?,
        }
    }
    Ok((filter, usize::try_from(limit).unwrap_or(usize::MAX)))
}

fn time(name: &str, text: &str) -> Result<i64, Problem> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(jiff::Timestamp::as_millisecond)
        .map_err(|_| Problem::new(Code::PARAMETER_INVALID, format!("{name} is an RFC 3339 time")))
}

fn shown(attempt: &Attempt) -> Value {
    let at = jiff::Timestamp::from_millisecond(attempt.at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    json!({
        "id": attempt.id.to_string(),
        "endpoint": attempt.endpoint.as_str(),
        "delivery": attempt.delivery.as_str(),
        "attempt": attempt.number,
        "at": at.to_string(),
        "status": attempt.status,
        "outcome": attempt.outcome,
        "latency_ms": attempt.latency_ms,
    })
}
