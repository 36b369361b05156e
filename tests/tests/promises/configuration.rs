//! Bad configuration is refused with all problems at once, each with its place and a mend, and exit code 64.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tidewire_tests::gateway::binary;

const KEYS: &str = "[keys]\ncursor = [\"0123456789abcdef0123456789abcdef\"]\nticket = [\"0123456789abcdef0123456789abcdef\"]\n\
event_id = \"0123456789abcdef0123456789abcdef\"\n";

fn tidewire(arguments: &[&str], folder: &Path) -> Result<Output> {
    Ok(Command::new(binary())
        .args(arguments)
        .current_dir(folder)
        .output()?)
}

/// Whether the output of a check names all of these codes, each with a line, and ends with 64.
fn refuses(output: &Output, codes: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(64), "{}: {text}", output.status);
    for code in codes {
        let line = text.lines().find(|line| line.contains(&format!(" {code}: ")));
        let line = line.with_context(|| format!("{code} is not told:\n{text}"))?;
        let place = line.split(' ').next().unwrap_or_default().trim_end_matches(':');
        let mut numbers = place.rsplit(':').map(str::parse::<u32>);
        let at = (numbers.next(), numbers.next());
        ensure!(
            matches!(at, (Some(Ok(1..)), Some(Ok(1..)))),
            "{place:?} is no file:line:column in {line}"
        );
    }
    ensure!(
        text.matches("mend: ").count() >= codes.len(),
        "each has a mend:\n{text}"
    );
    Ok(())
}

#[test]
fn a_bad_contract_is_refused_with_everything_that_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("streams.toml"),
        r#"
[streams.observations]
topics = ["fhir.observation"]
format = "jsn"
schema = "Observation"
tenant = { header = "tenant" }
attributes = { patient = "/subject/reference", id = "/id", Bad_Name = "/x" }
colour = "blue"
state = "compacted"
[[streams.observations.access]]
scopes = ["user/Observation.rs"]
rows = "tenant"
hide = ["/status"]
[[streams.observations.access]]
scopes = ["patient/Observation.rs"]
rows = { patint = "Patient/{claims.patient}" }
"#,
    )?;
    std::fs::write(
        folder.path().join("types.graphql"),
        "type Observation { id: ID! status: String! subject: Reference }\ntype Reference { reference: String }\n",
    )?;
    let output = tidewire(&["check", "."], folder.path())?;
    refuses(
        &output,
        &[
            "unknown_value",
            "attribute_name_reserved",
            "attribute_name_invalid",
            "unknown_key",
            "not_yet",
            "hidden_non_null",
        ],
    )
}

#[test]
fn a_bad_configuration_is_refused_by_check_and_by_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let contracts = folder.path().join("contracts");
    std::fs::create_dir(&contracts)?;
    std::fs::write(
        contracts.join("streams.toml"),
        tidewire_tests::contract::observations(&["fhir.observation"]),
    )?;
    std::fs::write(contracts.join("types.graphql"), tidewire_tests::contract::SDL)?;
    let file = folder.path().join("tidewire.toml");
    std::fs::write(
        &file,
        format!(
            "contracts = \"contracts\"\nenvironment = \"production\"\ncolour = \"blue\"\n\
             [listen]\naddress = \"127.0.0.1:0\"\nadmin = \"0.0.0.0:0\"\n\
             [kafka]\nbootstrap_servers = \"kafka.example:9092\"\n\
             properties = {{ \"isolation.level\" = \"read_uncommitted\" }}\n\
             [[issuers]]\nissuer = \"urn:tidewire:development\"\ndevelopment = true\naudiences = [\"tidewire\"]\n\
             tenants = [\"*\"]\n{KEYS}"
        ),
    )?;
    let codes = [
        "unknown_key",
        "admin_exposed",
        "protected_property",
        "development_issuer_in_production",
        "rule_never_matches",
    ];
    for command in ["check", "run"] {
        let output = tidewire(&[command, "--config", "tidewire.toml"], folder.path())?;
        refuses(&output, &codes).context(command)?;
        ensure!(
            output.stdout.is_empty(),
            "{command} says nothing on standard output"
        );
    }
    let text = std::fs::read_to_string(&file)?
        .replace("environment = \"production\"", "environment = \"development\"");
    std::fs::write(&file, text)?;
    let output = tidewire(&["check", "--config", "tidewire.toml"], folder.path())?;
    refuses(&output, &["development_issuer_with_production_kafka"])
}

#[test]
fn missing_files_are_refused_with_64() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for command in ["check", "run"] {
        let output = tidewire(&[command, "--config", "nowhere.toml"], folder.path())?;
        ensure!(output.status.code() == Some(64), "{command}: {}", output.status);
        ensure!(
            String::from_utf8_lossy(&output.stderr).contains("nowhere.toml"),
            "{command} names the file"
        );
    }
    let output = tidewire(&["check", "no-such-folder"], folder.path())?;
    ensure!(output.status.code() == Some(64), "{}", output.status);
    let output = tidewire(&["dance"], folder.path())?;
    ensure!(
        output.status.code() == Some(64),
        "an unknown command: {}",
        output.status
    );
    Ok(())
}

#[test]
fn secrets_of_the_configuration_are_never_repeated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = "a-secret-that-is-too-short";
    std::fs::write(
        folder.path().join("tidewire.toml"),
        format!(
            "contracts = \"contracts\"\n[listen]\naddress = \"127.0.0.1:0\"\n[kafka]\nbootstrap_servers = \"127.0.0.1:1\"\n\
             properties = {{ \"sasl.password\" = \"{secret}\", \"no.such.property\" = \"{secret}\" }}\n\
             [keys]\ncursor = [\"{secret}\"]\nticket = [\"{secret}\"]\nevent_id = \"{secret}\"\n"
        ),
    )?;
    for command in ["check", "run"] {
        let output = tidewire(&[command, "--config", "tidewire.toml"], folder.path())?;
        ensure!(output.status.code() == Some(64), "{command}: {}", output.status);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        ensure!(!text.contains(secret), "{command} repeats a secret:\n{text}");
    }
    Ok(())
}
