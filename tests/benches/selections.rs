//! What an event costs where a thousand subscriptions of one stream each select something else: offered to a view for
//! each, as a worker does it, beside async-graphql's `execute_stream` for each, on the same record, in one run, on one thread.
//!
//!     cargo bench -p tidewire-tests --bench selections
//!
//! Both give JSON bytes, and those of every selection are compared as data before anything is measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_graphql::dynamic::{
    Field, FieldFuture, FieldValue, Object, ResolverContext, Scalar, Schema as Dynamic, Subscription,
    SubscriptionField, SubscriptionFieldFuture, TypeRef,
};
use bytes::Bytes;
use futures_util::StreamExt;
use schemas::contract::Contract;
use schemas::decode::{Decoder, Record};
use schemas::event::Event;
use schemas::ids::{Incarnation, Slot};
use schemas::project::Mask;
use secrecy::SecretString;
use serde_json::{Value, json};
use subscriptions::graphql::{Options, Prepared, Request, Schema};
use subscriptions::view::{View, Viewed};
use tidewire_tests::contract;
use tidewire_tests::graphql::SDL;
use tidewire_tests::volume::say;
use tokio::time::Instant;

const SELECTIONS: usize = 1000;

/// The fields that selections are made of.
const FIELDS: [&str; 10] = [
    "id",
    "status",
    "patient { id }",
    "code { coding { system code } }",
    "performer { id }",
    "note { text }",
    "whole",
    "partition",
    "n",
    "padding",
];

fn record() -> Value {
    json!({
        "resourceType": "Observation",
        "id": "0-17",
        "status": "final",
        "subject": {"reference": "Patient/1"},
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}, {"system": "urn:x", "code": "hr"}]},
        "performer": [{"reference": "Practitioner/9"}],
        "note": [{"text": "for the ward only"}],
        "partition": 0,
        "n": 17,
        "padding": "x".repeat(100),
    })
}

/// The `n`th selection, from 1: the fields of its bits.
fn query(n: usize) -> String {
    let fields: Vec<&str> = FIELDS
        .iter()
        .enumerate()
        .filter(|(bit, _)| n >> bit & 1 == 1)
        .map(|(_, field)| *field)
        .collect();
    format!(
        "subscription {{ observations {{ kind cursor data {{ {} }} }} }}",
        fields.join(" ")
    )
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let ours = Ours::new()?;
        let theirs = theirs()?;
        for (n, body) in (1..).zip(ours.bodies()) {
            let first: Value = serde_json::from_slice(&body)?;
            let mut stream = Box::pin(theirs.execute_stream(query(n)));
            let other = serde_json::to_value(stream.next().await.context("a result")?)?;
            ensure!(first["data"] == other["data"], "{first} is not {other}");
        }

        let mut ratios = Vec::new();
        for _ in 0..5 {
            let projected = ours.measure();
            let executed = execute(&theirs).await?;
            ratios.push(executed.as_secs_f64() / projected.as_secs_f64());
            say(&format!(
                "{SELECTIONS} selections: {:.0} us an event projected, {:.0} us executed",
                projected.as_secs_f64() * 1e6,
                executed.as_secs_f64() * 1e6
            ));
        }
        ratios.sort_by(f64::total_cmp);
        say(&format!(
            "{SELECTIONS} selections of one stream: {:.1} times cheaper than execute_stream for each (aim: 20; median of five)",
            ratios[2]
        ));
        Ok(())
    })
}

/// The product's views.
struct Ours {
    views: Vec<View>,
    event: Arc<Event>,
    mask: Arc<Mask>,
}

