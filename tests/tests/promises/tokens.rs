//! Who may read, and until when: bad tokens, rotation, expiry, renewal, tickets, sealed cursors.

mod cursors;
mod keys;
mod refused;
mod renewal;
mod tickets;
