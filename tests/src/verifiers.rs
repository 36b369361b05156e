//! Receivers that have never heard of Tidewire: libraries from npm and PyPI judge requests as they were captured.
//!
//! It does not know how anything is signed: bytes, keys and a clock go in, verdicts come out.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::node::{Node, Set};
use crate::python;

/// What a receiver got, and what it knows of who sent it.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Where it arrived.
    pub url: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// `whsec_...`: `v1` is judged.
    pub secret: Option<String>,
    /// `whpk_...`: `v1a` is judged.
    pub public_key: Option<String>,
    /// A JWK set: RFC 9421 is judged.
    pub jwks: Option<Value>,
    /// The clock of then, in seconds since the Unix epoch; now, where it is not given.
    pub at_s: Option<i64>,
}

/// The libraries, running.
pub struct Verifiers {
    node: Node,
    python: Node,
}

/// What each library says: its name, and true or why not.
pub type Verdicts = Map<String, Value>;

impl Verifiers {
    /// Starts them.
    pub async fn start() -> Result<Self> {
        Ok(Self {
            node: Node::start_of(Set::Webhooks, "verify.mjs").await?,
            python: python::start("verify.py").await?,
        })
    }

    /// What each says of a request. Names begin with where the library is from.
    pub async fn judge(&mut self, evidence: &Evidence) -> Result<Verdicts> {
        let headers: Map<String, Value> = evidence
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let mut question = json!({
            "method": "POST",
            "url": evidence.url,
            "headers": headers,
            "body": STANDARD.encode(&evidence.body),
        });
        for (name, value) in [
            ("secret", evidence.secret.as_ref().map(|secret| json!(secret))),
            ("public_key", evidence.public_key.as_ref().map(|key| json!(key))),
            ("jwks", evidence.jwks.clone()),
            ("at", evidence.at_s.map(|at_s| json!(at_s))),
        ] {
            if let Some(value) = value {
                question[name] = value;
            }
        }
        let mut verdicts = Verdicts::new();
        let mut judges = vec![("npm", &mut self.node)];
        if evidence.secret.is_some() {
            judges.push(("pypi", &mut self.python));
        }
        for (from, judge) in judges {
            judge.say(&question)?;
            let said = judge.hear().await?;
            for (library, verdict) in said.as_object().context("verdicts")? {
                verdicts.insert(format!("{from} {library}"), verdict.clone());
            }
        }
        Ok(verdicts)
    }

    /// All of them say yes; how many that are.
    pub async fn accept(&mut self, evidence: &Evidence) -> Result<usize> {
        let verdicts = self.judge(evidence).await?;
        ensure!(
            !verdicts.is_empty() && verdicts.values().all(|verdict| *verdict == true),
            "{verdicts:?} of {:?}",
            evidence.headers
        );
        Ok(verdicts.len())
    }

    /// None of them says yes.
    pub async fn refuse(&mut self, evidence: &Evidence) -> Result<()> {
        let verdicts = self.judge(evidence).await?;
        ensure!(
            !verdicts.is_empty() && verdicts.values().all(|verdict| *verdict != true),
            "{verdicts:?} of {:?}",
            evidence.headers
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard, whose signature stands in a list with others as it does while secrets rotate.
    #[tokio::test]
    async fn each_library_accepts_the_vector_of_the_standard_and_nothing_beside_it() -> Result<()> {
        let mut verifiers = Verifiers::start().await?;
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let vector = Evidence {
            url: "https://partner.example/".to_owned(),
            headers: vec![
                header("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                header("webhook-timestamp", "1614265330"),
                header(
                    "webhook-signature",
                    "v1a,AAAA v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= \
                     v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                ),
            ],
            body: br#"{"test": 2432232314}"#.to_vec(),
            secret: Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
            at_s: Some(1_614_265_330),
            ..Evidence::default()
        };
        assert_eq!(verifiers.accept(&vector).await?, 3);
        let mut longer = vector.clone();
        longer.body.push(b' ');
        verifiers.refuse(&longer).await?;
        let mut now = vector.clone();
        now.at_s = None;
        verifiers.refuse(&now).await?;
        let mut of_others = vector;
        of_others.secret = Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned());
        verifiers.refuse(&of_others).await?;
        // What stands behind another prefix is no key.
        of_others.secret = None;
        of_others.public_key = Some("whsec_AAAA".to_owned());
        of_others.jwks = Some(json!({"keys": []}));
        verifiers.refuse(&of_others).await
    }
}
