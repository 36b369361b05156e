//! Bad configurations, each refused at its line with its code; and the reference file, which is the defaults.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::contract::settings::Finding;
use secrecy::ExposeSecret;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// One line for each setting, so that a test can replace one.
const GOOD: [&str; 15] = [
    r#"contracts = "clinical""#,
    r#"environment = "development""#,
    "[listen]",
    r#"address = "127.0.0.1:0""#,
    r#"admin = "127.0.0.1:0""#,
    "[kafka]",
    r#"bootstrap_servers = "127.0.0.1:9092""#,
    "[[issuers]]",
    r#"issuer = "https://id.example""#,
    r#"jwks_url = "https://id.example/jwks""#,
    r#"audiences = ["tidewire"]"#,
    r#"tenants = ["north"]"#,
    r#"claims = ["patient"]"#,
    "[keys]",
    r#"cursor = ["${KEY}"]
ticket = ["${KEY}"]
event_id = "${KEY}""#,
];

/// Lines that are replaced, and what is found then.
type Mistake<'a> = (&'a [(usize, &'a str)], &'a [&'a str]);

struct Files(tempfile::TempDir);

impl Files {
    /// A folder with the clinical contract in it.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("clinical")).expect("a folder");
        for (name, text) in schemas::contract::CLINICAL_FILES {
            std::fs::write(folder.path().join("clinical").join(name), text).expect("a file");
        }
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).expect("a file");
    }

    fn parse(&self, text: &str) -> Result<Checked, Vec<Finding>> {
        let variables = BTreeMap::from([
            ("KEY", KEY.to_owned()),
            ("TIDEWIRE_CURSOR_KEY", KEY.to_owned()),
            ("TIDEWIRE_TICKET_KEY", KEY.to_owned()),
            ("TIDEWIRE_EVENT_ID_KEY", KEY.to_owned()),
            ("TIDEWIRE_ISSUER", "https://id.example".to_owned()),
            ("TIDEWIRE_CONTRACTS", "clinical".to_owned()),
        ]);
        let around = Surroundings::new(self.0.path(), move |name| variables.get(name).cloned());
        parse(Path::new("tidewire.toml"), text, around)
    }

    /// The good file with these lines in place of others, as `line:code` of what was found.
    fn found(&self, changes: &[(usize, &str)]) -> Vec<String> {
        match self.parse(&changed(changes)) {
            Ok(_) => Vec::new(),
            Err(findings) => findings
                .iter()
                .map(|found| format!("{}:{}", found.place.line, found.code))
                .collect(),
        }
    }
}

fn changed(changes: &[(usize, &str)]) -> String {
    let line = |number: usize, good: &str| {
        let change = changes.iter().find(|(line, _)| *line == number);
        change.map_or_else(|| good.to_owned(), |(_, text)| (*text).to_owned())
    };
    GOOD.iter()
        .enumerate()
        .map(|(place, good)| line(place + 1, good) + "\n")
        .collect()
}

#[test]
fn a_good_file_is_taken() {
    let files = Files::new();
    let checked = files.parse(&changed(&[])).expect("nothing is wrong");
    let config = checked.config;
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.keys.cursor[0].expose_secret(), KEY);
    assert_eq!(config.issuers[0].trusted.claims, ["patient"]);
    assert_eq!(checked.contract.streams.len(), 4);
    assert!(!format!("{config:?}").contains(KEY), "secrets are not printed");
}

