//! Texts sealed with rotatable keys: AES-256-GCM, a key id in front, the purpose authenticated.
//!
//! One invariant: what opens was sealed here or on a node with the same keys, for the same purpose, and not altered.
//! Knows nothing of what is sealed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};

use crate::strict;

/// The shortest key text.
const KEY_BYTES_MIN: usize = 32;

const ID_LEN: usize = 4;

/// A key that cannot seal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// There is none.
    #[error("no key is given")]
    None,
    /// Shorter than 32 bytes.
    #[error("key {place} is shorter than {KEY_BYTES_MIN} bytes")]
    Short {
        /// Which one, from 1.
        place: usize,
    },
    /// The same as another one.
    #[error("key {place} is given twice")]
    Twice {
        /// Which one, from 1.
        place: usize,
    },
}

/// Bytes of [`Seal::single`]'s key: its id, and the cipher's key.
pub const SINGLE_BYTES: usize = ID_LEN + 32;

/// Seals with its first key and opens with all. Cheap to keep, not to make.
pub struct Seal {
    /// At least one.
    keys: Vec<Key>,
}

struct Key {
    id: [u8; ID_LEN],
    aead: LessSafeKey,
    /// Makes the nonces of [`Seal::seal_same`].
    nonces: hmac::Key,
}

impl Seal {
    /// For many small texts, under keys of their own that follow from these: what is sealed by the million is kept apart from
    /// what is sealed seldom, so that it cannot wear out the keys of the latter.
    pub fn apart(keys: &[SecretString], what: &str) -> Result<Self, BadKey> {
        // Judged as they are: a prefix would make short ones long.
        Self::new(keys)?;
        let apart = keys
            .iter()
            .map(|key| SecretString::from(format!("{what}\0{}", key.expose_secret())));
        Self::new(&apart.collect::<Vec<_>>())
    }

    /// With these key texts, each of 32 bytes or more; the first one seals.
    pub fn new(keys: &[SecretString]) -> Result<Self, BadKey> {
        let mut derived: Vec<Key> = Vec::with_capacity(keys.len());
        for (place, key) in (1..).zip(keys) {
            let text = key.expose_secret();
            if text.len() < KEY_BYTES_MIN {
                return Err(BadKey::Short { place });
            }
            let key = Key::derive(text);
            if derived.iter().any(|other| other.id == key.id) {
                return Err(BadKey::Twice { place });
            }
            derived.push(key);
        }
        if derived.is_empty() {
            Err(BadKey::None)
        } else {
            Ok(Self { keys: derived })
        }
    }

    /// With one key that somebody keeps elsewhere: random bytes, the first four of which are its id.
    #[must_use]
    pub fn single(bytes: &[u8; SINGLE_BYTES]) -> Self {
        let (id, key) = bytes.split_at(ID_LEN);
        let nonces = nonces(&Salt::new(HKDF_SHA256, b"tidewire.auth.seal.single").extract(key));
        let key = UnboundKey::new(&AES_256_GCM, key).expect("seal: the key has the cipher's length");
        let id = id.try_into().expect("seal: the id has its length");
        let aead = LessSafeKey::new(key);
        Self {
            keys: vec![Key { id, aead, nonces }],
        }
    }

    /// URL-safe base64 of what [`Seal::seal_bytes`] gives.
    pub(crate) fn seal(&self, purpose: &[u8], content: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.seal_bytes(purpose, content))
    }

    /// Opens what [`Seal::seal`] gave.
    pub(crate) fn open(&self, purpose: &[u8], text: &str) -> Option<Vec<u8>> {
        self.open_bytes(purpose, &strict::base64(text)?)
    }

    /// Key id, nonce, ciphertext with its tag. What is opened for another purpose does not open.
    #[must_use]
    pub fn seal_bytes(&self, purpose: &[u8], content: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        // 96 random bits: after 2^32 texts under one key a repetition has a chance of 2^-33.
        rand::fill(&mut nonce).expect("seal: the source of random numbers does not fail once it is open");
        self.seal_with(nonce, purpose, content)
    }

    /// The same, but equal contents give equal texts, and nothing random is needed: the nonce follows from purpose and
    /// content (as in RFC 5297, by a keyed hash). After 2^40 texts under one key two different ones share a nonce with a
    /// chance of 2^-17, and then tell how they differ: for what is no great secret, under keys that are [`Seal::apart`].
    #[must_use]
    pub fn seal_same(&self, purpose: &[u8], content: &[u8]) -> Vec<u8> {
        let mut hash = hmac::Context::with_key(&self.keys[0].nonces);
        hash.update(&u64::try_from(purpose.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(purpose);
        hash.update(content);
        let hash = hash.sign();
        let nonce = hash
            .as_ref()
            .first_chunk()
            .expect("seal: a hash is longer than a nonce");
        self.seal_with(*nonce, purpose, content)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], purpose: &[u8], content: &[u8]) -> Vec<u8> {
        let key = &self.keys[0];
        let mut sealed = content.to_vec();
        key.aead
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose),
                &mut sealed,
            )
            .expect("seal: texts are far shorter than the cipher's limit");
        [key.id.as_slice(), &nonce, &sealed].concat()
    }

    /// Opens what [`Seal::seal_bytes`] gave for the same purpose, with any of the keys.
    #[must_use]
    pub fn open_bytes(&self, purpose: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = bytes.split_first_chunk::<ID_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.id == *id)?;
        let mut content = sealed.to_vec();
        let length = key
            .aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(purpose),
                &mut content,
            )
            .ok()?
            .len();
        content.truncate(length);
        Some(content)
    }
}

