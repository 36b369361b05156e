//! A GraphQL request as HTTP carries it: a JSON body, or a query string.
//!
//! What is wrong with the request itself is told with a status of the 400s in every media type (GraphQL over HTTP); what is
//! wrong with its document is not known here. A page of another origin cannot send `application/json` without being asked
//! for leave, and a query string never changes anything: no forged request does anything.

use axum::extract::Request as HttpRequest;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use schemas::problem::Code;
use serde_json::{Map, Value};
use subscriptions::graphql::Request;

use crate::http::HttpLimits;
use crate::http::body::whole;
use crate::http::problem::Problem;

/// Reads the body of a POST.
pub(crate) async fn from_body(request: HttpRequest, limits: &HttpLimits) -> Result<Request, Problem> {
    check_media_type(request.headers())?;
    let bytes = whole(request.into_body(), limits.body_bytes_max, limits.body_timeout).await?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => from_members(members),
        Ok(Value::Array(_)) => Err(invalid("batches are not executed: send one operation a request")),
        Ok(_) => Err(invalid("the body is not a JSON object")),
        Err(error) => Err(invalid(format!(
            "the body is not JSON: line {}, column {}",
            error.line(),
            error.column()
        ))),
    }
}

/// Reads the query string of a GET: the request, and a ticket.
pub(crate) fn from_query(query: Option<&str>) -> Result<(Request, Option<String>), Problem> {
    let mut members = Map::new();
    let mut ticket = None;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let is_again = match &*name {
            "query" | "operationName" | "documentId" => {
                // A form has no null: what is empty was left out.
                !value.is_empty()
                    && members
                        .insert(name.to_string(), Value::String(value.into_owned()))
                        .is_some()
            }
            "variables" | "extensions" => {
                let value: Value = if value.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(&value).map_err(|_| invalid(format!("{name} is not JSON")))?
                };
                members.insert(name.to_string(), value).is_some()
            }
            "ticket" => ticket.replace(value.into_owned()).is_some(),
            "token" | "access_token" | "authorization" | "jwt" => return Err(token_in_url()),
            // Routers and caches add their own.
            _ => false,
        };
        if is_again {
            return Err(Problem::new(
                Code::PARAMETER_INVALID,
                format!("{name} is given twice"),
            ));
        }
    }
    Ok((from_members(members)?, ticket))
}

/// The ticket in the query string of a POST, whose other parameters are nobody's.
pub(crate) fn ticket(query: Option<&str>) -> Result<Option<String>, Problem> {
    let mut ticket = None;
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "ticket" => ticket = Some(value.into_owned()),
            "access_token" | "authorization" | "jwt" => return Err(token_in_url()),
            _ => {}
        }
    }
    Ok(ticket)
}

fn from_members(mut members: Map<String, Value>) -> Result<Request, Problem> {
    let request = Request {
        query: text(&mut members, "query")?,
        operation_name: text(&mut members, "operationName")?,
        variables: object(&mut members, "variables")?,
        extensions: object(&mut members, "extensions")?,
        document_id: text(&mut members, "documentId")?,
    };
    let is_named = request.document_id.is_some() || request.extensions.contains_key("persistedQuery");
    if request.query.is_none() && !is_named {
        return Err(invalid("query is missing"));
    }
    Ok(request)
}

fn text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{name} is a string"))),
    }
}

fn object(members: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>, Problem> {
    match members.remove(name) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(invalid(format!("{name} is an object"))),
    }
}

/// `application/json` in UTF-8, and not compressed: what a body becomes must be as bounded as the body.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Err(Problem::new(Code::UNSUPPORTED_MEDIA_TYPE, detail));
    let encoding = headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return refused("bodies are taken as they are, without a content encoding");
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let mut parts = kind.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case("application/json") {
        return refused("the body's media type is application/json");
    }
    let charset = parts
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"'));
    if charset.is_some_and(|charset| {
        !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("utf8")
    }) {
        return refused("the body's charset is UTF-8");
    }
    Ok(())
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BODY_INVALID, detail)
}

fn token_in_url() -> Problem {
    Problem::new(
        Code::UNKNOWN_PARAMETER,
        "tokens are not accepted in URLs: use the Authorization header, a ticket or the cookie",
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn posted(body: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> HttpRequest {
        let mut request = HttpRequest::builder().method("POST");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::from(body.into())).expect("a request")
    }

    async fn refused(body: impl Into<Vec<u8>>) -> u16 {
        let request = posted(body, &[("content-type", "application/json")]);
        let problem = from_body(request, &HttpLimits::default())
            .await
            .expect_err("refused");
        problem.code.status
    }

    #[tokio::test]
    async fn what_is_no_graphql_request_is_a_bad_request() {
        for body in [
            "",
            "nonsense",
            "[]",
            r#"[{"query": "{ __typename }"}]"#,
            "7",
            "{}",
            r#"{"notquery": "{ __typename }"}"#,
            r#"{"query": 0}"#,
            r#"{"query": ["{ __typename }"]}"#,
            r#"{"query": "{ __typename }", "operationName": {}}"#,
            r#"{"query": "{ __typename }", "variables": "x"}"#,
            r#"{"query": "{ __typename }", "extensions": []}"#,
        ] {
            assert_eq!(refused(body).await, 400, "{body}");
        }
        assert_eq!(refused(b"{\"query\": \"\xff\"}".as_slice()).await, 400);
        assert_eq!(refused("[".repeat(60_000)).await, 400);
        assert_eq!(refused("x".repeat(70_000)).await, 413);
    }

    #[tokio::test]
    async fn only_plain_json_in_utf_8_is_read() {
        let body = r#"{"query": "{ __typename }", "variables": null, "operationName": null}"#;
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            let request = posted(body, &[("content-type", good)]);
            let read = from_body(request, &HttpLimits::default()).await.expect(good);
            assert_eq!(read.query.as_deref(), Some("{ __typename }"));
        }
        for bad in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "",
        ] {
            let request = posted(body, &[("content-type", bad)]);
            let problem = from_body(request, &HttpLimits::default()).await.expect_err(bad);
            assert_eq!(problem.code.status, 415, "{bad}");
        }
        let zipped = [("content-type", "application/json"), ("content-encoding", "gzip")];
        let problem = from_body(posted(body, &zipped), &HttpLimits::default()).await;
        assert_eq!(problem.expect_err("gzip").code.status, 415);
    }

    #[test]
    fn a_query_string_carries_a_request_and_a_ticket() {
        let query =
            "query=%7B%20__typename%20%7D&variables=%7B%22a%22%3A1%7D&ticket=t&operationName=&other=1";
        let (request, ticket) = from_query(Some(query)).expect("a request");
        assert_eq!(request.query.as_deref(), Some("{ __typename }"));
        assert_eq!(request.variables["a"], 1);
        assert_eq!(request.operation_name, None);
        assert_eq!(ticket.as_deref(), Some("t"));
        for bad in [
            "",
            "query=",
            "query=a&query=b",
            "query=a&variables=x",
            "query=a&variables=%5B%5D",
            "query=a&token=secret",
        ] {
            let problem = from_query(Some(bad)).expect_err(bad);
            assert_eq!(problem.code.status, 400, "{bad}");
            assert!(!problem.detail.contains("secret"));
        }
    }
}
