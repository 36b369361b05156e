//! The binary as its users meet it: arguments in, lines and exit codes out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use auth::clock::Clock;
use auth::dev::DevelopmentIssuer;
use auth::token::Authenticator;
use serde_json::Value;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn tidewire(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command
        .env_clear()
        .env("TIDEWIRE_STATE_DIR", state)
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// A folder with the clinical contract and this configuration.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("clinical")).expect("a folder");
    for (name, text) in schemas::contract::CLINICAL_FILES {
        std::fs::write(folder.path().join("clinical").join(name), text).expect("a file");
    }
    std::fs::write(folder.path().join("tidewire.toml"), config).expect("a file");
    folder
}

fn good(listen: SocketAddr) -> String {
    format!(
        "contracts = \"clinical\"\nenvironment = \"development\"\n[listen]\naddress = \"{listen}\"\nadmin = \"127.0.0.1:0\"\n\
         [kafka]\nembedded = true\n[[issuers]]\ndevelopment = true\nclaims = [\"patient\"]\n\
         [keys]\ncursor = [\"{KEY}\"]\nticket = [\"{KEY}\"]\nevent_id = \"{KEY}\"\n[limits]\ndrain_spread_ms = 0\n\
         [telemetry]\nlog = \"warn\"\nformat = \"text\"\n"
    )
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn the_subgraph_is_printed_for_composition() {
    let folder = folder(&good(any()));
    let clinical = folder.path().join("clinical");
    let by_folder = run(tidewire(folder.path())
        .args(["docs", "sdl", "--contracts"])
        .arg(&clinical));
    let by_config = run(tidewire(folder.path())
        .args(["docs", "sdl", "--config"])
        .arg(folder.path().join("tidewire.toml")));
    assert_eq!(by_folder, by_config);
    let (code, sdl, _) = by_folder;
    assert_eq!(code, Some(0));
    assert!(
        sdl.contains("type Subscription {") && sdl.contains("@link("),
        "{sdl}"
    );
    assert!(
        !sdl.contains("@stream"),
        "what binds it to streams is nobody else's"
    );
    let (code, sdl, told) = run(tidewire(folder.path()).args(["docs", "sdl", "--contracts", "absent"]));
    assert_eq!((code, sdl.as_str()), (Some(64), ""));
    assert!(told.contains("problem"), "{told}");
}

#[test]
fn the_api_is_printed_as_openapi() {
    let folder = folder(&good(any()));
    let clinical = folder.path().join("clinical");
    let (code, printed, _) = run(tidewire(folder.path())
        .args(["docs", "openapi", "--contracts"])
        .arg(&clinical));
    assert_eq!(code, Some(0));
    let document: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["webhooks"].get("tidewire.patients.changed").is_some());
    assert!(document["paths"].get("/v1/webhooks/endpoints/{id}").is_some());
}

/// A server that was started, and the lines that it printed first. Killed when it is dropped.
struct Server {
    child: Child,
    lines: Vec<(String, String)>,
}

impl Server {
    /// Starts it and reads `name=value` lines until this one.
    fn start(command: &mut Command, last: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut lines: Vec<(String, String)> = Vec::new();
        while lines.last().is_none_or(|(name, _)| name != last) {
            let mut line = String::new();
            assert_ne!(
                reader.read_line(&mut line).expect("a line"),
                0,
                "it ended after {lines:?}"
            );
            let (name, value) = line.trim_end().split_once('=').expect("name=value");
            lines.push((name.to_owned(), value.to_owned()));
        }
        // What comes later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        Self { child, lines }
    }

