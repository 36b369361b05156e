//! An issuer's public keys: a JWK set (RFC 7517), read strictly, and the checking of signatures.
//!
//! One invariant: a signature is only ever checked with a key whose type, curve, length, purpose and own `alg` fit the
//! algorithm. A key that does not stays in the set with its reason, so that the refusal can say why. Knows nothing of
//! where the set came from.

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto;
use serde_json::{Map, Value};

use crate::issuer::Algorithm;
use crate::token::BadToken;
use crate::{reason, strict};

/// The most keys that a set may have.
const KEYS_MAX: usize = 100;

/// The public exponent is small in every key that anybody makes; a long one makes each check slow.
const EXPONENT_BYTES_MAX: usize = 8;

/// The shortest RSA modulus that is accepted, in bits (RFC 7518, sections 3.3 and 3.5).
const RSA_BITS_MIN: usize = 2048;

/// The longest RSA modulus that the library checks.
const RSA_BITS_MAX: usize = 8192;

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

/// Why a document is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKeys {
    #[error("the JWK set is no JSON object with a member `keys` that is a list")]
    Syntax,
    #[error("the JWK set has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("the JWK set has no key that could verify a signature")]
    NoneUsable,
}

/// One key of a set.
#[derive(Debug)]
pub(crate) struct Key {
    kid: Option<String>,
    algorithm: Option<String>,
    public: Result<Public, BadToken>,
}

enum Public {
    Rsa(DecodingKey),
    P256(DecodingKey),
    P384(DecodingKey),
    /// An uncompressed point; `jsonwebtoken` does not know this curve.
    P521(Vec<u8>),
    Ed25519(DecodingKey),
}

/// Public keys are no secret, but nobody wants to read them.
impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa(_) => "Rsa",
            Self::P256(_) => "P256",
            Self::P384(_) => "P384",
            Self::P521(_) => "P521",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl KeySet {
    /// Reads a set. Keys that cannot be used do not spoil the others.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadKeys> {
        let set = strict::object(text).map_err(|_| BadKeys::Syntax)?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(BadKeys::Syntax);
        };
        if keys.len() > KEYS_MAX {
            return Err(BadKeys::TooMany);
        }
        let keys: Vec<Key> = keys.iter().filter_map(Value::as_object).map(Key::read).collect();
        let set = Self { keys };
        if set.usable() == 0 {
            Err(BadKeys::NoneUsable)
        } else {
            Ok(set)
        }
    }

    /// How many keys could verify a signature.
    pub(crate) fn usable(&self) -> usize {
        self.keys.iter().filter(|key| key.public.is_ok()).count()
    }

    /// The one key for a token.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, BadToken> {
        let fitting = |key: &&Key| key.fits(algorithm).is_ok();
        let Some(kid) = kid else {
            let mut fitting = self.keys.iter().filter(fitting);
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Ok(only),
                _ => Err(reason::KID_REQUIRED),
            };
        };
        let named = || self.keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
        let mut fitting = named().filter(fitting);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(only),
            (Some(_), Some(_)) => Err(reason::KID_AMBIGUOUS),
            (None, _) => match named().next() {
                Some(other) => other.fits(algorithm).and(Err(reason::KEY_TYPE)),
                None => Err(reason::KID_UNKNOWN),
            },
        }
    }
}

impl Key {
    fn read(jwk: &Map<String, Value>) -> Self {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            kid: text("kid"),
            algorithm: text("alg"),
            public: Public::read(jwk),
        }
    }

    fn fits(&self, algorithm: Algorithm) -> Result<(), BadToken> {
        let public = self.public.as_ref().map_err(Clone::clone)?;
        if self
            .algorithm
            .as_ref()
            .is_some_and(|own| own != algorithm.as_str())
        {
            return Err(reason::KEY_ALG);
        }
        use Algorithm as A;
        match (algorithm, public) {
            (A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512, Public::Rsa(_))
            | (A::ES256, Public::P256(_))
            | (A::ES384, Public::P384(_))
            | (A::ES512, Public::P521(_))
            | (A::EdDSA, Public::Ed25519(_)) => Ok(()),
            (A::ES256 | A::ES384 | A::ES512, Public::P256(_) | Public::P384(_) | Public::P521(_)) => {
                Err(reason::KEY_CURVE)
            }
            _ => Err(reason::KEY_TYPE),
        }
    }

    /// Checks a signature over `message`. The key must come from [`KeySet::find`] for this algorithm.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &str,
    ) -> Result<(), BadToken> {
        self.fits(algorithm)?;
        let good = match self.public.as_ref().map_err(Clone::clone)? {
            Public::P521(point) => strict::base64(signature).is_some_and(|signature| {
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point)
                    .verify(message, &signature)
                    .is_ok()
            }),
            Public::Rsa(key) | Public::P256(key) | Public::P384(key) | Public::Ed25519(key) => {
                let algorithm = of_the_library(algorithm).ok_or(reason::ALG_UNKNOWN)?;
                crypto::verify(signature, message, key, algorithm).unwrap_or(false)
            }
        };
        if good { Ok(()) } else { Err(reason::SIGNATURE) }
    }
}