impl Key {
    fn derive(text: &str) -> Self {
        let secret = Salt::new(HKDF_SHA256, b"tidewire.auth.seal").extract(text.as_bytes());
        let expand = |purpose: &[u8], out: &mut [u8]| {
            secret
                .expand(&[purpose], Length(out.len()))
                .and_then(|okm| okm.fill(out))
                .expect("seal: the lengths are those of the cipher");
        };
        let (mut id, mut bytes) = ([0; ID_LEN], [0; 32]);
        expand(b"id", &mut id);
        expand(b"key", &mut bytes);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("seal: the key has the cipher's length");
        Self {
            id,
            aead: LessSafeKey::new(key),
            nonces: nonces(&secret),
        }
    }
}

/// The key that makes nonces, apart from the cipher's.
fn nonces(secret: &Prk) -> hmac::Key {
    let mut bytes = [0; 32];
    secret
        .expand(&[b"nonce"], Length(bytes.len()))
        .and_then(|okm| okm.fill(&mut bytes))
        .expect("seal: the length is that of the hash");
    hmac::Key::new(hmac::HMAC_SHA256, &bytes)
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_seal_are_refused() {
        let key = |letter: &str, length| SecretString::from(letter.repeat(length));
        let refused = |keys: &[SecretString]| Seal::new(keys).err();
        assert_eq!(refused(&[]), Some(BadKey::None));
        assert_eq!(
            refused(&[key("a", 32), key("b", 31)]),
            Some(BadKey::Short { place: 2 })
        );
        assert_eq!(
            refused(&[key("a", 32), key("a", 32)]),
            Some(BadKey::Twice { place: 2 })
        );
        assert_eq!(refused(&[key("a", 32), key("b", 32)]), None);
    }

    #[test]
    fn a_text_opens_for_its_purpose_only_and_is_sealed_anew_each_time() {
        let seal = Seal::new(&[SecretString::from("k".repeat(40))]).expect("a good key");
        let text = seal.seal(b"one", b"content");
        assert_eq!(seal.open(b"one", &text).as_deref(), Some(b"content".as_slice()));
        assert_eq!(seal.open(b"two", &text), None);
        assert_ne!(seal.seal(b"one", b"content"), text);
        assert_eq!(
            seal.open(b"one", &seal.seal(b"one", b"")).as_deref(),
            Some(b"".as_slice())
        );
    }

    #[test]
    fn what_is_sealed_to_be_the_same_is_and_tells_nothing_else() {
        let keys = [SecretString::from("k".repeat(40))];
        let (seal, apart) = (
            Seal::new(&keys).expect("a good key"),
            Seal::apart(&keys, "positions").expect("a good key"),
        );
        let same = apart.seal_same(b"one", b"content");
        assert_eq!(apart.seal_same(b"one", b"content"), same);
        assert_eq!(
            apart.open_bytes(b"one", &same).as_deref(),
            Some(b"content".as_slice())
        );
        assert_eq!(apart.open_bytes(b"two", &same), None);
        assert_eq!(seal.open_bytes(b"one", &same), None, "keys of its own");
        // Another purpose or content: another nonce, wherever one ends and the other begins.
        let nonces: std::collections::BTreeSet<Vec<u8>> = [
            (b"one".as_slice(), b"content".as_slice()),
            (b"onec", b"ontent"),
            (b"on", b"econtent"),
            (b"one", b""),
        ]
        .into_iter()
        .map(|(purpose, content)| {
            let sealed = apart.seal_same(purpose, content);
            sealed.get(ID_LEN..ID_LEN + NONCE_LEN).expect("a nonce").to_vec()
        })
        .collect();
        assert_eq!(nonces.len(), 4);
        let short = [SecretString::from("k".repeat(31))];
        assert!(
            Seal::apart(&short, "positions").is_err(),
            "a prefix makes no key longer"
        );
    }
}
