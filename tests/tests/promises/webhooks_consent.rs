//! What was allowed when it was parked and is not any more is dropped, on record.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::http;
use tidewire_tests::receiver::{Answer, Behaviour};
use tidewire_tests::wait;

use crate::webhooks_retries::Line;

/// Fails each delivery once, and is asked again seconds later.
async fn parked(name: &str) -> Result<Line> {
    let behaviour = Behaviour::by(|asked| {
        if asked.nth == 1 {
            Answer::Status(500)
        } else {
            Answer::Status(200)
        }
    });
    let more = json!({"retry_seconds": [4, 4], "concurrency": 4});
    let mut line = Line::new(name, behaviour, more, &[("breaker_failures", 1000)]).await?;
    // Of two patients, in turn.
    line.produce(6).await?;
    line.count(6).await?;
    Ok(line)
}

async fn dropped(line: &Line, count: usize) -> Result<Vec<Value>> {
    wait::until(format!("{count} drops on record"), || async {
        let attempts = line
            .partner
            .attempts(&format!("endpoint={}", line.made.id))
            .await
            .ok()?;
        let dropped: Vec<Value> = attempts
            .into_iter()
            .filter(|attempt| {
                attempt["outcome"]
                    .as_str()
                    .is_some_and(|word| word.contains("dropped"))
            })
            .collect();
        (dropped.len() >= count).then_some(dropped)
    })
    .await
    .with_context(|| line.gateway.log_tail())
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_withdrawn_between_park_and_retry_drops_what_is_queued_on_record() -> Result<()> {
    let line = parked("consent").await?;
    let denial = json!({"tenant": "north", "attribute": "patient", "value": "Patient/1"});
    let answer = http::post(line.gateway.admin(), "/admin/denials", &[], &denial).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    // Those of the other patient come; those of this one do not, and it is told why.
    line.taken(3).await?;
    let drops = dropped(&line, 3).await?;
    ensure!(drops.len() == 3, "{drops:?}");
    ensure!(drops.iter().all(|drop| drop["status"].is_null()), "{drops:?}");
    let taken: Vec<i64> = line
        .hook
        .arrivals()
        .iter()
        .filter(|arrival| arrival.accepted)
        .filter_map(|arrival| Some(arrival.event?.n))
        .collect();
    ensure!(
        line.hook.count() == 9 && taken.iter().all(|n| n % 2 == 1),
        "{taken:?} of {} requests",
        line.hook.count()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_of_an_owner_who_is_revoked_is_dropped_on_record() -> Result<()> {
    let mut line = parked("revoked").await?;
    let revocation = json!({"tenant": "north", "subject": "somebody"});
    let answer = http::post(line.gateway.admin(), "/admin/revocations", &[], &revocation).await?;
    ensure!(
        (200..300).contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
    // Whoever is revoked may not look either: a colleague does, and has an endpoint of their own.
    let token = line.world.issuer.token("north").subject("colleague");
    let scopes = "system/Observation.rs webhooks:read webhooks:write";
    line.partner.token = token.scopes(scopes).sign();
    dropped(&line, 6).await?;
    let witness = line.receiver.hook("witness", Behaviour::good());
    let more = json!({"content": "raw"});
    line.partner.hook(&witness, &["observations"], more).await?;
    line.produce(4).await?;
    wait::until_count("what comes to others", 4, || witness.taken()).await?;
    ensure!(line.hook.count() == 6, "{} requests came", line.hook.count());
    Ok(())
}
