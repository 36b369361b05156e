//! Sealed cursors of others.

use anyhow::{Context, Result, ensure};
use tidewire_tests::contract;
use tidewire_tests::plan;
use tidewire_tests::reader::{Reader, Surface, Want};
use tidewire_tests::volume::dice;

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_tenant_stream_or_key_is_refused() -> Result<()> {
    let world = World::new().await?;
    let (one, two) = (
        world.topic("sealed-one", 1).await?,
        world.topic("sealed-two", 1).await?,
    );
    let streams = format!(
        "{}{}",
        contract::observations(&[&one]),
        contract::stream("others", &[&two])
    );
    let mut setup = world.setup(&[&one]);
    setup.streams = streams;
    let gateway = setup.start().await?;
    let stranger = {
        let mut setup = setup.clone();
        setup.cursor_keys = vec!["another cursor key, which the first node does not have".to_owned()];
        setup.start().await?
    };
    let rotated = {
        let mut setup = setup.clone();
        setup.cursor_keys.insert(
            0,
            "a newer cursor key; the one before still opens cursors".to_owned(),
        );
        setup.start().await?
    };
    let plan = plan::plan(&mut dice("sealed"), 1, 20);
    world.producer.send_all(&plan::records(&plan, &one)).await?;
    let north = world.user("north");
    let mut reader = Reader::open(
        Surface::WebSocket,
        gateway.address(),
        Want::new("observations", &north).after("earliest"),
    )
    .await?;
    reader.event().await?;
    let cursor = reader.cursor().context("a cursor")?.to_owned();
    let truncated: String = cursor.chars().take(cursor.chars().count() - 2).collect();
    let last = cursor.chars().last().context("a cursor")?;
    let changed = format!("{}{}", &truncated, if last == 'A' { "BB" } else { "AA" });
    let cases = [
        (
            &gateway,
            "observations",
            world.user("south"),
            cursor.clone(),
            "cursor_foreign",
        ),
        (
            &gateway,
            "others",
            north.clone(),
            cursor.clone(),
            "cursor_foreign",
        ),
        (
            &stranger,
            "observations",
            north.clone(),
            cursor.clone(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            truncated,
            "cursor_invalid",
        ),
        (&gateway, "observations", north.clone(), changed, "cursor_invalid"),
        (
            &gateway,
            "observations",
            north.clone(),
            "0".to_owned(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            "not a cursor".to_owned(),
            "cursor_invalid",
        ),
        (
            &gateway,
            "observations",
            north.clone(),
            "A".repeat(5000),
            "cursor_invalid",
        ),
    ];
    for (node, stream, token, after, code) in cases {
        for surface in Surface::ALL {
            let want = Want::new(stream, &token).after(after.clone());
            let refused = Reader::try_open(surface, node.address(), want).await?.err();
            ensure!(
                refused.as_deref() == Some(code),
                "{surface:?} {stream}: {refused:?} instead of {code}"
            );
        }
    }
    // A node with a newer key and this one goes on from it, exactly.
    let mut rest = Reader::open(
        Surface::Sse,
        rotated.address(),
        Want::new("observations", &north).after(cursor),
    )
    .await?;
    let mut owed = plan::owed(&plan, |planned| planned.tenant == "north");
    let first = plan
        .iter()
        .find(|planned| planned.tenant == "north")
        .context("an event")?;
    owed.forgive(0, first.n + 1);
    crate::delivery::take_all(&mut rest, &mut owed).await
}
