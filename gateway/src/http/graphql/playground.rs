//! GraphiQL for browsers that open `/graphql`, where it is switched on: its own prebuilt files, compiled in, so that the page
//! needs no other host and may talk to none.
//!
//! The large files are compressed once, by the script that packs them; every browser takes gzip.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue};

use crate::http::Gateway;
use crate::http::origin::host;
use crate::http::problem::{HOST_FORBIDDEN, Problem, method_not_allowed};

struct File {
    path: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
    is_packed: bool,
}

const PAGE: File = File {
    path: "/graphql",
    media_type: "text/html; charset=utf-8",
    bytes: include_bytes!("../../../../web-demo/graphiql/index.html"),
    is_packed: false,
};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const FILES: &[File] = &[
    File {
        path: "/graphiql/start.js",
        media_type: SCRIPT,
        bytes: include_bytes!("../../../../web-demo/graphiql/start.js"),
        is_packed: false,
    },
    File {
        path: "/graphiql/start.css",
        media_type: STYLE,
        bytes: include_bytes!("../../../../web-demo/graphiql/start.css"),
        is_packed: false,
    },
    File {
        path: "/graphiql/react.js",
        media_type: SCRIPT,
        bytes: include_bytes!("../../../../web-demo/graphiql/vendor/react.js.gz"),
        is_packed: true,
    },
    File {
        path: "/graphiql/react-dom.js",
        media_type: SCRIPT,
        bytes: include_bytes!("../../../../web-demo/graphiql/vendor/react-dom.js.gz"),
        is_packed: true,
    },
    File {
        path: "/graphiql/graphiql.js",
        media_type: SCRIPT,
        bytes: include_bytes!("../../../../web-demo/graphiql/vendor/graphiql.js.gz"),
        is_packed: true,
    },
    File {
        path: "/graphiql/graphiql.css",
        media_type: STYLE,
        bytes: include_bytes!("../../../../web-demo/graphiql/vendor/graphiql.css.gz"),
        is_packed: true,
    },
    File {
        path: "/graphiql/LICENSES",
        media_type: "text/plain; charset=utf-8",
        bytes: include_bytes!("../../../../web-demo/graphiql/vendor/LICENSES.gz"),
        is_packed: true,
    },
];

/// What the page needs.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let mut router = Router::new();
    for file in FILES {
        let only_get = || async { method_not_allowed("GET, HEAD") };
        router = router.route(
            file.path,
            get(move |headers: HeaderMap| async move { file.answer(&headers) }).fallback(only_get),
        );
    }
    router
}

/// The page.
pub(super) fn page(headers: &HeaderMap) -> Response {
    PAGE.answer(headers)
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
        let mut response = (fixed, self.bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        if self.is_packed {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// GraphiQL's editors make styles as they go, and its fonts are inside its style sheet.
fn policy(host: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src data:; \
         connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