impl Ours {
    fn new() -> Result<Self> {
        let sources = vec![
            (PathBuf::from("streams.toml"), contract::observations(&["topic"])),
            (PathBuf::from("types.graphql"), SDL.to_owned()),
        ];
        let contract = match Contract::from_sources(sources) {
            Ok(contract) => Arc::new(contract),
            Err(findings) => bail!("{findings:?}"),
        };
        let schema = Schema::new(&contract, Options::default())?;
        let mut views = Vec::new();
        for n in 1..=SELECTIONS {
            let request: Request = serde_json::from_value(json!({"query": query(n)}))?;
            match schema.prepare(&request, None) {
                Ok(Prepared::Subscription(bound)) => views.push(View::Graphql(bound.projection)),
                other => bail!("{other:?}"),
            }
        }
        let stream = contract.stream("observations").context("the stream")?;
        let decoder = Decoder::new(
            Arc::clone(stream),
            &SecretString::from("a key for event ids, long enough"),
        );
        let decoded = decoder.decode(Record {
            topic: "topic".into(),
            incarnation: Incarnation(1),
            slot: Slot(0),
            partition: 0,
            offset: 0,
            timestamp_ms: 1_700_000_000_000,
            key: Some(Bytes::from_static(b"Observation/0-17")),
            value: Some(Bytes::from(record().to_string())),
            headers: vec![("tenant".into(), Some(Bytes::from_static(b"north")))],
        });
        let Ok(Some(event)) = decoded else {
            bail!("the record is an event")
        };
        Ok(Self {
            views,
            event: Arc::new(event),
            mask: Arc::new(Mask::nothing_hidden()),
        })
    }

    /// What each is given of the event.
    fn bodies(&self) -> Vec<Bytes> {
        let viewed = Viewed::new(Arc::clone(&self.event));
        let mut offer = viewed.offer();
        let bodies = self.views.iter();
        bodies
            .map(|view| offer.body(view, &self.mask, "cursor"))
            .collect()
    }

    /// The cost of one event for all.
    fn measure(&self) -> Duration {
        let rounds = 200;
        let mut bytes = 0;
        let begun = Instant::now();
        for _ in 0..rounds {
            // Each time an event of which nothing was finished before.
            let viewed = Viewed::new(Arc::clone(&self.event));
            let mut offer = viewed.offer();
            for view in &self.views {
                bytes += std::hint::black_box(offer.body(view, &self.mask, "cursor")).len();
            }
        }
        assert!(bytes > 0);
        begun.elapsed() / rounds
    }
}

/// The cost of one event for all, each with a stream of its own.
async fn execute(schema: &Dynamic) -> Result<Duration> {
    let rounds = 20;
    let mut streams = Vec::new();
    for n in 1..=SELECTIONS {
        let mut stream = Box::pin(schema.execute_stream(query(n)));
        // Parsed, validated and begun: not what is measured.
        stream.next().await.context("a first result")?;
        streams.push(stream);
    }
    let mut bytes = 0;
    let begun = Instant::now();
    for _ in 0..rounds {
        for stream in &mut streams {
            let response = stream.next().await.context("a result")?;
            bytes += std::hint::black_box(serde_json::to_vec(&response)?).len();
        }
    }
    assert!(bytes > 0);
    Ok(begun.elapsed() / rounds)
}

