//! Where the gateway listens, and which pages may call it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemas::contract::settings::Placed;
use secrecy::{ExposeSecret, SecretString};

use super::section::Section;
use crate::http::listener::{self, TlsError};

/// The shortest admin token.
const ADMIN_TOKEN_MIN: usize = 16;

/// Addresses.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The public listener.
    pub address: SocketAddr,
    /// The operations listener.
    pub admin: SocketAddr,
    /// Asked for on the operations listener, as a bearer token.
    pub admin_token: Option<SecretString>,
    /// TLS on the public listener.
    pub tls: Option<Tls>,
}

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and those that signed it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Listen {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            address: loopback(8080),
            admin: loopback(9090),
            admin_token: None,
            tls: None,
        }
    }
}

pub(super) fn read(root: &Section) -> Option<Listen> {
    let mut listen = Listen::default();
    let Some(section) = root.below("listen") else {
        // A `listen` of the wrong type was reported.
        return (!root.table.has("listen")).then_some(listen);
    };
    let mut is_whole = true;
    for (key, into) in [("address", &mut listen.address), ("admin", &mut listen.admin)] {
        if let Some(text) = section.text(key) {
            match text.value.parse() {
                Ok(address) => *into = address,
                Err(_) => {
                    is_whole = false;
                    let message = format!("`listen.{key}` is no address: {:?}", text.value);
                    section.report(
                        &text.place,
                        "invalid_address",
                        message,
                        "write IP:PORT, such as 127.0.0.1:8080 or [::]:8080",
                    );
                }
            }
        }
    }
    if is_whole && listen.address == listen.admin && listen.address.port() != 0 {
        let message = format!("`listen.address` and `listen.admin` are both {}", listen.address);
        section.report(
            section.table.place_of("admin"),
            "duplicate_address",
            message,
            "give the operations listener its own port",
        );
    }
    let token = section.secret("admin_token");
    if let Some(token) = &token
        && token.value.expose_secret().chars().count() < ADMIN_TOKEN_MIN
    {
        let message = format!("`listen.admin_token` is shorter than {ADMIN_TOKEN_MIN} characters");
        section.report(
            &token.place,
            "secret_too_short",
            message,
            "write a longer one: openssl rand -hex 24",
        );
    }
    if !listen.admin.ip().is_loopback() && !section.table.has("admin_token") {
        let message = format!(
            "the operations listener {} can be reached from outside and asks for nothing",
            listen.admin
        );
        section.report(
            section.table.place_of("admin"),
            "admin_exposed",
            message,
            "let it listen on 127.0.0.1, or set `listen.admin_token`",
        );
    }
    listen.admin_token = token.map(|token| token.value);
    listen.tls = read_tls(&section);
    section.table.finish();
    Some(listen)
}

fn read_tls(listen: &Section) -> Option<Tls> {
    let section = listen.below("tls")?;
    let certificate = section.required_text("certificate");
    let key = section.required_text("key");
    section.table.finish();
    let (certificate, key) = (certificate?, key?);
    let files = Tls {
        certificate: section.around.path(&certificate.value),
        key: section.around.path(&key.value),
    };
    if let Err(error) = listener::Tls::load(&files.certificate, &files.key) {
        let place = match &error {
            TlsError::File { path, .. } if *path == files.key => &key.place,
            _ => &certificate.place,
        };
        let cause = std::error::Error::source(&error)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        let mend = "name PEM files that belong together and that this user may read";
        section.report(place, "tls_unusable", format!("{error}{cause}"), mend);
    }
    Some(files)
}

pub(super) fn read_origins(root: &Section) -> Vec<String> {
    let Some(section) = root.below("origins") else {
        return Vec::new();
    };
    let mut origins = Vec::new();
    for origin in section.texts("allow").unwrap_or_default() {
        match normal_origin(&origin) {
            Some(text) => origins.push(text),
            None => section.report(
                &origin.place,
                "invalid_origin",
                format!("{:?} is no origin", origin.value),
                "write scheme, host and port only, such as https://app.example",
            ),
        }
    }
    section.table.finish();
    origins
}

/// The origin as browsers send it. `null` and patterns are none.
fn normal_origin(origin: &Placed<String>) -> Option<String> {
    let url = url::Url::parse(&origin.value).ok()?;
    let is_bare = url.path() == "/"
        && !origin.value.ends_with('/')
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let is_web = matches!(url.scheme(), "http" | "https");
    (is_bare && is_web && url.host_str().is_some_and(|host| !host.contains('*')))
        .then(|| url.origin().ascii_serialization())
}