#[test]
fn every_mistake_has_its_line_and_code() {
    let files = Files::new();
    files.write("empty.json", "{}");
    files.write(
        "short.json",
        r#"{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}"#,
    );
    files.write("broken.pem", "nothing");
    files.write("hashes.json", r#"{"00": "{ __typename }"}"#);
    let table: &[Mistake<'_>] = &[
        (&[(1, "")], &["1:missing_key"]),
        (&[(1, "contracts = 1")], &["1:wrong_type"]),
        (&[(1, "contracts = \"${NOWHERE}\"")], &["1:environment_missing"]),
        (&[(1, "contracts = \"${KEY\"")], &["1:expansion_invalid"]),
        (&[(1, "contracts = \"${file:absent}\"")], &["1:file_unreadable"]),
        (&[(2, "environment = \"staging\"")], &["2:unknown_value"]),
        (&[(2, "enviroment = \"development\"")], &["2:unknown_key"]),
        (&[(3, "listen = 1\n[other]")], &["3:wrong_type", "4:unknown_key"]),
        (&[(4, "adress = \"127.0.0.1:0\"")], &["4:unknown_key"]),
        (&[(4, "address = \"localhost:8080\"")], &["4:invalid_address"]),
        (
            &[(4, "address = \"127.0.0.1:9\""), (5, "admin = \"127.0.0.1:9\"")],
            &["5:duplicate_address"],
        ),
        (&[(5, "admin = \"0.0.0.0:9090\"")], &["5:admin_exposed"]),
        (
            &[(5, "admin = \"0.0.0.0:9090\"\nadmin_token = \"short\"")],
            &["6:secret_too_short"],
        ),
        (
            &[(5, "tls = { certificate = \"no.pem\", key = \"broken.pem\" }")],
            &["5:tls_unusable"],
        ),
        (
            &[(5, "tls = { certificate = \"broken.pem\" }")],
            &["5:missing_key"],
        ),
        (&[(7, "")], &["6:missing_key"]),
        (
            &[(7, "bootstrap_servers = \"kafka:port\"")],
            &["7:invalid_address"],
        ),
        (
            &[(7, "bootstrap_servers = \"127.0.0.1:9092\"\nembedded = true")],
            &["7:two_clusters"],
        ),
        (
            &[(7, "embedded = true"), (2, "")],
            &["6:embedded_broker_in_production"],
        ),
        (
            &[(6, "[kafka]\ndead_letter_topic = \"a b\"")],
            &["7:invalid_topic"],
        ),
        (
            &[(6, "[kafka]\ndead_letter_topic = \"fhir.patient\"")],
            &["6:dead_letters_consumed"],
        ),
        (&[(6, "[kafka]\ncontrol_topic = \"a b\"")], &["7:invalid_topic"]),
        (
            &[(6, "[kafka]\ncontrol_topic = \"fhir.patient\"")],
            &["6:control_consumed"],
        ),
        (
            &[(6, "[kafka]\ncontrol_staleness_max_ms = 1")],
            &["7:out_of_range"],
        ),
        (&[(6, "[kafka]\nmetadata_interval_ms = 1")], &["7:out_of_range"]),
        (
            &[(
                6,
                "[kafka]\nproperties = { \"isolation.level\" = \"read_uncommitted\" }",
            )],
            &["7:protected_property"],
        ),
        (
            &[(6, "[kafka]\nproperties = { \"bootstrap.servers\" = \"x:1\" }")],
            &["7:protected_property"],
        ),
        (
            &[(6, "[kafka]\nproperties = { \"sasl.pasword\" = \"x\" }")],
            &["7:unknown_property"],
        ),
        (
            &[(6, "[kafka]\nproperties = { \"security.protocol\" = \"x\" }")],
            &["7:invalid_property"],
        ),
        (&[(8, "[other]")], &["1:no_issuers", "8:unknown_key"]),
        (&[(9, "")], &["8:missing_key"]),
        (&[(10, "")], &["8:key_sources"]),
        (
            &[(10, "jwks_url = \"https://id.example/jwks\"\ndiscovery = true")],
            &["8:key_sources"],
        ),
        (
            &[(10, "jwks_url = \"http://id.example/jwks\"")],
            &["10:insecure_url"],
        ),
        (&[(10, "jwks_url = \"jwks\"")], &["10:invalid_url"]),
        (
            &[(10, "jwks_url = \"ftp://id.example/jwks\"")],
            &["10:invalid_url"],
        ),
        (
            &[(10, "jwks_url = \"http://127.0.0.1:1/jwks\"")],
            &["10:loopback_url"],
        ),
        (&[(10, "jwks_file = \"absent.json\"")], &["10:file_unreadable"]),
        (&[(10, "jwks_file = \"empty.json\"")], &["10:jwks_invalid"]),
        (&[(10, "jwks_file = \"short.json\"")], &["10:issuer_unusable"]),
        (
            &[(10, "discovery = true\nscope_claims = []")],
            &["8:issuer_unusable"],
        ),
        (&[(11, "")], &["8:missing_key"]),
        (&[(11, "audiences = []")], &["11:empty_value"]),
        (&[(11, "audiences = \"tidewire\"")], &["11:wrong_type"]),
        (&[(12, "")], &["8:missing_key"]),
        (&[(12, "tenants = [\"no tenant\"]")], &["12:invalid_tenant"]),
        (&[(12, "tenants = [\"north\", \"*\"]")], &["12:invalid_tenant"]),
        (
            &[(12, "tenants = [\"north\"]\nalgorithms = [\"HS256\", \"none\"]")],
            &["13:unknown_algorithm", "13:unknown_algorithm"],
        ),
        (
            &[(12, "tenants = [\"north\"]\nleeway_seconds = 3600")],
            &["13:out_of_range"],
        ),
        (
            &[(12, "tenants = [\"north\"]\nallow_loopback = true"), (2, "")],
            &["8:loopback_keys_in_production"],
        ),
        (
            &[(12, "tenants = [\"north\"]\ndevelopment_key = \"k\"")],
            &["13:key_sources"],
        ),
        (
            &[
                (13, "claims = [\"patient\"]\n[[issuers]]\ndevelopment = true"),
                (2, ""),
            ],
            &["14:development_issuer_in_production"],
        ),
        (
            &[
                (13, "claims = [\"patient\"]\n[[issuers]]\ndevelopment = true"),
                (7, "bootstrap_servers = \"kafka:9092\""),
            ],
            &["14:development_issuer_with_production_kafka"],
        ),
        (
            &[
                (13, "claims = [\"patient\"]\n[[issuers]]\ndevelopment = true"),
                (6, "[kafka]\nproperties = { \"security.protocol\" = \"SSL\" }"),
            ],
            &["15:development_issuer_with_production_kafka"],
        ),
        (
            &[(
                13,
                "claims = [\"patient\"]\n[[issuers]]\nissuer = \"https://id.example\"\ndiscovery = true\naudiences = [\"a\"]\ntenants = [\"*\"]",
            )],
            &["14:duplicate_issuer"],
        ),
        (&[(14, "[other]")], &["1:missing_key", "14:unknown_key"]),
        (
            &[(15, "cursor = []\nticket = [\"${KEY}\"]\nevent_id = \"${KEY}\"")],
            &["15:key_missing"],
        ),
        (
            &[(
                15,
                "cursor = [\"short\"]\nticket = [\"${KEY}\"]\nevent_id = \"${KEY}\"",
            )],
            &["15:secret_too_short"],
        ),
        (
            &[(
                15,
                "cursor = [\"${KEY}\", \"${KEY}\"]\nticket = [\"${KEY}\"]\nevent_id = \"${KEY}\"",
            )],
            &["15:duplicate_key"],
        ),
        (
            &[(15, "cursor = [\"${KEY}\"]\nevent_id = \"${KEY}\"")],
            &["14:missing_key"],
        ),
        (
            &[(
                3,
                "[origins]\nallow = [\"https://app.example/\", \"null\", \"*\"]\n[listen]",
            )],
            &["4:invalid_origin", "4:invalid_origin", "4:invalid_origin"],
        ),
        (
            &[(
                13,
                "claims = [\"patient\"]\n[[issuers]]\ndevelopment = true\nscope_claims = [\"s\"]\ntenant_claim = \"t\"",
            )],
            &["16:issuer_fixed", "17:issuer_fixed"],
        ),
        (
            &[(3, "[limits]\nconnections_max = 0\n[listen]")],
            &["4:out_of_range"],
        ),
        (
            &[(3, "[limits]\nsilence_max_ms = 20000\n[listen]")],
            &["4:limits_conflict"],
        ),
        (
            &[(3, "[limits]\nscan_bytes_max = 137438953472\n[listen]")],
            &["4:limits_conflict"],
        ),
        (
            &[(3, "[limits]\ndrain_spread_ms = 60000\n[listen]")],
            &["4:limits_conflict"],
        ),
        (
            &[(3, "[limits]\npartitions_per_stream_max = 1000\n[listen]")],
            &["3:cursor_too_small"],
        ),
        (
            &[(3, "[limits]\nring_bytes_max = \"64\"\n[listen]")],
            &["4:wrong_type"],
        ),
        (&[(3, "[replay]\nconsumer_max = 1\n[listen]")], &["4:unknown_key"]),
        (
            &[(3, "[graphql]\nintrospecton = true\ndepth_max = 1\n[listen]")],
            &["4:unknown_key", "5:out_of_range"],
        ),
        (
            &[(
                3,
                "[graphql]\nenabled = 1\ntrusted_only = true\ngraphiql = true\n[listen]",
            )],
            &[
                "4:wrong_type",
                "5:no_trusted_documents",
                "6:graphiql_without_introspection",
            ],
        ),
        (
            &[(3, "[graphql]\ntrusted_documents = \"absent.json\"\n[listen]")],
            &["4:file_unreadable"],
        ),
        (
            &[(3, "[graphql]\ntrusted_documents = \"broken.pem\"\n[listen]")],
            &["4:trusted_documents_invalid"],
        ),
        (
            &[(3, "[graphql]\ntrusted_documents = \"hashes.json\"\n[listen]")],
            &["4:trusted_document_hash"],
        ),
        (
            &[(
                3,
                "[graphql.callback]\nhosts = [\"router:4000\", \"http://router\", \"*\", \"router:x\", \"\"]\n[listen]",
            )],
            &[
                "4:invalid_host",
                "4:invalid_host",
                "4:invalid_host",
                "4:invalid_host",
            ],
        ),
        (
            &[(
                3,
                "[telemetry]\nlog = \"gateway=loudly\"\nformat = \"xml\"\n[listen]",
            )],
            &["4:log_filter_invalid", "5:unknown_value"],
        ),
    ];
    for (changes, wanted) in table {
        assert_eq!(files.found(changes), *wanted, "{}", changed(changes));
    }
}

#[test]
fn trusted_documents_are_named_by_their_hash() {
    let files = Files::new();
    let hash = "7f56e67dd21ab3f30d1ff8b7bed08893f0a0db86449836189b361dd1e56ddb4b";
    files.write("trusted.json", &format!(r#"{{"{hash}": "{{ __typename }}"}}"#));
    let section = "[graphql]\ntrusted_documents = \"trusted.json\"\ntrusted_only = true\n[listen]";
    let config = files
        .parse(&changed(&[(3, section)]))
        .expect("nothing is wrong")
        .config;
    assert_eq!(config.graphql.trusted_documents[hash], "{ __typename }");
    assert!(config.graphql.trusted_only);
}

#[test]
fn a_rule_that_can_never_match_is_refused_in_the_contract() {
    let files = Files::new();
    let findings = files
        .parse(&changed(&[(13, "claims = [\"other\"]")]))
        .expect_err("no issuer maps `patient`");
    assert_eq!(findings.len(), 4, "one patient rule in each stream");
    for finding in findings {
        assert_eq!(finding.code, "rule_never_matches");
        assert!(finding.place.file.ends_with("clinical/streams.toml"), "{finding}");
    }
}

#[test]
fn problems_of_the_file_and_of_the_contract_come_together() {
    let files = Files::new();
    files.write(
        "clinical/streams.toml",
        "[streams.observations]\ntopics = [\"a\"]\nformat = \"jason\"\n",
    );
    let findings = files
        .parse(&changed(&[(4, "address = 1"), (15, "")]))
        .expect_err("several problems");
    let has = |code: &str| findings.iter().any(|finding| finding.code == code);
    assert!(
        has("wrong_type") && has("missing_key") && has("unknown_value"),
        "{findings:?}"
    );
}

#[test]
fn no_message_repeats_a_secret() {
    let files = Files::new();
    let text = changed(&[
        (5, "admin_token = \"hush-hush\""),
        (
            6,
            "[kafka]\nproperties = { \"sasl.password\" = \"hush-hush\", \"security.protocol\" = \"hush-hush\" }",
        ),
        (
            15,
            "cursor = [\"hush-hush\"]\nticket = [\"hush-hush\"]\nevent_id = \"hush-hush\"",
        ),
    ]);
    let findings = files.parse(&text).expect_err("short secrets");
    assert!(findings.len() >= 5, "{findings:?}");
    for finding in findings {
        assert!(!finding.to_string().contains("hush-hush"), "{finding}");
    }
}

#[test]
fn the_reference_file_is_the_defaults() {
    let files = Files::new();
    let reference = files.parse(REFERENCE);
    // The only thing wrong with it is that the clinical contract needs a claim that its issuer does not pass through.
    let text = REFERENCE.replace("claims = []", "claims = [\"patient\"]");
    assert!(reference.is_err());
    let reference = files.parse(&text).expect("the reference is good").config;
    let bare = [
        (2, ""),
        (3, ""),
        (4, ""),
        (5, ""),
        (10, "discovery = true"),
        (12, "tenants = [\"*\"]"),
        (
            15,
            "cursor = [\"${KEY}\"]\nticket = [\"${KEY}\"]\nevent_id = \"${KEY}\"",
        ),
    ];
    let bare = files
        .parse(&changed(&bare))
        .expect("what must be said is said")
        .config;
    let shown = |config: &Config| {
        let mut config = config.clone();
        for issuer in &mut config.issuers {
            issuer.place.line = 0;
        }
        config.kafka.place.line = 0;
        format!("{config:#?}")
    };
    assert_eq!(shown(&reference), shown(&bare));
}

#[test]
fn the_reference_file_names_every_setting() {
    // A key that is asked for and not in the reference is a setting that nobody would find.
    let source = [
        include_str!("limits.rs"),
        include_str!("kafka.rs"),
        include_str!("issuers.rs"),
        include_str!("keys.rs"),
        include_str!("listen.rs"),
        include_str!("graphql.rs"),
        include_str!("webhooks.rs"),
    ]
    .concat();
    for call in [
        ".size(\"",
        ".millis(\"",
        ".unsigned(\"",
        ".text(\"",
        ".flag(\"",
        ".switch(\"",
        ".secret(\"",
        "texts(\"",
        "below(\"",
    ] {
        for rest in source.split(call).skip(1) {
            let key = rest.split('"').next().unwrap_or_default();
            assert!(REFERENCE.contains(key), "{key} is not in deploy/tidewire.toml");
        }
    }
}
