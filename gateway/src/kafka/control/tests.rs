//! The control topic on the embedded broker.

use std::sync::Arc;
use std::time::Duration;

use auth::clock::Clock;
use auth::control::{Control, Entry, EntryKind, Names, Revocation, key_of};
use prometheus_client::registry::Registry;
use secrecy::SecretString;

use super::super::embedded::Broker;
use super::super::settings::KafkaSettings;
use super::super::tests::settings;
use super::ControlTopic;

const TOPIC: &str = "tidewire.control";
/// Far beyond what any of this takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn revocation(subject: &str) -> (String, Vec<u8>) {
    let entry = Entry::Revocation(Revocation {
        subject: Some(Arc::from(subject)),
        ..Revocation::new(1_800_000_000_000)
    });
    let id = Names::new(&SecretString::from("all nodes have it")).of(&entry);
    (key_of(EntryKind::Revocation, &id), entry.encode())
}

fn start(settings: &KafkaSettings, staleness_max: Duration) -> (Control, ControlTopic) {
    let control = Control::unread(staleness_max);
    let mut settings = settings.clone();
    settings.control_staleness_max = staleness_max;
    let mut registry = Registry::default();
    let topic = ControlTopic::start(&settings, TOPIC, &control, Clock::System, &mut registry);
    (control, topic.expect("threads"))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or_else(|_| panic!("waited for: {what}"));
}

fn count(control: &Control) -> usize {
    control.read(|knowledge| knowledge.count(EntryKind::Revocation))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_writes_is_in_force_there_at_the_answer_and_on_the_others_soon() {
    let broker = Broker::start([TOPIC], 3).expect("a broker");
    let settings = settings(&broker);
    let (here, topic) = start(&settings, Duration::from_secs(60));
    let (there, _other) = start(&settings, Duration::from_secs(60));
    until("both have read", || here.is_read() && there.is_read()).await;
    for subject in 0..10 {
        let (key, value) = revocation(&format!("subject {subject}"));
        topic.writer().write(&key, Some(&value)).await.expect("written");
        assert_eq!(count(&here), subject + 1, "at the answer");
    }
    until("the other node knows", || count(&there) == 10).await;
    let (key, _) = revocation("subject 3");
    topic.writer().write(&key, None).await.expect("removed");
    assert_eq!(count(&here), 9);
    // A node that comes later knows all of it before it lets anybody in; what is no entry is passed over.
    topic
        .writer()
        .write("nonsense", Some(b"{}"))
        .await
        .expect("written");
    topic
        .writer()
        .write("plan:1", Some(b"{}"))
        .await
        .expect("written");
    let (late, _late) = start(&settings, Duration::from_secs(60));
    until("the late one has read", || late.is_read()).await;
    assert_eq!(count(&late), 9);
    topic.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_news_nobody_new_is_let_in_and_what_was_known_stays_in_force_until_it_heals() {
    let broker = Broker::start([TOPIC], 1).expect("a broker");
    let settings = settings(&broker);
    let (control, topic) = start(&settings, Duration::from_secs(2));
    until("it has read", || control.is_read()).await;
    let (key, value) = revocation("ann");
    topic.writer().write(&key, Some(&value)).await.expect("written");
    broker.set_reachable(false).expect("a broker");
    until("it is stale", || control.ready().is_err()).await;
    assert!(control.is_read() && count(&control) == 1);
    broker.set_reachable(true).expect("a broker");
    until("it has healed", || control.ready().is_ok()).await;
    assert_eq!(count(&control), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_topic_can_be_read_nobody_is_let_in() {
    let broker = Broker::start([TOPIC], 1).expect("a broker");
    broker.set_reachable(false).expect("a broker");
    let (control, _topic) = start(&settings(&broker), Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!control.is_read() && control.ready().is_err());
    broker.set_reachable(true).expect("a broker");
    until("it has read", || control.ready().is_ok()).await;
}
