//! Waiting on conditions, with a deadline that fails.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

/// How long a condition may take on a busy two-core machine before the promise counts as broken.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until the condition gives a value.
pub async fn until<T, F>(what: impl Display, mut condition: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {DEADLINE:?} for {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the condition holds.
pub async fn until_true(what: impl Display, mut condition: impl FnMut() -> bool) -> Result<()> {
    until(what, || std::future::ready(condition().then_some(()))).await
}

/// Waits until a count reaches what is wanted, for as long as it grows: the deadline is for standing still.
pub async fn until_count(what: impl Display, wanted: usize, mut count: impl FnMut() -> usize) -> Result<()> {
    let mut last = (count(), Instant::now());
    while last.0 < wanted {
        if last.1.elapsed() >= DEADLINE {
            bail!("{what}: {} of {wanted}, and no more for {DEADLINE:?}", last.0);
        }
        tokio::time::sleep(LOOK).await;
        let now = count();
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(())
}

/// Gives a future until the deadline.
pub async fn within<T>(what: impl Display, future: impl Future<Output = T>) -> Result<T> {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => Ok(value),
        Err(_) => bail!("waited {DEADLINE:?} for {what}"),
    }
}
