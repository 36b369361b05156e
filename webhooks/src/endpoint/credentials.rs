//! What a destination wants to be shown.

use auth::egress::Reach;
use schemas::problem::Code;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use url::Url;

/// The longest token, name or secret.
const TEXT_BYTES_MAX: usize = 4096;

/// The longest certificate chain or key, in PEM.
const PEM_BYTES_MAX: usize = 16 * 1024;

/// Credentials to the destination.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// None.
    #[default]
    None,
    /// `Authorization: Bearer`.
    Bearer {
        /// The token.
        token: SecretString,
    },
    /// `Authorization: Basic` (RFC 7617).
    Basic {
        /// The name, without a colon.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A token by OAuth 2 client credentials (RFC 6749, section 4.4).
    OAuth2 {
        /// Where the token is fetched.
        token_url: Url,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// The scopes asked for.
        scopes: Vec<String>,
    },
    /// A client certificate.
    Mtls {
        /// The chain, in PEM.
        certificate: String,
        /// The key, in PEM.
        key: SecretString,
    },
}

type Refused = (Code, String);

impl Credentials {
    /// Reads credentials; every secret has to be there.
    pub(super) fn parse(value: &Value, reach: Reach) -> Result<Self, Refused> {
        let Some(object) = value.as_object() else {
            return Err(bad("an object with a `type` is wanted"));
        };
        let fields = Fields { object };
        let credentials = match object.get("type").and_then(Value::as_str) {
            Some("none") => {
                fields.only(&[])?;
                Self::None
            }
            Some("bearer") => {
                fields.only(&["token"])?;
                let token = fields.secret("token", TEXT_BYTES_MAX)?;
                let visible = token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic());
                if !visible {
                    return Err(bad("token: visible ASCII characters are wanted"));
                }
                Self::Bearer { token }
            }
            Some("basic") => {
                fields.only(&["username", "password"])?;
                let username = fields.text("username")?;
                if username.contains(':') || username.chars().any(char::is_control) {
                    return Err(bad(
                        "username: neither a colon nor control characters are allowed",
                    ));
                }
                let password = fields.secret("password", TEXT_BYTES_MAX)?;
                if password.expose_secret().chars().any(char::is_control) {
                    return Err(bad("password: control characters are not allowed"));
                }
                Self::Basic { username, password }
            }
            Some("oauth2") => {
                fields.only(&["token_url", "client_id", "client_secret", "scopes"])?;
                let token_url = super::spec::url(&fields.text("token_url")?, reach)
                    .map_err(|(code, detail)| (code, format!("token_url: {detail}")))?;
                let word = |scope: &Value| {
                    let scope = scope.as_str()?;
                    let fits = (1..=256).contains(&scope.len())
                        && scope
                            .bytes()
                            .all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte));
                    fits.then(|| scope.to_owned())
                };
                let scopes = match object.get("scopes") {
                    None => Some(Vec::new()),
                    Some(Value::Array(scopes)) if scopes.len() <= 32 => scopes.iter().map(word).collect(),
                    Some(_) => None,
                };
                Self::OAuth2 {
                    token_url,
                    client_id: fields.text("client_id")?,
                    client_secret: fields.secret("client_secret", TEXT_BYTES_MAX)?,
                    scopes: scopes.ok_or_else(|| bad("scopes: at most 32 words are wanted"))?,
                }
            }
            Some("mtls") => {
                fields.only(&["certificate", "key"])?;
                let certificate = fields.secret("certificate", PEM_BYTES_MAX)?;
                let certificate = certificate.expose_secret().to_owned();
                let key = fields.secret("key", PEM_BYTES_MAX)?;
                let is_pem = |text: &str, kind: &str| text.contains("-----BEGIN ") && text.contains(kind);
                if !is_pem(&certificate, "CERTIFICATE-----")
                    || !is_pem(key.expose_secret(), "PRIVATE KEY-----")
                {
                    return Err(bad("a certificate and a private key in PEM are wanted"));
                }
                Self::Mtls { certificate, key }
            }
            _ => return Err(bad("type: none, bearer, basic, oauth2 or mtls is wanted")),
        };
        Ok(credentials)
    }

    /// What is shown: everything but the secrets.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::None => json!({ "type": "none" }),
            Self::Bearer { .. } => json!({ "type": "bearer" }),
            Self::Basic { username, .. } => json!({ "type": "basic", "username": username }),
            Self::OAuth2 {
                token_url,
                client_id,
                scopes,
                ..
            } => json!({
                "type": "oauth2", "token_url": token_url.as_str(), "client_id": client_id, "scopes": scopes,
            }),
            Self::Mtls { certificate, .. } => json!({ "type": "mtls", "certificate": certificate }),
        }
    }

    /// What is sealed: what is shown, and the secrets.
    pub(super) fn to_private_json(&self) -> Value {
        let mut whole = self.to_json();
        let mut add = |name: &str, secret: &SecretString| {
            if let Some(object) = whole.as_object_mut() {
                object.insert(name.to_owned(), Value::from(secret.expose_secret()));
            }
        };
        match self {
            Self::None => {}
            Self::Bearer { token } => add("token", token),
            Self::Basic { password, .. } => add("password", password),
            Self::OAuth2 { client_secret, .. } => add("client_secret", client_secret),
            Self::Mtls { key, .. } => add("key", key),
        }
        whole
    }
}

struct Fields<'a> {
    object: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn only(&self, names: &[&str]) -> Result<(), Refused> {
        let known = |name: &String| name == "type" || names.contains(&name.as_str());
        if self.object.keys().all(known) {
            Ok(())
        } else {
            Err(bad(&format!("only `type` and {names:?} are wanted")))
        }
    }

    fn secret(&self, name: &str, bytes_max: usize) -> Result<SecretString, Refused> {
        match self.object.get(name).and_then(Value::as_str) {
            Some(text) if (1..=bytes_max).contains(&text.len()) => Ok(SecretString::from(text)),
            _ => Err(bad(&format!(
                "{name}: a text of 1 to {bytes_max} bytes is wanted"
            ))),
        }
    }

    fn text(&self, name: &str) -> Result<String, Refused> {
        self.secret(name, TEXT_BYTES_MAX)
            .map(|text| text.expose_secret().to_owned())
    }
}

fn bad(detail: &str) -> Refused {
    (Code::CREDENTIALS_INVALID, detail.to_owned())
}
