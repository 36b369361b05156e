//! Signed outbound webhooks: **not built yet**. This crate marks their place in the house and holds no code.
//!
//! It stands beside `subscriptions`, above `auth` and `schemas`, and will import neither its sibling nor the gateway. It
//! will hold endpoints, the matching of events to endpoints, the durable store of what is owed, the ledger of settled
//! offsets, retries and signatures. A live reader is told when it falls behind and comes back with its cursor; a webhook
//! receiver cannot be asked to, so its deliveries are kept until they succeed. That difference is why the two are crates of
//! their own.