impl Public {
    fn read(jwk: &Map<String, Value>) -> Result<Self, BadToken> {
        for_verifying(jwk)?;
        match jwk.get("kty").and_then(Value::as_str) {
            Some("RSA") => rsa(jwk),
            Some("EC") => elliptic(jwk),
            Some("OKP") => edwards(jwk),
            // `oct` is a shared secret, and the rest is not known.
            _ => Err(reason::KEY_TYPE),
        }
    }
}

/// RFC 7517, sections 4.2 and 4.3. A set that publishes private parts gave its keys away.
fn for_verifying(jwk: &Map<String, Value>) -> Result<(), BadToken> {
    if jwk.contains_key("d") || jwk.contains_key("k") {
        return Err(reason::KEY_MALFORMED);
    }
    if jwk.get("use").is_some_and(|value| value.as_str() != Some("sig")) {
        return Err(reason::KEY_USE);
    }
    let Some(operations) = jwk.get("key_ops") else {
        return Ok(());
    };
    match operations.as_array() {
        Some(list) if list.iter().any(|value| value.as_str() == Some("verify")) => Ok(()),
        _ => Err(reason::KEY_USE),
    }
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, BadToken> {
    jwk.get(name)
        .and_then(Value::as_str)
        .and_then(strict::base64)
        .ok_or(reason::KEY_MALFORMED)
}

fn rsa(jwk: &Map<String, Value>) -> Result<Public, BadToken> {
    let unsigned = |mut bytes: Vec<u8>| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.drain(..zeros);
        bytes
    };
    let modulus = unsigned(bytes(jwk, "n")?);
    let exponent = unsigned(bytes(jwk, "e")?);
    let first = modulus.first().ok_or(reason::KEY_MALFORMED)?;
    let bits =
        modulus.len() * 8 - usize::try_from(first.leading_zeros()).map_err(|_| reason::KEY_MALFORMED)?;
    if bits < RSA_BITS_MIN {
        return Err(reason::KEY_SHORT);
    }
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    if bits > RSA_BITS_MAX
        || !odd(&modulus)
        || !odd(&exponent)
        || exponent == [1]
        || exponent.len() > EXPONENT_BYTES_MAX
    {
        return Err(reason::KEY_MALFORMED);
    }
    Ok(Public::Rsa(DecodingKey::from_rsa_raw_components(
        &modulus, &exponent,
    )))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<Public, BadToken> {
    let curve = jwk.get("crv").and_then(Value::as_str);
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    let coordinate = match curve {
        Some("P-256") => 32,
        Some("P-384") => 48,
        Some("P-521") => 66,
        _ => return Err(reason::KEY_CURVE),
    };
    if x.len() != coordinate || y.len() != coordinate {
        return Err(reason::KEY_MALFORMED);
    }
    // `from_ec_der` takes the bare point, its name notwithstanding; so does `from_ed_der` below.
    let point = [vec![4], x, y].concat();
    Ok(match coordinate {
        32 => Public::P256(DecodingKey::from_ec_der(&point)),
        48 => Public::P384(DecodingKey::from_ec_der(&point)),
        _ => Public::P521(point),
    })
}

fn edwards(jwk: &Map<String, Value>) -> Result<Public, BadToken> {
    if jwk.get("crv").and_then(Value::as_str) != Some("Ed25519") {
        return Err(reason::KEY_CURVE);
    }
    let point = bytes(jwk, "x")?;
    if point.len() != 32 {
        return Err(reason::KEY_MALFORMED);
    }
    Ok(Public::Ed25519(DecodingKey::from_ed_der(&point)))
}

fn of_the_library(algorithm: Algorithm) -> Option<jsonwebtoken::Algorithm> {
    use jsonwebtoken::Algorithm as Theirs;
    match algorithm {
        Algorithm::RS256 => Some(Theirs::RS256),
        Algorithm::RS384 => Some(Theirs::RS384),
        Algorithm::RS512 => Some(Theirs::RS512),
        Algorithm::PS256 => Some(Theirs::PS256),
        Algorithm::PS384 => Some(Theirs::PS384),
        Algorithm::PS512 => Some(Theirs::PS512),
        Algorithm::ES256 => Some(Theirs::ES256),
        Algorithm::ES384 => Some(Theirs::ES384),
        Algorithm::ES512 => None,
        Algorithm::EdDSA => Some(Theirs::EdDSA),
    }
}
