//! Tokens made by hand, good and bad: keys, headers and claims are whatever a promise needs.
//!
//! Signs with the primitives alone, so that a fault in the product's JWT library is not hidden by using the same one.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A private key, and by which id its public half is published.
pub struct Key {
    /// The key's id.
    pub kid: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ec(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair),
}

impl Key {
    /// A new Ed25519 key.
    #[must_use]
    pub fn ed25519(kid: &str) -> Self {
        let pair = Ed25519KeyPair::generate().expect("jws: keys can be made");
        Self {
            kid: kid.to_owned(),
            pair: Pair::Ed25519(pair),
        }
    }

    /// A new key on P-256, P-384 or P-521.
    #[must_use]
    pub fn ec(kid: &str, curve: &'static str) -> Self {
        let algorithm = match curve {
            "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
            "P-384" => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &ECDSA_P521_SHA512_FIXED_SIGNING,
        };
        let pair = EcdsaKeyPair::generate(algorithm).expect("jws: keys can be made");
        Self {
            kid: kid.to_owned(),
            pair: Pair::Ec(pair, curve),
        }
    }

    /// A new RSA key of 2048 bits.
    #[must_use]
    pub fn rsa(kid: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("jws: keys can be made");
        Self {
            kid: kid.to_owned(),
            pair: Pair::Rsa(pair),
        }
    }

    /// The public half as a JWK, without `alg`: an RSA key may serve several.
    #[must_use]
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Ed25519(pair) => json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid,
                "x": encode(pair.public_key().as_ref()),
            }),
            Pair::Ec(pair, curve) => {
                let point = pair.public_key().as_ref();
                let half = point.len() / 2;
                let (x, y) = point
                    .get(1..)
                    .and_then(|point| point.split_at_checked(half))
                    .expect("jws: a point");
                json!({"kty": "EC", "crv": curve, "use": "sig", "kid": self.kid, "x": encode(x), "y": encode(y)})
            }
            Pair::Rsa(pair) => {
                let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "use": "sig", "kid": self.kid, "n": encode(&modulus), "e": encode(&exponent)})
            }
        }
    }

    /// The public half as DER (SubjectPublicKeyInfo), for attempts to use it as an HMAC secret.
    #[must_use]
    pub fn public_der(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair, _) => pair
                .public_key()
                .as_der()
                .map(|der| der.as_ref().to_vec())
                .expect("jws: a point"),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The algorithm that the key signs with unless told otherwise.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::Ec(_, "P-256") => "ES256",
            Pair::Ec(_, "P-384") => "ES384",
            Pair::Ec(..) => "ES512",
            Pair::Rsa(_) => "RS256",
        }
    }

    /// A token with this key's ordinary header.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(
            &json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid}),
            claims,
        )
    }

    /// A token with any header; the signature is made by the header's `alg` where the key can.
    #[must_use]
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = self.signature(header["alg"].as_str().unwrap_or_default(), signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Ec(pair, _) => pair.sign(&random, message).expect("jws: signs").as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .expect("jws: signs");
                signature
            }
        }
    }
}

/// A token signed with a shared secret.
#[must_use]
pub fn sign_hmac(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let algorithm = match header["alg"].as_str() {
        Some("HS384") => hmac::HMAC_SHA384,
        Some("HS512") => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", encode(tag.as_ref()))
}

/// URL-safe base64 without padding.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of a PKCS#1 `RSAPublicKey`: a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (sequence, _) = der_value(der, 0x30);
    let (modulus, rest) = der_value(sequence, 0x02);
    let (exponent, _) = der_value(rest, 0x02);
    let unsigned = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect();
    (unsigned(modulus), unsigned(exponent))
}

/// The content of the first value, which has this tag, and what follows it.
fn der_value(der: &[u8], tag: u8) -> (&[u8], &[u8]) {
    assert_eq!(der[0], tag, "jws: DER");
    let (length, start) = match der[1] {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let length = der[2..2 + bytes]
                .iter()
                .fold(0, |length, byte| (length << 8) | usize::from(*byte));
            (length, 2 + bytes)
        }
    };
    der[start..].split_at(length)
}
