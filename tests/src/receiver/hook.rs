//! One endpoint as its receiver sees it: what arrived, when, and whether it was signed as it should be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::answer::{Answer, Asked, Behaviour};
use super::request::{Event, Request};
use crate::issuer::now_s;

/// How far a signature's time may be from ours (Standard Webhooks: 300 s).
const TOLERANCE_S: u64 = 300;

/// What is remembered at most: requests, and faults in words.
const ARRIVALS_MAX: usize = 2_000_000;
const FAULTS_MAX: usize = 16;

/// One request, as far as it is remembered.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// `webhook-id`.
    pub id: Arc<str>,
    /// `tidewire-attempt`.
    pub number: u32,
    /// What it was about, if its body told.
    pub event: Option<Event>,
    /// When.
    pub at: Instant,
    /// Whether the sender was told that it was taken.
    pub accepted: bool,
    /// The beginning of the body's SHA-256.
    pub digest: u64,
}

/// One path of a receiver.
#[derive(Debug)]
pub struct Hook {
    /// Where it is.
    pub url: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    secrets: Vec<Vec<u8>>,
    arrivals: Vec<Arrival>,
    /// How often each id came, and whether it was taken.
    ids: HashMap<Arc<str>, (u32, bool)>,
    /// How many ids were taken.
    taken: usize,
    kept: Vec<Request>,
    keep: usize,
    handshakes: Vec<Request>,
    consents: bool,
    faults: Vec<String>,
    count: usize,
}

impl Hook {
    pub(super) fn new(url: String, behaviour: Behaviour) -> Self {
        let state = State {
            behaviour,
            secrets: Vec::new(),
            arrivals: Vec::new(),
            ids: HashMap::new(),
            taken: 0,
            kept: Vec::new(),
            keep: 0,
            handshakes: Vec::new(),
            consents: true,
            faults: Vec::new(),
            count: 0,
        };
        Self {
            url,
            state: Mutex::new(state),
        }
    }

    /// Knows this secret (`whsec_...`) too: from now on each request has to be signed with one that is known.
    pub fn know(&self, secret: &str) {
        let encoded = secret
            .strip_prefix("whsec_")
            .expect("hook: a secret has its prefix");
        let key = STANDARD.decode(encoded).expect("hook: a secret is base64");
        self.state().secrets.push(key);
    }

    /// Forgets all secrets.
    pub fn forget(&self) {
        self.state().secrets.clear();
    }

    /// Behaves like this from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state().behaviour = behaviour;
    }

    /// Keeps the next requests whole, so many of them.
    pub fn keep(&self, count: usize) {
        let mut state = self.state();
        state.kept.clear();
        state.keep = count;
    }

    /// What was kept whole.
    #[must_use]
    pub fn kept(&self) -> Vec<Request> {
        self.state().kept.clone()
    }

    /// Whether it agrees to be called when it is asked (CloudEvents' abuse protection).
    pub fn consents(&self, consents: bool) {
        self.state().consents = consents;
    }

    /// The handshakes that came.
    #[must_use]
    pub fn handshakes(&self) -> Vec<Request> {
        self.state().handshakes.clone()
    }

    /// Everything that came, in order.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.state().arrivals.clone()
    }

    /// How many requests came.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state().count
    }

    /// How many different deliveries were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    /// What was wrong with requests, in words; the first few.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    /// Forgets what came.
    pub fn clear(&self) {
        let mut state = self.state();
        state.arrivals.clear();
        state.ids.clear();
        state.kept.clear();
        (state.taken, state.count) = (0, 0);
    }

    /// The answer to a handshake.
    pub(super) fn consent(&self, request: &Request) -> String {
        let mut state = self.state();
        state.handshakes.push(request.clone());
        if state.consents {
            let origin = request.header("webhook-request-origin");
            format!(
                "HTTP/1.1 200 OK\r\nallow: POST\r\nwebhook-allowed-origin: {origin}\r\nwebhook-allowed-rate: *\r\n\
                 content-length: 0\r\n\r\n"
            )
        } else {
            "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
    }

    /// Records a request, and decides.
    pub(super) fn take(&self, request: Request) -> Answer {
        let at = Instant::now();
        let event = request.event();
        let body = digest::digest(&digest::SHA256, &request.body);
        let digest = body.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes);
        let number = request.header("tidewire-attempt").parse().unwrap_or(0);
        let mut state = self.state();
        if let Err(fault) = verify(&request, &state.secrets) {
            state.fault(fault);
        }
        let id = request.header("webhook-id");
        let id = match state.ids.get_key_value(id) {
            Some((id, _)) => Arc::clone(id),
            None => Arc::from(id),
        };
        state.count += 1;
        let nth = state.ids.get(&id).map_or(0, |(count, _)| *count) + 1;
        let asked = Asked {
            id: &id,
            number,
            nth,
            count: state.count,
            event,
        };
        let answer = state.behaviour.decide(&asked);
        let accepted = answer.accepts();
        let was_taken = state.ids.get(&id).is_some_and(|(_, taken)| *taken);
        state.taken += usize::from(accepted && !was_taken);
        state.ids.insert(Arc::clone(&id), (nth, was_taken || accepted));
        if state.arrivals.len() < ARRIVALS_MAX {
            state.arrivals.push(Arrival {
                id,
                number,
                event,
                at,
                accepted,
                digest,
            });
        } else {
            state.fault("more requests came than are remembered".to_owned());
        }
        if state.kept.len() < state.keep {
            state.kept.push(request);
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// Standard Webhooks, `v1`: HMAC-SHA256 over `id.timestamp.body`, one of the list by one of the keys.
fn verify(request: &Request, secrets: &[Vec<u8>]) -> Result<(), String> {
    if secrets.is_empty() {
        return Ok(());
    }
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    if id.is_empty() || id.contains('.') {
        return Err(format!("webhook-id: {id:?}"));
    }
    let age_s = timestamp.parse::<u64>().map(|then| now_s().abs_diff(then));
    if age_s.is_ok_and(|age_s| age_s > TOLERANCE_S) || timestamp.parse::<u64>().is_err() {
        return Err(format!("{id}: webhook-timestamp: {timestamp:?}"));
    }
    let signed = [format!("{id}.{timestamp}.").as_bytes(), &request.body].concat();
    let given = request.header("webhook-signature").split(' ');
    let given: Vec<Vec<u8>> = given
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok())
        .collect();
    let good = secrets.iter().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        given
            .iter()
            .any(|signature| hmac::verify(&key, &signed, signature).is_ok())
    });
    if good {
        Ok(())
    } else {
        Err(format!(
            "{id}: webhook-signature: {:?}",
            request.header("webhook-signature")
        ))
    }
}
