//! An issuer's keys as they are now: fetched, kept until their stated age, fetched again when a token names a new one.
//!
//! One invariant: at most one fetch is under way and at most one starts in [`REFETCH_MIN`], however many tokens ask, and a
//! caller that goes away does not take the fetch with it. Keys are served until their stated age, never beyond. Knows
//! nothing of tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;
use url::Url;

use crate::egress::{Answer, Bounds, Client, EgressError};
use crate::keys::{BadKeys, KeySet};
use crate::strict;

/// Between the starts of two fetches. Unknown `kid`s are free to send: this bounds what they cost the issuer.
pub(crate) const REFETCH_MIN: Duration = Duration::from_secs(10);

/// How long keys are good where the issuer says nothing.
const AGE_DEFAULT: Duration = Duration::from_secs(3600);

/// How short and how long an issuer's `max-age` may make it. A day is how long a withdrawn key is believed at worst.
const AGE_MIN: Duration = REFETCH_MIN;
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// One fetch: a discovery document or a set, from the call to the last byte.
const BOUNDS: Bounds = Bounds {
    deadline: Duration::from_secs(5),
    body_bytes_max: 512 * 1024,
};

/// Keys, and until when they are good.
pub(crate) struct Current {
    pub(crate) set: KeySet,
    /// `None`: as long as the process (inline keys).
    good_until: Option<Instant>,
    fetched_at: Instant,
}

/// One issuer's keys.
pub(crate) struct Keyring {
    issuer: Arc<str>,
    current: Arc<ArcSwapOption<Current>>,
    remote: Option<Remote>,
}

struct Remote {
    place: Place,
    http: Client,
    fetching: Mutex<Fetching>,
}

/// Where the set is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Here.
    Set(Url),
    /// Where the discovery document says.
    Discovery(Url),
}

