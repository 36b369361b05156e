//! Random nonces. Asking the generator costs more than sealing a cursor does, so each thread asks for many at a time.

use std::cell::RefCell;

use aws_lc_rs::aead::{NONCE_LEN, Nonce};
use aws_lc_rs::rand;

/// 40 nonces are 480 bytes a thread; the cost of asking is then a few nanoseconds each.
const BATCH: usize = 40;

struct Batch {
    bytes: [u8; BATCH * NONCE_LEN],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Batch> = const { RefCell::new(Batch { bytes: [0; BATCH * NONCE_LEN], used: BATCH * NONCE_LEN }) };
}

/// A nonce that was never given out before, but for a chance that AES-GCM-SIV forgives (RFC 8452, section 9).
pub(super) fn random() -> Nonce {
    RANDOM.with_borrow_mut(|batch| {
        if batch.used == batch.bytes.len() {
            rand::fill(&mut batch.bytes).expect("cursor: the system gives random bytes");
            batch.used = 0;
        }
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&batch.bytes[batch.used..][..NONCE_LEN]);
        batch.used += NONCE_LEN;
        Nonce::assume_unique_for_key(nonce)
    })
}
