//! Keys and tokens for this crate's tests, signed with the primitives alone: whatever a promise needs can be said, good or
//! bad. Compiled for tests only.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::issuer::{Algorithm, Issuer, KeySource, Tenants};

pub(crate) const ISSUER: &str = "https://id.example";
pub(crate) const NOW_MS: i64 = 1_800_000_000_000;
pub(crate) const NOW: i64 = NOW_MS / 1000;

/// A private key.
pub(crate) enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Pair {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    pub(crate) fn ec(curve: &'static str) -> Self {
        let algorithm = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        Self::Ec(EcdsaKeyPair::generate(algorithm).expect("a key"), curve)
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().expect("a key"))
    }

    /// The public half, with these members besides.
    pub(crate) fn jwk(&self, more: Value) -> Value {
        let mut jwk = match self {
            Self::Rsa(pair) => {
                let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": encode(modulus), "e": encode(exponent)})
            }
            Self::Ec(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        };
        let Value::Object(more) = more else {
            panic!("an object")
        };
        jwk.as_object_mut().expect("an object").extend(more);
        jwk
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let encoding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
            Self::Ec(pair, _) => pair
                .sign(&random, message)
                .expect("a signature")
                .as_ref()
                .to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, as they are.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn token_of(&self, header: &str, claims: &str) -> String {
        let algorithm = serde_json::from_str::<Value>(header)
            .ok()
            .and_then(|header| Some(header.get("alg")?.as_str()?.to_owned()))
            .unwrap_or_default();
        let message = format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()));
        let signature = self.sign(&algorithm, message.as_bytes());
        format!("{message}.{}", encode(&signature))
    }
}

/// One key of each kind, made once: RSA keys take their time.
pub(crate) struct Pairs {
    pub(crate) rsa: Pair,
    pub(crate) p256: Pair,
    pub(crate) p384: Pair,
    pub(crate) p521: Pair,
    pub(crate) ed: Pair,
    pub(crate) stranger: Pair,
}

pub(crate) fn pairs() -> &'static Pairs {
    static PAIRS: OnceLock<Pairs> = OnceLock::new();
    PAIRS.get_or_init(|| Pairs {
        rsa: Pair::rsa(),
        p256: Pair::ec("P-256"),
        p384: Pair::ec("P-384"),
        p521: Pair::ec("P-521"),
        ed: Pair::ed(),
        stranger: Pair::ed(),
    })
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// An issuer that lets pass all that this crate can verify.
pub(crate) fn issuer(name: &str, keys: KeySource) -> Issuer {
    let mut issuer = Issuer::new(name, keys, vec!["tidewire".into()]);
    issuer.algorithms = Algorithm::ALL.to_vec();
    issuer.tenants = Tenants::List(vec![tenant("north"), tenant("south")]);
    issuer.claims = vec!["patient".into()];
    issuer
}

pub(crate) fn tenant(name: &str) -> schemas::ids::TenantId {
    schemas::ids::TenantId::parse(name).expect("a tenant")
}

/// Claims that are accepted.
pub(crate) fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": "tidewire", "sub": "ann", "tenant": "north", "scope": "patient/*.rs openid",
        "patient": "1", "exp": NOW + 600, "nbf": NOW, "iat": NOW, "jti": "t1",
    })
}

pub(crate) fn principal(scopes: &[&str], claims: &[(&str, &str)]) -> crate::token::Principal {
    crate::token::Principal {
        issuer: ISSUER.into(),
        subject: "ann".into(),
        tenant: tenant("north"),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        claims: claims
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Arc::from(*value)))
            .collect(),
        token_id: None,
        issued_at_ms: Some(NOW_MS - 30_000),
        expires_at_ms: NOW_MS + 600_000,
        application: None,
        denials: Arc::default(),
    }
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017, A.1.1), DER.
fn rsa_numbers(der: &[u8]) -> (&[u8], &[u8]) {
    fn take(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, header) = match der[1] {
            0x81 => (usize::from(der[2]), 3),
            0x82 => (usize::from(der[2]) * 256 + usize::from(der[3]), 4),
            short => (usize::from(short), 2),
        };
        (&der[header..header + length], &der[header + length..])
    }
    let (sequence, _) = take(der);
    let (modulus, rest) = take(sequence);
    let (exponent, _) = take(rest);
    (modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent)
}