/// The same types in async-graphql; records are parsed once, and shared.
fn theirs() -> Result<Dynamic> {
    let string = |name: &'static str, pointer: &'static str, strip: &'static str| {
        Field::new(name, TypeRef::named(TypeRef::STRING), move |ctx| {
            FieldFuture::new(async move {
                let found = at(&ctx, pointer)?.and_then(Value::as_str);
                Ok(found.map(|text| FieldValue::value(text.strip_prefix(strip).unwrap_or(text).to_owned())))
            })
        })
    };
    let int = |name: &'static str, pointer: &'static str| {
        Field::new(name, TypeRef::named(TypeRef::INT), move |ctx| {
            FieldFuture::new(
                async move { Ok(at(&ctx, pointer)?.and_then(Value::as_i64).map(FieldValue::value)) },
            )
        })
    };
    let object = |name: &'static str, pointer: &'static str, of: &'static str| {
        Field::new(name, TypeRef::named(of), move |ctx| {
            FieldFuture::new(
                async move { Ok(at(&ctx, pointer)?.map(|value| FieldValue::borrowed_any(value))) },
            )
        })
    };
    let list = |name: &'static str, pointer: &'static str, of: &'static str| {
        Field::new(name, TypeRef::named_list(of), move |ctx| {
            FieldFuture::new(async move {
                let found = at(&ctx, pointer)?.and_then(Value::as_array);
                Ok(found
                    .map(|list| FieldValue::list(list.iter().map(|value| FieldValue::borrowed_any(value)))))
            })
        })
    };
    let status = Field::new("status", TypeRef::named(TypeRef::STRING), |ctx| {
        FieldFuture::new(async move {
            let found = at(&ctx, "/status")?.and_then(Value::as_str);
            Ok(found.map(|text| FieldValue::value(text.to_uppercase())))
        })
    });
    let whole = Field::new("whole", TypeRef::named("JSON"), |ctx| {
        FieldFuture::new(async move {
            let found = at(&ctx, "/code")?;
            let found = found.map(|value| async_graphql::Value::from_json(value.clone()));
            Ok(found.transpose()?.map(FieldValue::value))
        })
    });
    let observation = Object::new("Observation")
        .field(string("id", "/id", ""))
        .field(status)
        .field(object("patient", "/subject", "Patient"))
        .field(object("code", "/code", "Concept"))
        .field(list("performer", "/performer", "Practitioner"))
        .field(list("note", "/note", "Note"))
        .field(whole)
        .field(int("partition", "/partition"))
        .field(int("n", "/n"))
        .field(string("padding", "/padding", ""));
    let constant = |name: &'static str, value: &'static str| {
        Field::new(name, TypeRef::named(TypeRef::STRING), move |_| {
            FieldFuture::new(async move { Ok(Some(FieldValue::value(value))) })
        })
    };
    let event = Object::new("ObservationEvent")
        .field(constant("kind", "CHANGED"))
        .field(constant("cursor", "cursor"))
        .field(Field::new("data", TypeRef::named("Observation"), |ctx| {
            FieldFuture::new(async move {
                let record = ctx.parent_value.try_downcast_ref::<Arc<Value>>()?;
                Ok(Some(FieldValue::owned_any(Arc::clone(record))))
            })
        }));
    let shared = Arc::new(record());
    let observations =
        SubscriptionField::new("observations", TypeRef::named("ObservationEvent"), move |_| {
            let shared = Arc::clone(&shared);
            SubscriptionFieldFuture::new(async move {
                Ok(futures_util::stream::repeat_with(move || {
                    Ok(FieldValue::owned_any(Arc::clone(&shared)))
                }))
            })
        });
    let query = Object::new("Query").field(constant("nothing", ""));
    Ok(Dynamic::build("Query", None, Some("Subscription"))
        .register(query)
        .register(Subscription::new("Subscription").field(observations))
        .register(event)
        .register(observation)
        .register(Object::new("Patient").field(string("id", "/reference", "Patient/")))
        .register(Object::new("Practitioner").field(string("id", "/reference", "Practitioner/")))
        .register(Object::new("Concept").field(list("coding", "/coding", "Coding")))
        .register(
            Object::new("Coding")
                .field(string("system", "/system", ""))
                .field(string("code", "/code", "")),
        )
        .register(Object::new("Note").field(string("text", "/text", "")))
        .register(Scalar::new("JSON"))
        .finish()?)
}

/// What is at a place of the object that a field belongs to.
fn at<'a>(ctx: &ResolverContext<'a>, pointer: &str) -> async_graphql::Result<Option<&'a Value>> {
    let parent = match ctx.parent_value.downcast_ref::<Arc<Value>>() {
        Some(whole) => whole,
        None => ctx.parent_value.try_downcast_ref::<Value>()?,
    };
    Ok(parent.pointer(pointer).filter(|value| !value.is_null()))
}
