//! Signatures of a delivery: Standard Webhooks `v1` and `v1a`, and HTTP Message Signatures (RFC 9421), several at once.
//!
//! One invariant: a signature covers the id, the time and the whole body. Each attempt is signed anew, with its own time and
//! the same id. Knows nothing of who receives: keys and texts come in, header values go out.
//!
//! A `v1a` key belongs to one endpoint, like a secret does: the signed text does not name the receiver, and with one key for
//! all of them one receiver could hand what it got to another. RFC 9421 signs the target as well, so its key is the
//! gateway's.

mod key;
mod message;

pub use key::{BadSecret, Ed25519, Secret};
pub use message::{MessageSigner, Request, content_digest};

/// A way to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// HMAC-SHA256 with the endpoint's secret.
    V1,
    /// Ed25519 with the endpoint's key.
    V1a,
    /// HTTP Message Signatures with the gateway's key.
    Rfc9421,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 3] = [Self::V1, Self::V1a, Self::Rfc9421];

    /// As it stands in an endpoint.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
            Self::Rfc9421 => "rfc9421",
        }
    }
}

/// A key and until when it signs. While a secret is rotated both the old one and the new one do.
#[derive(Debug, Clone)]
pub struct Held<K> {
    /// The key.
    pub key: K,
    /// When it stops signing, in milliseconds since the Unix epoch. `None`: it is the current one.
    pub until_ms: Option<i64>,
}

impl<K> Held<K> {
    /// Whether it signs now.
    #[must_use]
    pub fn signs(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }
}

/// The keys of one endpoint, the current ones first.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// For `v1`.
    pub secrets: Vec<Held<Secret>>,
    /// For `v1a`.
    pub pairs: Vec<Held<Ed25519>>,
}

impl Keys {
    /// Puts a new secret in front; those before it sign until `until_ms`, and not longer than they would have.
    pub fn rotate(&mut self, secret: Secret, now_ms: i64, until_ms: i64) {
        end(&mut self.secrets, now_ms, until_ms);
        self.secrets.insert(
            0,
            Held {
                key: secret,
                until_ms: None,
            },
        );
    }

    /// The same for the key pair.
    pub fn rotate_pair(&mut self, pair: Ed25519, now_ms: i64, until_ms: i64) {
        end(&mut self.pairs, now_ms, until_ms);
        self.pairs.insert(
            0,
            Held {
                key: pair,
                until_ms: None,
            },
        );
    }

    /// The value of `webhook-signature`: one signature for each key that signs now, of the schemes that are asked for.
    /// `None` if there is none.
    #[must_use]
    pub fn signature(
        &self,
        schemes: &[Scheme],
        id: &str,
        timestamp_s: i64,
        body: &[u8],
        now_ms: i64,
    ) -> Option<String> {
        let head = format!("{id}.{timestamp_s}.");
        let mut value = String::new();
        let mut add = |version: &str, signature: String| {
            if !value.is_empty() {
                value.push(' ');
            }
            value.extend([version, ",", &signature]);
        };
        if schemes.contains(&Scheme::V1) {
            for held in self.secrets.iter().filter(|held| held.signs(now_ms)) {
                add("v1", held.key.sign(&[head.as_bytes(), body]));
            }
        }
        if schemes.contains(&Scheme::V1a) {
            let signed = [head.as_bytes(), body].concat();
            for held in self.pairs.iter().filter(|held| held.signs(now_ms)) {
                add("v1a", held.key.sign_base64(&signed));
            }
        }
        (!value.is_empty()).then_some(value)
    }
}

fn end<K>(keys: &mut Vec<Held<K>>, now_ms: i64, until_ms: i64) {
    keys.retain(|held| held.signs(now_ms));
    for held in keys.iter_mut() {
        held.until_ms = Some(held.until_ms.map_or(until_ms, |have_ms| have_ms.min(until_ms)));
    }
    keys.retain(|held| held.signs(now_ms));
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    /// The vector of Standard Webhooks' own documentation, checked with three independent libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP_S: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret(text: &str) -> Secret {
        Secret::parse(&SecretString::from(text)).expect("a secret")
    }

    fn keys() -> Keys {
        Keys {
            secrets: vec![Held {
                key: secret(SECRET),
                until_ms: None,
            }],
            pairs: vec![Held {
                key: Ed25519::generate().expect("a key"),
                until_ms: None,
            }],
        }
    }

    #[test]
    fn the_vector_of_the_standard_is_met() {
        let signature = keys().signature(&[Scheme::V1], ID, TIMESTAMP_S, BODY, 0);
        assert_eq!(signature.as_deref(), Some(SIGNATURE));
    }

    #[test]
    fn several_schemes_sign_at_once_and_each_can_be_verified_by_itself() {
        let keys = keys();
        let value = keys
            .signature(&[Scheme::V1, Scheme::V1a], ID, TIMESTAMP_S, BODY, 0)
            .expect("a signature");
        let (v1, v1a) = value.split_once(' ').expect("two signatures");
        assert_eq!(v1, SIGNATURE);
        let v1a = v1a.strip_prefix("v1a,").expect("its version");
        let signed = [format!("{ID}.{TIMESTAMP_S}.").as_bytes(), BODY].concat();
        assert!(keys.pairs[0].key.verifies(&signed, v1a));
        let other = [format!("{ID}.{}.", TIMESTAMP_S + 1).as_bytes(), BODY].concat();
        assert!(!keys.pairs[0].key.verifies(&other, v1a));
    }

    #[test]
    fn an_old_secret_signs_beside_the_new_one_until_its_time_is_over() {
        let mut keys = keys();
        let fresh = Secret::generate().expect("a secret");
        keys.rotate(fresh, 1_000, 5_000);
        let signatures = |now_ms: i64| {
            let value = keys.signature(&[Scheme::V1], ID, TIMESTAMP_S, BODY, now_ms);
            value
                .expect("a signature")
                .split(' ')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(signatures(4_999).len(), 2);
        assert_eq!(signatures(4_999)[1], SIGNATURE);
        assert_eq!(signatures(5_000).len(), 1);
        assert_ne!(signatures(5_000)[0], SIGNATURE);
        // A second rotation does not let the first secret live longer, and one without overlap ends all others now.
        let mut twice = keys.clone();
        twice.rotate(Secret::generate().expect("a secret"), 2_000, 9_000);
        assert_eq!(
            twice.secrets.iter().map(|held| held.until_ms).collect::<Vec<_>>(),
            [None, Some(9_000), Some(5_000)]
        );
        twice.rotate(Secret::generate().expect("a secret"), 3_000, 3_000);
        assert_eq!(twice.secrets.len(), 1);
    }

    #[test]
    fn without_a_key_there_is_no_signature() {
        let schemes = [Scheme::V1, Scheme::V1a];
        assert_eq!(
            Keys::default().signature(&schemes, ID, TIMESTAMP_S, BODY, 0),
            None
        );
    }
}
