//! How much a promise is tried, and by which dice. `TIDEWIRE_PROVE=1` asks for the full volumes; `TIDEWIRE_SEED` gives
//! the seed of a former run.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::OnceLock;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Whether the full volumes are asked for.
#[must_use]
pub fn proving() -> bool {
    std::env::var("TIDEWIRE_PROVE").is_ok_and(|value| value != "0" && !value.is_empty())
}

/// The volume for every day, or the full one.
#[must_use]
pub fn volume<T>(every_day: T, full: T) -> T {
    if proving() { full } else { every_day }
}

/// The seed of this run, said once.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = match std::env::var("TIDEWIRE_SEED") {
            Ok(text) => text.trim().parse().expect("TIDEWIRE_SEED is a number"),
            Err(_) => rand::random_range(1..1_000_000_000),
        };
        say(&format!(
            "TIDEWIRE_SEED={seed} TIDEWIRE_PROVE={}",
            u8::from(proving())
        ));
        seed
    })
}

/// The seed of one promise: the same whatever else runs beside it.
#[must_use]
pub fn seed_of(promise: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed(), promise).hash(&mut hasher);
    hasher.finish()
}

/// Dice for one promise.
#[must_use]
pub fn dice(promise: &str) -> StdRng {
    StdRng::seed_from_u64(seed_of(promise))
}

/// Tells a figure to whoever runs the promises, also where the test runner keeps output to itself.
pub fn say(figure: &str) {
    let mut stderr = std::io::stderr();
    if let Err(error) = writeln!(stderr, "[promises] {figure}") {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "stderr: {error}");
    }
}
