//! Keys as Standard Webhooks writes them: `whsec_` (a shared secret), `whsk_` and `whpk_` (an Ed25519 pair).
//!
//! Invariant: a secret leaves only through a function that says so, and `Debug` prints none.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

/// Bytes of a secret that we make.
const SECRET_BYTES: usize = 32;

/// Bytes of an Ed25519 seed.
const SEED_BYTES: usize = 32;

/// Why a text is no key. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// It does not begin with what it must.
    #[error("it does not begin with {0}")]
    Prefix(&'static str),
    /// It is not base64.
    #[error("it is not base64")]
    Base64,
    /// It is too short or too long.
    #[error("it does not have 24 to 64 bytes")]
    Length,
    /// The pair does not belong together, or it has another length.
    #[error("it is no Ed25519 key")]
    Pair,
    /// The machine has no random numbers.
    #[error("there are no random numbers")]
    Random,
}

/// A shared secret of 24 to 64 bytes.
#[derive(Clone)]
pub struct Secret {
    text: SecretString,
    key: hmac::Key,
}

/// An Ed25519 pair.
#[derive(Clone)]
pub struct Ed25519 {
    seed: SecretString,
    pair: Arc<Ed25519KeyPair>,
}

impl Secret {
    /// A new one, of 32 random bytes.
    pub fn generate() -> Result<Self, BadSecret> {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| BadSecret::Random)?;
        let text = SecretString::from(format!("whsec_{}", STANDARD.encode(bytes.as_slice())));
        Self::parse(&text)
    }

    /// Reads `whsec_` and base64 of 24 to 64 bytes.
    pub fn parse(text: &SecretString) -> Result<Self, BadSecret> {
        let encoded = text
            .expose_secret()
            .strip_prefix("whsec_")
            .ok_or(BadSecret::Prefix("whsec_"))?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?);
        if !(24..=64).contains(&bytes.len()) {
            return Err(BadSecret::Length);
        }
        Ok(Self {
            text: text.clone(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
        })
    }

    /// As it is shown once, and stored sealed.
    #[must_use]
    pub fn text(&self) -> &SecretString {
        &self.text
    }

    /// Base64 of HMAC-SHA256 over these parts, one behind the other.
    pub(super) fn sign(&self, parts: &[&[u8]]) -> String {
        let mut hash = hmac::Context::with_key(&self.key);
        for part in parts {
            hash.update(part);
        }
        STANDARD.encode(hash.sign())
    }
}

impl Ed25519 {
    /// A new pair.
    pub fn generate() -> Result<Self, BadSecret> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        rand::fill(seed.as_mut_slice()).map_err(|_| BadSecret::Random)?;
        Self::from_seed(seed.as_slice())
    }

    /// Reads `whsk_` and base64 of the seed, with or without the public key after it.
    pub fn parse(text: &SecretString) -> Result<Self, BadSecret> {
        let encoded = text
            .expose_secret()
            .strip_prefix("whsk_")
            .ok_or(BadSecret::Prefix("whsk_"))?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?);
        let Some((seed, public)) = bytes.split_at_checked(SEED_BYTES) else {
            return Err(BadSecret::Pair);
        };
        let pair = Self::from_seed(seed)?;
        if public.is_empty() || public == pair.public() {
            Ok(pair)
        } else {
            Err(BadSecret::Pair)
        }
    }

    /// The private key, `whsk_...`, as it is stored sealed.
    #[must_use]
    pub fn text(&self) -> &SecretString {
        &self.seed
    }

    /// The public key as receivers are given it: `whpk_...`.
    #[must_use]
    pub fn public_text(&self) -> String {
        format!("whpk_{}", STANDARD.encode(self.public()))
    }

    /// The public key, 32 bytes.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as a JWK (RFC 8037), its id the thumbprint (RFC 7638).
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        serde_json::json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.public()),
            "kid": self.key_id(),
            "alg": "EdDSA",
            "use": "sig",
        })
    }

    /// The JWK's thumbprint (RFC 7638, RFC 8037 appendix A.3).
    #[must_use]
    pub fn key_id(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.public());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, canonical.as_bytes());
        URL_SAFE_NO_PAD.encode(digest)
    }

    pub(super) fn sign_base64(&self, signed: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(signed))
    }

    /// Whether a signature in base64 is this pair's.
    #[must_use]
    pub fn verifies(&self, signed: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| {
            UnparsedPublicKey::new(&ED25519, self.public())
                .verify(signed, &signature)
                .is_ok()
        })
    }

    fn from_seed(seed: &[u8]) -> Result<Self, BadSecret> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadSecret::Pair)?;
        let whole = Zeroizing::new([seed, pair.public_key().as_ref()].concat());
        Ok(Self {
            seed: SecretString::from(format!("whsk_{}", STANDARD.encode(whole.as_slice()))),
            pair: Arc::new(pair),
        })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Debug for Ed25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519({})", self.public_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, BadSecret> {
        Secret::parse(&SecretString::from(text))
    }

    #[test]
    fn secrets_have_their_prefix_base64_and_24_to_64_bytes() {
        let of = |length: usize| secret(&format!("whsec_{}", STANDARD.encode(vec![7; length])));
        assert!(of(24).is_ok() && of(64).is_ok());
        assert_eq!(of(23).err(), Some(BadSecret::Length));
        assert_eq!(of(65).err(), Some(BadSecret::Length));
        assert_eq!(secret("whsk_AAAA").err(), Some(BadSecret::Prefix("whsec_")));
        assert_eq!(secret("whsec_not base64").err(), Some(BadSecret::Base64));
    }

    #[test]
    fn a_pair_is_read_back_and_one_that_does_not_belong_together_is_refused() {
        let pair = Ed25519::generate().expect("a key");
        let again = Ed25519::parse(pair.text()).expect("the same key");
        assert_eq!(pair.public(), again.public());
        let mut bytes = STANDARD
            .decode(pair.text().expose_secret().strip_prefix("whsk_").expect("a key"))
            .expect("base64");
        assert_eq!(bytes.len(), 64);
        bytes[63] ^= 1;
        let wrong = SecretString::from(format!("whsk_{}", STANDARD.encode(&bytes)));
        assert_eq!(Ed25519::parse(&wrong).err(), Some(BadSecret::Pair));
        let short = SecretString::from(format!("whsk_{}", STANDARD.encode(&bytes[..31])));
        assert_eq!(Ed25519::parse(&short).err(), Some(BadSecret::Pair));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let secret = Secret::generate().expect("a secret");
        let pair = Ed25519::generate().expect("a key");
        let printed = format!("{secret:?} {pair:?}");
        assert_eq!(printed, format!("Secret Ed25519({})", pair.public_text()));
    }

    /// RFC 8037, appendix A.1 to A.3.
    #[test]
    fn the_thumbprint_is_that_of_the_specification() {
        let seed = URL_SAFE_NO_PAD
            .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .expect("base64");
        let pair = Ed25519::from_seed(&seed).expect("a key");
        assert_eq!(pair.key_id(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(pair.jwk()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    }
}
