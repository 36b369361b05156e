//! The demo's page: a few files compiled in, served with headers that let them do what they must and nothing else.
//!
//! One invariant: with a page there is a check of `Host`, so that a name which somebody points at this machine cannot
//! make a browser read from us (DNS rebinding).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

use super::Gateway;
use super::origin::{host, host_is_ours};
use super::problem::{HOST_FORBIDDEN, Problem, method_not_allowed};

/// A page at `/`, with the endpoints that only it needs.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Routes of the page's own (the demo's `/demo/...`), served behind the same check of `Host`.
    pub endpoints: Router,
    /// Further names that this server answers to; addresses and `localhost` always work.
    pub hosts: Vec<String>,
}

struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

const FILES: &[File] = &[
    File {
        path: "/",
        media_type: "text/html; charset=utf-8",
        text: include_str!("../../../web-demo/index.html"),
    },
    File {
        path: "/app.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../../../web-demo/app.js"),
    },
    File {
        path: "/tidewire.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../../../web-demo/tidewire.js"),
    },
    File {
        path: "/fhir.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../../../web-demo/fhir.js"),
    },
    File {
        path: "/webhooks.js",
        media_type: "text/javascript; charset=utf-8",
        text: include_str!("../../../web-demo/webhooks.js"),
    },
    File {
        path: "/style.css",
        media_type: "text/css; charset=utf-8",
        text: include_str!("../../../web-demo/style.css"),
    },
    File {
        path: "/favicon.svg",
        media_type: "image/svg+xml",
        text: include_str!("../../../web-demo/favicon.svg"),
    },
];

impl Page {
    /// The files and the endpoints.
    pub(crate) fn router(&self) -> Router<Arc<Gateway>> {
        let mut router = Router::new();
        for file in FILES {
            router = router.route(
                file.path,
                get(move |headers: HeaderMap| async move { file.answer(&headers) }).fallback(only_get),
            );
        }
        router.merge(self.endpoints.clone().with_state(()))
    }

    fn answers_to(&self, headers: &HeaderMap) -> bool {
        let Some(host) = host(headers) else { return false };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        host_is_ours(host) || self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

impl File {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let policy = policy(host(headers).unwrap_or_default());
        let Ok(policy) = HeaderValue::from_str(&policy) else {
            return Problem::new(HOST_FORBIDDEN, "").into_response();
        };
        let fixed = [
            (CONTENT_TYPE, self.media_type),
            (CACHE_CONTROL, "no-cache"),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (X_FRAME_OPTIONS, "DENY"),
        ];
        let mut response = (fixed, self.text).into_response();
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
        response.headers_mut().insert(
            "cross-origin-opener-policy",
            HeaderValue::from_static("same-origin"),
        );
        response
    }
}

/// Scripts and styles of our own, and nothing inline; `'self'` covers WebSockets in some browsers only.
fn policy(host: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Around every route of a server with a page.
pub(crate) async fn check_host(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let answers = gateway
        .page
        .as_ref()
        .is_none_or(|page| page.answers_to(request.headers()));
    if answers {
        next.run(request).await
    } else {
        Problem::new(HOST_FORBIDDEN, "").into_response()
    }
}

async fn only_get() -> Problem {
    method_not_allowed("GET, HEAD")
}
