//! The built-in issuer of the demo: one Ed25519 key in a file of its user's.
//!
//! One invariant: the key file is made whole, readable by its owner only, and never made twice, however many processes
//! start at once. Refusing it in production is the configuration's business.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas::ids::TenantId;
use serde_json::{Map, Value, json};
use ulid::Ulid;

use crate::issuer::{Algorithm, Issuer, KeySource, Tenants};

/// The `iss` of its tokens.
pub const ISSUER: &str = "urn:tidewire:development";

/// The `aud` of its tokens.
pub const AUDIENCE: &str = "tidewire";

/// Signs tokens for development. Cheap to clone.
#[derive(Clone)]
pub struct DevelopmentIssuer {
    key: Arc<Ed25519KeyPair>,
    kid: Arc<str>,
}

impl DevelopmentIssuer {
    /// Reads the key (PKCS#8), or makes one, with the folders above it, where there is none.
    ///
    /// Refuses a file that others may read (`PermissionDenied`) or that is no such key (`InvalidData`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path)?;
                fs::read(path)?
            }
            read => read?,
        };
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            let message = format!(
                "{} can be read by others; make it mode 0600 or remove it",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Self::from_pkcs8(&bytes).ok_or_else(|| {
            let message = format!(
                "{} is no Ed25519 key in PKCS#8; remove it to have a new one",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }

    /// An issuer whose key lives no longer than itself.
    pub fn ephemeral() -> io::Result<Self> {
        Self::from_pkcs8(&new_key()?).ok_or_else(|| io::Error::other("a new key cannot be read"))
    }

    fn from_pkcs8(bytes: &[u8]) -> Option<Self> {
        let key = Ed25519KeyPair::from_pkcs8(bytes).ok()?;
        // The RFC 7638 thumbprint: members in this order, no white space.
        let jwk = format!(
            r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
            base64(key.public_key().as_ref())
        );
        let kid = base64(digest::digest(&digest::SHA256, jwk.as_bytes()).as_ref());
        Some(Self {
            key: Arc::new(key),
            kid: kid.into(),
        })
    }

    /// Its public key as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> String {
        let x = base64(self.key.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": &*self.kid, "x": x}]})
            .to_string()
    }

    /// How an [`crate::token::Authenticator`] trusts it: any tenant, and these claims are passed through.
    #[must_use]
    pub fn trusted(&self, claims: &[&str]) -> Issuer {
        let mut issuer = Issuer::new(ISSUER, KeySource::Jwks(self.jwks()), vec![AUDIENCE.to_owned()]);
        issuer.algorithms = vec![Algorithm::EdDSA];
        issuer.tenants = Tenants::Any;
        issuer.claims = claims.iter().map(|claim| (*claim).to_owned()).collect();
        issuer
    }

    /// A signed token. `scopes` as in a token, separated by spaces. Claims never override what the issuer itself says.
    #[must_use]
    pub fn mint(
        &self,
        tenant: &TenantId,
        subject: &str,
        scopes: &str,
        claims: &BTreeMap<String, String>,
        ttl: Duration,
        now_ms: i64,
    ) -> String {
        let now = now_ms.div_euclid(1000);
        let expires = now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2000));
        let mut members: Map<String, Value> = claims
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        for (name, value) in [
            ("iss", Value::from(ISSUER)),
            ("aud", Value::from(AUDIENCE)),
            ("sub", Value::from(subject)),
            ("tenant", Value::from(tenant.as_str())),
            ("scope", Value::from(scopes)),
            ("iat", Value::from(now)),
            ("nbf", Value::from(now)),
            ("exp", Value::from(expires)),
            ("jti", Value::from(Ulid::generate().to_string())),
        ] {
            members.insert(name.to_owned(), value);
        }
        self.sign(&Value::Object(members))
    }

    /// A token with exactly these claims.
    fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": &*self.kid});
        let message = format!(
            "{}.{}",
            base64(header.to_string().as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let signature = self.key.sign(message.as_bytes());
        format!("{message}.{}", base64(signature.as_ref()))
    }
}

/// Makes the key file, unless another process is faster: then its file stays.
fn create(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Written whole beside its place; then a link gives it its name, which fails where the name is taken.
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", Ulid::generate()));
    let draft = PathBuf::from(draft);
    let made = write_new(&draft, &new_key()?).and_then(|()| fs::hard_link(&draft, path));
    let removed = fs::remove_file(&draft);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and(removed),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn new_key() -> io::Result<Vec<u8>> {
    Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| io::Error::other("no key can be made: the source of random numbers failed"))
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Authenticator;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn tenant() -> TenantId {
        TenantId::parse("north").expect("a tenant")
    }

    fn mint(issuer: &DevelopmentIssuer, claims: &[(&str, &str)]) -> String {
        let claims = claims
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        issuer.mint(
            &tenant(),
            "ann",
            "user/*.rs openid",
            &claims,
            Duration::from_secs(60),
            NOW_MS,
        )
    }

    #[tokio::test]
    async fn its_tokens_are_accepted_by_who_trusts_it() {
        let issuer = DevelopmentIssuer::ephemeral().expect("an issuer");
        let authenticator = Authenticator::new(vec![issuer.trusted(&["patient"])]).expect("trusted");
        assert!(authenticator.ready());
        let token = mint(
            &issuer,
            &[
                ("patient", "1"),
                ("other", "x"),
                ("tenant", "south"),
                ("iss", "y"),
            ],
        );
        let principal = authenticator.verify(&token, NOW_MS).await.expect("a good token");
        assert_eq!((&*principal.issuer, &*principal.subject), (ISSUER, "ann"));
        assert_eq!(principal.tenant, tenant());
        assert_eq!(principal.scopes, ["user/*.rs", "openid"]);
        assert_eq!(
            principal.claims,
            BTreeMap::from([("patient".to_owned(), Arc::from("1"))])
        );
        assert_eq!(principal.expires_at_ms, NOW_MS + 60_000);
        assert_eq!(principal.token_id.as_ref().map(|id| id.len()), Some(26));
    }

    #[test]
    fn the_key_stays_the_same_and_is_its_owners_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/tidewire/development.key");
        let first = DevelopmentIssuer::open(&path).expect("made");
        let again = DevelopmentIssuer::open(&path).expect("read");
        assert_eq!(first.jwks(), again.jwks());
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let parent = path.parent().expect("a folder");
        assert_eq!(mode(parent), 0o700);
        assert_eq!(
            fs::read_dir(parent).expect("a folder").count(),
            1,
            "no drafts are left"
        );
    }

    #[test]
    fn two_that_start_at_once_use_one_key() {
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..20 {
            let path = folder.path().join(format!("{round}/key"));
            let start = std::sync::Barrier::new(4);
            let sets: Vec<String> = std::thread::scope(|scope| {
                let open = || {
                    start.wait();
                    DevelopmentIssuer::open(&path).expect("a key").jwks()
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"))
                    .collect()
            });
            assert!(sets.iter().all(|set| *set == sets[0]));
        }
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        DevelopmentIssuer::open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        let error = DevelopmentIssuer::open(&path).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        fs::remove_file(&path).expect("removed");
        write_new(&path, b"not a key").expect("written");
        let error = DevelopmentIssuer::open(&path).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
