//! The audits of the GraphQL-over-HTTP specification, by the package `graphql-http`, against the running gateway.
//!
//! All that the specification says MUST or SHOULD hold do. Of the MAY ones these do not, and why:

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tidewire_tests::node::Node;
use tidewire_tests::volume::say;

use crate::support::World;

/// Audits of the MAY kind that do not hold, by their id.
const MAY_NOT: [(&str, &str); 0] = [];

#[tokio::test(flavor = "multi_thread")]
async fn every_must_and_should_of_graphql_over_http_holds() -> Result<()> {
    let world = World::new().await?;
    let topic = world.topic("audits", 1).await?;
    let gateway = world.graphql(&[&topic]).start().await?;
    let url = format!("http://{}/graphql", gateway.address());
    let mut audits = Node::start("audits.mjs", &[&url]).await?;
    audits.say(&json!({"token": world.user("north")}))?;
    let mut heard: Vec<Value> = Vec::new();
    loop {
        let audit = audits.hear().await?;
        if audit["done"] == true {
            break;
        }
        heard.push(audit);
    }
    let kind = |audit: &Value, kind: &str| audit["name"].as_str().is_some_and(|name| name.starts_with(kind));
    let fails = |audit: &&Value| audit["status"] != "ok";
    let (mut failed, mut unlisted) = (Vec::new(), Vec::new());
    for audit in heard.iter().filter(fails) {
        let listed = MAY_NOT.iter().find(|(id, _)| audit["id"] == *id);
        match listed {
            Some((id, why)) if kind(audit, "MAY") => {
                say(&format!("audit {id}, {}: not so, because {why}", audit["name"]))
            }
            _ if kind(audit, "MAY") => unlisted.push(audit),
            _ => failed.push(audit),
        }
    }
    let count = |what: &str| heard.iter().filter(|audit| kind(audit, what)).count();
    ensure!(failed.is_empty(), "{failed:#?}");
    ensure!(unlisted.is_empty(), "not listed with a reason: {unlisted:#?}");
    ensure!(heard.len() >= 61, "{} audits", heard.len());
    say(&format!(
        "graphql-http audits: {} MUST, {} SHOULD, {} MAY; all hold but {} MAY",
        count("MUST"),
        count("SHOULD"),
        count("MAY"),
        MAY_NOT.len()
    ));
    Ok(())
}