#[derive(Default)]
struct Fetching {
    started_at: Option<Instant>,
    flight: Option<Shared<BoxFuture<'static, ()>>>,
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum BadFetch {
    #[error("cannot fetch {what}")]
    Egress { what: &'static str, source: EgressError },
    #[error("{what} was answered with the status {status}")]
    Status { what: &'static str, status: u16 },
    #[error("the discovery document is no JSON object")]
    Document,
    #[error("the discovery document names another issuer")]
    Issuer,
    #[error("the discovery document has no `jwks_uri` that is a URL")]
    Uri,
    #[error(transparent)]
    Keys(#[from] BadKeys),
}

impl Keyring {
    /// Keys that never change.
    pub(crate) fn inline(issuer: Arc<str>, set: KeySet) -> Self {
        let current = Current {
            set,
            good_until: None,
            fetched_at: Instant::now(),
        };
        Self {
            issuer,
            current: Arc::new(ArcSwapOption::from_pointee(current)),
            remote: None,
        }
    }

    /// Keys that will be fetched.
    pub(crate) fn remote(issuer: Arc<str>, place: Place, http: Client) -> Self {
        let remote = Remote {
            place,
            http,
            fetching: Mutex::default(),
        };
        Self {
            issuer,
            current: Arc::default(),
            remote: Some(remote),
        }
    }

    /// The keys, if there are some that are not past their age.
    pub(crate) fn current(&self) -> Option<Arc<Current>> {
        self.current
            .load_full()
            .filter(|current| current.good_until.is_none_or(|until| Instant::now() < until))
    }

    /// The keys, fetched if need be.
    pub(crate) async fn ready(&self) -> Option<Arc<Current>> {
        if let Some(current) = self.current() {
            return Some(current);
        }
        self.fetch().await;
        self.current()
    }

    /// Keys that were fetched after `seen`, because something is not in it. `None` if there are none (yet).
    pub(crate) async fn newer(&self, seen: &Current) -> Option<Arc<Current>> {
        let newer = || {
            self.current()
                .filter(|current| current.fetched_at > seen.fetched_at)
        };
        if let Some(current) = newer() {
            return Some(current);
        }
        self.fetch().await;
        newer()
    }

    /// Fetches ahead of the keys' age, for ever.
    pub(crate) async fn keep_fresh(&self) {
        if self.remote.is_none() {
            return std::future::pending().await;
        }
        loop {
            let due = match self.current.load_full() {
                // Three quarters of the way there is time for several tries.
                Some(current) => current.good_until.map(|until| {
                    let age = until - current.fetched_at;
                    current.fetched_at + age.mul_f64(0.75)
                }),
                None => None,
            };
            match due {
                Some(due) if due > Instant::now() => tokio::time::sleep_until(due).await,
                _ => {
                    let before = self.current.load_full().map(|current| current.fetched_at);
                    self.fetch().await;
                    if self.current.load_full().map(|current| current.fetched_at) == before {
                        tokio::time::sleep(REFETCH_MIN).await;
                    }
                }
            }
        }
    }

    /// Joins the fetch that is under way or starts one; returns at once where none may start. Cancel safe: a fetch whose
    /// callers are all gone waits for the next one.
    async fn fetch(&self) {
        if let Some(flight) = self.flight() {
            flight.await;
        }
    }

    fn flight(&self) -> Option<Shared<BoxFuture<'static, ()>>> {
        let remote = self.remote.as_ref()?;
        let mut fetching = remote.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = fetching.flight.take_if(|flight| flight.peek().is_some()) {
            drop(flight);
        }
        if let Some(flight) = &fetching.flight {
            return Some(flight.clone());
        }
        if fetching.started_at.is_some_and(|at| at.elapsed() < REFETCH_MIN) {
            return None;
        }
        fetching.started_at = Some(Instant::now());
        let flight = fetch_into(
            Arc::clone(&self.issuer),
            remote.place.clone(),
            remote.http.clone(),
            Arc::clone(&self.current),
        )
        .boxed()
        .shared();
        fetching.flight = Some(flight.clone());
        Some(flight)
    }
}

async fn fetch_into(issuer: Arc<str>, place: Place, http: Client, current: Arc<ArcSwapOption<Current>>) {
    match fetch(&issuer, place, &http).await {
        Ok((set, age)) => {
            let fetched_at = Instant::now();
            tracing::info!(%issuer, keys = set.usable(), age_s = age.as_secs(), "fetched the issuer's keys");
            current.store(Some(Arc::new(Current {
                set,
                good_until: Some(fetched_at + age),
                fetched_at,
            })));
        }
        Err(error) => {
            tracing::warn!(%issuer, error = %Chain(&error), "the issuer's keys cannot be fetched");
        }
    }
}

async fn fetch(issuer: &str, place: Place, http: &Client) -> Result<(KeySet, Duration), BadFetch> {
    let set = match place {
        Place::Set(set) => set,
        Place::Discovery(document) => {
            let answer = get(http, &document, "the discovery document").await?;
            let document = strict::object(&answer.body).map_err(|_| BadFetch::Document)?;
            if document.get("issuer").and_then(serde_json::Value::as_str) != Some(issuer) {
                return Err(BadFetch::Issuer);
            }
            let uri = document.get("jwks_uri").and_then(serde_json::Value::as_str);
            uri.and_then(|uri| Url::parse(uri).ok()).ok_or(BadFetch::Uri)?
        }
    };
    let answer = get(http, &set, "the JWK set").await?;
    let age = age(answer.cache_control.as_deref());
    Ok((KeySet::parse(&answer.body)?, age))
}

async fn get(http: &Client, url: &Url, what: &'static str) -> Result<Answer, BadFetch> {
    let answer = http
        .get(url, BOUNDS)
        .await
        .map_err(|source| BadFetch::Egress { what, source })?;
    if answer.status == 200 {
        Ok(answer)
    } else {
        Err(BadFetch::Status {
            what,
            status: answer.status,
        })
    }
}

/// RFC 9111, section 5.2.2, as far as it says how long an answer is fresh.
fn age(cache_control: Option<&str>) -> Duration {
    let mut age = AGE_DEFAULT;
    for directive in cache_control.unwrap_or_default().split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return AGE_MIN,
            "max-age" => {
                if let Ok(seconds) = value.trim().trim_matches('"').parse() {
                    age = Duration::from_secs(seconds);
                }
            }
            _ => {}
        }
    }
    age.clamp(AGE_MIN, AGE_MAX)
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
