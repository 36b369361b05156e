//! `tidewire token`: a token of the development issuer, as the running demo accepts it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use auth::clock::Clock;
use auth::dev::DevelopmentIssuer;
use clap::Args;
use schemas::ids::TenantId;

use super::{Exit, print_line, tell};
use crate::demo::{state, ttl};

/// The longest life of a token made here.
const TTL_MAX: Duration = Duration::from_secs(31 * 86_400);

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Token {
    /// Whose data.
    #[arg(long, value_parser = |text: &str| TenantId::parse(text))]
    tenant: TenantId,
    /// Who asks.
    #[arg(long, default_value = "developer")]
    subject: String,
    /// Scopes, separated by spaces; may be given several times.
    #[arg(long, value_name = "SCOPES")]
    scope: Vec<String>,
    /// A claim, such as patient=1; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    claim: Vec<(String, String)>,
    /// How long it is good for: 90s, 15m, 1h.
    #[arg(long, default_value = "1h", value_parser = |text: &str| ttl::parse(text, TTL_MAX))]
    ttl: Duration,
    /// The development issuer's key file; made where there is none.
    #[arg(long, value_name = "FILE")]
    dev_key: Option<PathBuf>,
}

/// `name=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Token {
    pub(super) fn execute(self) -> Exit {
        let file = self
            .dev_key
            .unwrap_or_else(|| state::folder().join(state::DEVELOPMENT_KEY));
        let issuer = match DevelopmentIssuer::open(&file) {
            Ok(issuer) => issuer,
            Err(error) => {
                tell(format_args!(
                    "tidewire token: the key file {} cannot be used: {error}",
                    file.display()
                ));
                return Exit::Unavailable;
            }
        };
        let claims: BTreeMap<String, String> = self.claim.into_iter().collect();
        let now_ms = Clock::System.now_ms();
        let token = issuer.mint(
            &self.tenant,
            &self.subject,
            &self.scope.join(" "),
            &claims,
            self.ttl,
            now_ms,
        );
        if print_line(token) {
            Exit::Done
        } else {
            Exit::Unavailable
        }
    }
}