    fn value(&self, name: &str) -> &str {
        &self.lines.iter().find(|(have, _)| have == name).expect(name).1
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One HTTP/1.1 request; status and body.
fn http(address: &str, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("it listens");
    let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
    let text = format!("{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{rest}\r\n");
    socket.write_all(text.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    (
        status,
        answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default(),
    )
}

/// Asks again until it is so; the test runner's own limit is the bound.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

#[test]
fn check_lists_every_problem_and_exits_with_64() {
    let folder = folder(
        "contracts = \"clinical\"\nlisten = { adress = \"x\" }\n[kafka]\nproperties = { \"group.id\" = \"x\" }\n",
    );
    std::fs::write(
        folder.path().join("clinical/streams.toml"),
        "[streams.Bad]\ntopics = []\n",
    )
    .expect("a file");
    let file = folder.path().join("tidewire.toml");
    let (code, _, problems) = run(tidewire(folder.path()).arg("check").arg("--config").arg(&file));
    assert_eq!(code, Some(64), "{problems}");
    for wanted in [
        "tidewire.toml:2:12: unknown_key:",
        "tidewire.toml:4:16: protected_property:",
        "tidewire.toml:3:1: missing_key:",
        "tidewire.toml:1:1: no_issuers:",
        "clinical/streams.toml:1:",
        "  mend: ",
        " problems found",
    ] {
        assert!(problems.contains(wanted), "{wanted} in\n{problems}");
    }
    // `run` refuses the same in the same way.
    let (code, lines, same) = run(tidewire(folder.path()).arg("run").arg("--config").arg(&file));
    assert_eq!((code, lines.as_str(), same), (Some(64), "", problems));
}

#[test]
fn check_is_content_with_good_files() {
    let folder = folder(&good(any()));
    let (code, _, said) = run(tidewire(folder.path()).current_dir(folder.path()).arg("check"));
    assert_eq!(code, Some(0), "{said}");
    let (code, _, said) = run(tidewire(folder.path())
        // What is in the environment is for where the command line names nothing.
        .env("TIDEWIRE_CONFIG", "absent.toml")
        .arg("check")
        .arg(folder.path().join("clinical")));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("encounters, medication_requests, observations, patients"),
        "{said}"
    );
}

#[test]
fn missing_files_and_unknown_arguments_exit_with_64() {
    let state = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["check", "--config", "absent.toml"][..],
        &["demo", "--admin", "0.0.0.0:0"],
        &["run", "--config", "absent.toml"],
        &["check", "absent-folder"],
        &["demo", "--rate", "fast"],
        &["demo", "--kafka", "kafka.example:9092"],
        &["token", "--tenant", "no tenant"],
        &["sing"],
    ] {
        let (code, _, said) = run(tidewire(state.path()).args(arguments));
        assert_eq!(code, Some(64), "{arguments:?} {said}");
        assert!(!said.is_empty(), "{arguments:?}");
    }
    let (code, said, _) = run(tidewire(state.path()).arg("--version"));
    assert_eq!(
        (code, said.trim_end()),
        (Some(0), concat!("tidewire ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_port_that_is_taken_exits_with_69_and_is_named() {
    let taken = TcpListener::bind(any()).expect("a port");
    let address = taken.local_addr().expect("an address");
    let folder = folder(&good(address));
    let (code, lines, said) = run(tidewire(folder.path()).current_dir(folder.path()).arg("run"));
    assert_eq!((code, lines.as_str()), (Some(69), ""), "{said}");
    assert!(
        said.contains(&address.to_string()) && said.contains("in use"),
        "{said}"
    );
}

#[tokio::test]
async fn a_printed_token_is_accepted_by_whoever_trusts_the_key() {
    let state = tempfile::tempdir().expect("a folder");
    let (code, token, said) = run(tidewire(state.path()).args([
        "token",
        "--tenant",
        "north",
        "--subject",
        "eve",
        "--scope",
        "user/Patient.rs user/Observation.rs",
        "--claim",
        "patient=1",
        "--ttl",
        "1h",
    ]));
    assert_eq!(code, Some(0), "{said}");
    let issuer =
        DevelopmentIssuer::open(&state.path().join("development-issuer.key")).expect("the key is there");
    let authenticator = Authenticator::new(vec![issuer.trusted(&["patient"])]).expect("a good issuer");
    let now_ms = Clock::System.now_ms();
    let principal = authenticator
        .verify(token.trim_end(), now_ms)
        .await
        .expect("it is accepted");
    assert_eq!((principal.tenant.as_str(), &*principal.subject), ("north", "eve"));
    assert_eq!(principal.claims.get("patient").map(|claim| &**claim), Some("1"));
    assert!((principal.expires_at_ms - now_ms - 3_600_000).abs() <= 2000);
}

#[test]
fn healthcheck_says_no_where_nobody_listens() {
    let state = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind(any())
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let (code, _, said) = run(tidewire(state.path()).args(["healthcheck", "--admin", &free.to_string()]));
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn run_prints_its_addresses_serves_and_drains_on_sigterm() {
    let folder = folder(&good(any()));
    let mut server = Server::start(
        tidewire(folder.path()).current_dir(folder.path()).arg("run"),
        "admin",
    );
    assert_eq!(http(server.value("admin"), "GET /healthz").0, 200);
    assert_eq!(http(server.value("listen"), "GET /v1/streams").0, 401);
    let (_, metrics) = http(server.value("admin"), "GET /metrics");
    for name in [
        "tidewire_build_info",
        "process_resident_memory_bytes",
        "tidewire_source_records",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let folder = folder(&good(any()).replace(
        "drain_spread_ms = 0",
        "drain_spread_ms = 600000\ndrain_timeout_ms = 900000",
    ));
    let mut server = Server::start(
        tidewire(folder.path()).current_dir(folder.path()).arg("run"),
        "admin",
    );
    let admin = server.value("admin").to_owned();
    wait_until(|| http(&admin, "GET /readyz").0 == 200);
    let (_, token, _) =
        run(tidewire(folder.path()).args(["token", "--tenant", "north", "--scope", "user/Patient.rs"]));
    let mut session = TcpStream::connect(server.value("listen")).expect("it listens");
    let request = format!(
        "GET /v1/streams/patients HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        token.trim_end()
    );
    session.write_all(request.as_bytes()).expect("it reads");
    let mut first = [0; 12];
    session.read_exact(&mut first).expect("it answers");
    assert_eq!(&first, b"HTTP/1.1 200");

    server.signal("TERM");
    wait_until(|| http(&admin, "GET /readyz").1.contains("\"draining\":true"));
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(143));
}

#[test]
fn the_demo_prints_where_it_is_and_gives_tokens_that_it_accepts() {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = tidewire(state.path());
    command.args([
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--no-events",
    ]);
    let mut demo = Server::start(&mut command, "issuer");
    let names: Vec<&str> = demo.lines.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["listen", "admin", "kafka", "issuer"]);
    let listen = demo.value("listen").to_owned();
    assert!(TcpStream::connect(demo.value("kafka")).is_ok());
    let (status, page) = http(&listen, "GET /");
    assert!(status == 200 && page.contains("<html"), "{status}");

    let (_, readers) = http(&listen, "GET /demo/readers");
    let readers: Value = serde_json::from_str(&readers).expect("JSON");
    let body = readers["readers"][0].to_string();
    let request = format!(
        "POST /demo/token\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, given) = http(&listen, &request);
    assert_eq!(status, 200, "{given}");
    let given: Value = serde_json::from_str(&given).expect("JSON");
    let (_, printed, _) =
        run(tidewire(state.path()).args(["token", "--tenant", "north", "--scope", "user/Patient.rs"]));
    for token in [given["token"].as_str().expect("a token"), printed.trim_end()] {
        let (status, streams) = http(
            &listen,
            &format!("GET /v1/streams\nauthorization: Bearer {token}\r\n"),
        );
        assert_eq!(status, 200, "{streams}");
        assert!(streams.contains("patients"), "{streams}");
    }
    demo.signal("INT");
    assert_eq!(demo.exit_code(), Some(0));
}

/// Answers one request of `tail` with this, and gives what was asked.
fn answer(listener: &TcpListener, status: &str, kind: &str, body: &str) -> Value {
    let (mut socket, _) = listener.accept().expect("tail comes");
    let mut reader = BufReader::new(socket.try_clone().expect("a socket"));
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut asked = vec![0; length];
    reader.read_exact(&mut asked).expect("a body");
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}");
    socket.write_all(head.as_bytes()).expect("tail reads");
    serde_json::from_slice(&asked).expect("JSON")
}

#[test]
fn tail_goes_on_after_its_last_cursor_and_ends_when_its_token_does() {
    let state = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind(any()).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut command = tidewire(state.path());
    command.args([
        "tail",
        "observations",
        "--token",
        "t",
        "--url",
        &url,
        "--after",
        "earliest",
        "--where",
        "status=final",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary runs");

    let events = "event-stream";
    let first = "id: c0\n\nid: c1\ndata: {\"n\":1}\n\nid: c2\ndata: {\"n\":2}\n\nid: c3\ndata: {\"n\":";
    let asked = answer(&listener, "200 OK", &format!("text/{events}"), first);
    assert_eq!(
        asked,
        serde_json::json!({"after": "earliest", "where": {"status": ["final"]}})
    );
    // The third event was cut off: it is asked for again. A gap is told, and its cursor counts.
    let second = "event: gap\nid: c4\ndata: {\"partitions\":[]}\n\nid: c5\ndata: {\"n\":3}\n\n";
    let asked = answer(&listener, "200 OK", &format!("text/{events}"), second);
    assert_eq!(asked["after"], "c2");
    let busy = r#"{"code":"draining","title":"the node is going away","status":503}"#;
    let asked = answer(
        &listener,
        "503 Service Unavailable",
        "application/problem+json",
        busy,
    );
    assert_eq!(asked["after"], "c5");
    let over = r#"{"code":"token_expired","title":"the token has expired","status":401}"#;
    let asked = answer(&listener, "401 Unauthorized", "application/problem+json", over);
    assert_eq!(asked["after"], "c5");

    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(77));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("gap: ") && said.contains("token_expired"), "{said}");
}
