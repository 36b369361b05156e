//! HTTP Message Signatures (RFC 9421) over a delivery, with Ed25519.
//!
//! Invariant: what is signed is the method, the target, the body's digest, its type, the id and the time. A signature is
//! good for one receiver only.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Ed25519, Held};

/// What tells our signatures from others on the same message (RFC 9421, section 2.3).
const TAG: &str = "tidewire-webhook";

/// A delivery as it goes out, as far as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The URL as it is connected to.
    pub target_uri: &'a str,
    /// `content-digest`, from [`content_digest`].
    pub content_digest: &'a str,
    /// `content-type`; a delivery without a body has none.
    pub content_type: Option<&'a str>,
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp_s: i64,
}

/// The gateway's keys, the current one first; the others sign beside it until their time is over.
#[derive(Debug, Clone, Default)]
pub struct MessageSigner {
    keys: Vec<Held<Ed25519>>,
}

impl MessageSigner {
    /// Signs with these keys.
    #[must_use]
    pub fn new(keys: Vec<Held<Ed25519>>) -> Self {
        Self { keys }
    }

    /// The public keys, as a JWK set (RFC 7517): what `/.well-known/webhook-keys.json` answers.
    #[must_use]
    pub fn jwks(&self, now_ms: i64) -> serde_json::Value {
        let signing = self.keys.iter().filter(|held| held.signs(now_ms));
        serde_json::json!({ "keys": signing.map(|held| held.key.jwk()).collect::<Vec<_>>() })
    }

    /// The values of `signature-input` and `signature`, one label for each key (`k1`, `k2`, ...). `None` without a key.
    #[must_use]
    pub fn sign(&self, request: &Request<'_>, now_ms: i64) -> Option<(String, String)> {
        let (mut inputs, mut signatures) = (String::new(), String::new());
        let signing = self.keys.iter().filter(|held| held.signs(now_ms));
        for (place, held) in (1..).zip(signing) {
            let parameters = parameters(request, &held.key.key_id());
            let signature = held.key.sign_base64(base(request, &parameters).as_bytes());
            let comma = if place == 1 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(inputs, "{comma}k{place}={parameters}");
            let _ = write!(signatures, "{comma}k{place}=:{signature}:");
        }
        (!inputs.is_empty()).then_some((inputs, signatures))
    }
}

/// The value of `content-digest` (RFC 9530).
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, body);
    format!("sha-256=:{}:", STANDARD.encode(digest))
}

/// The covered components and the parameters (RFC 9421, section 2.3).
fn parameters(request: &Request<'_>, key_id: &str) -> String {
    let content_type = if request.content_type.is_some() {
        r#" "content-type""#
    } else {
        ""
    };
    format!(
        r#"("@method" "@target-uri" "content-digest"{content_type} "webhook-id" "webhook-timestamp");created={};keyid="{key_id}";alg="ed25519";tag="{TAG}""#,
        request.timestamp_s
    )
}

/// The signature base (RFC 9421, section 2.5).
fn base(request: &Request<'_>, parameters: &str) -> String {
    let mut base = format!(
        "\"@method\": POST\n\"@target-uri\": {}\n\"content-digest\": {}\n",
        request.target_uri, request.content_digest
    );
    if let Some(content_type) = request.content_type {
        // Writing to a string cannot fail.
        let _ = writeln!(base, "\"content-type\": {content_type}");
    }
    let _ = write!(
        base,
        "\"webhook-id\": {}\n\"webhook-timestamp\": {}\n\"@signature-params\": {parameters}",
        request.id, request.timestamp_s
    );
    base
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use secrecy::SecretString;

    use super::*;

    /// `test-key-ed25519` of RFC 9421, appendix B.1.4.
    fn key() -> Ed25519 {
        let seed = URL_SAFE_NO_PAD
            .decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU")
            .expect("base64");
        Ed25519::parse(&SecretString::from(format!("whsk_{}", STANDARD.encode(seed)))).expect("a key")
    }

    #[test]
    fn the_key_signs_the_example_of_the_specification_as_it_does() {
        // RFC 9421, appendix B.2.6.
        let base = "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\"@method\": POST\n\"@path\": /foo\n\"@authority\": example.com\n\
                    \"content-type\": application/json\n\"content-length\": 18\n\"@signature-params\": (\"date\" \"@method\" \
                    \"@path\" \"@authority\" \"content-type\" \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"";
        let signature =
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==";
        assert_eq!(key().sign_base64(base.as_bytes()), signature);
    }

    #[test]
    fn the_digest_is_that_of_the_specification() {
        // RFC 9530, appendix D: the body of the examples of RFC 9421.
        assert_eq!(
            content_digest(br#"{"hello": "world"}"#),
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
        );
    }

    #[test]
    fn each_key_that_signs_has_its_label_and_covers_target_body_id_and_time() {
        let old = Ed25519::generate().expect("a key");
        let held = |key: &Ed25519, until_ms| Held {
            key: key.clone(),
            until_ms,
        };
        let signer = MessageSigner::new(vec![held(&key(), None), held(&old, Some(1_000))]);
        let digest = content_digest(b"{}");
        let request = Request {
            target_uri: "https://partner.example/hooks?x=1",
            content_digest: &digest,
            content_type: Some("application/cloudevents+json"),
            id: "msg_1",
            timestamp_s: 1_700_000_000,
        };
        let (inputs, signatures) = signer.sign(&request, 999).expect("a signature");
        let expected = format!(
            "(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\" \"webhook-id\" \"webhook-timestamp\")\
             ;created=1700000000;keyid=\"{}\";alg=\"ed25519\";tag=\"tidewire-webhook\"",
            old.key_id()
        );
        let (_, second) = inputs.split_once(", k2=").expect("two labels");
        assert_eq!(second, expected);
        let (_, signature) = signatures.split_once(", k2=:").expect("two signatures");
        let base = format!(
            "\"@method\": POST\n\"@target-uri\": https://partner.example/hooks?x=1\n\"content-digest\": {digest}\n\
             \"content-type\": application/cloudevents+json\n\"webhook-id\": msg_1\n\"webhook-timestamp\": 1700000000\n\
             \"@signature-params\": {expected}"
        );
        assert!(old.verifies(base.as_bytes(), signature.trim_end_matches(':')));
        assert_eq!(signer.jwks(999)["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(signer.jwks(1_000)["keys"].as_array().map(Vec::len), Some(1));
        let (inputs, _) = signer.sign(&request, 1_000).expect("a signature");
        assert!(!inputs.contains("k2="));
    }
}
