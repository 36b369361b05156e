//! GraphQL operations as clients write them: a document, the operation's name, variables and a document to project, alone
//! and with what was finished of it before.

#![no_main]

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use schemas::attributes::Attributes;
use schemas::contract::{Contract, clinical};
use schemas::event::{Change, Data, Event};
use schemas::ids::{Slot, TenantId};
use schemas::project::{Document, Mask, Pointer};
use serde_json::Value;
use subscriptions::graphql::{Finished, Options, Prepared, Request, Schema};

#[derive(Debug, Arbitrary)]
struct Given<'a> {
    query: &'a str,
    name: Option<&'a str>,
    variables: &'a str,
    data: &'a str,
    hidden: &'a str,
}

fuzz_target!(|given: Given<'_>| {
    static SERVED: OnceLock<(Arc<Contract>, Schema)> = OnceLock::new();
    let (contract, schema) = SERVED.get_or_init(|| {
        let contract = Arc::new(clinical());
        let options = Options {
            introspection: true,
            ..Options::default()
        };
        let schema = Schema::new(&contract, options).expect("a schema");
        (contract, schema)
    });
    let variables = match serde_json::from_str(given.variables) {
        Ok(Value::Object(variables)) => variables,
        _ => serde_json::Map::new(),
    };
    let request = Request {
        query: Some(given.query.to_owned()),
        operation_name: given.name.map(str::to_owned),
        variables,
        ..Request::default()
    };
    let _ = schema.kind(&request);
    match schema.prepare(&request, None) {
        Err(refused) => {
            assert!(!refused.errors.is_empty() && refused.errors.len() <= 10);
            assert!(serde_json::from_str::<Value>(&refused.errors_json()).is_ok());
        }
        Ok(Prepared::Answer(text)) => {
            assert!(serde_json::from_slice::<Value>(&text).is_ok());
        }
        Ok(Prepared::Subscription(bound)) => {
            let Ok(document) = Document::parse(Bytes::copy_from_slice(given.data.as_bytes())) else {
                return;
            };
            let event = Event {
                stream: Arc::clone(contract.stream("observations").expect("the stream")),
                slot: Slot(0),
                offset: 1,
                tenant: TenantId::parse("a").expect("a tenant"),
                id: Arc::from("1"),
                own_id: None,
                source: Arc::from("/"),
                kind: Arc::from("k"),
                subject: None,
                time_ms: 0,
                content_type: Arc::from("application/json"),
                change: Change::Changed,
                key: None,
                attributes: Attributes::default(),
                extensions: Vec::new(),
                data: Data::Json(document),
                bytes: 0,
            };
            let mask = Mask::hide(Pointer::parse(given.hidden).ok());
            let mut out = Vec::new();
            bound.projection.event(&event, &mask, "c", &mut out);
            let text = std::str::from_utf8(&out).expect("UTF-8");
            assert!(!text.contains('\n'));
            assert!(serde_json::from_str::<Value>(text).is_ok());
            // Under another mask first, and twice: what was finished is what is shown.
            let mut finished = Finished::of(&event);
            for mask in [&Mask::nothing_hidden(), &mask, &mask] {
                let mut shared = Vec::new();
                bound.projection.finish(&mut finished, mask, "c", &mut shared);
                let mut alone = Vec::new();
                bound.projection.event(&event, mask, "c", &mut alone);
                assert_eq!(shared, alone);
            }
        }
    }
});
