//! `tidewire healthcheck`: ready or not, as an exit code, for containers that have no other client in them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::{Exit, block_on, tell};

/// The command's arguments.
#[derive(Debug, Args)]
pub struct Healthcheck {
    /// The operations listener.
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1:9090",
        env = "TIDEWIRE_ADMIN"
    )]
    admin: SocketAddr,
    /// Its token, where it has one.
    #[arg(long, env = "TIDEWIRE_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    timeout: u64,
}

impl Healthcheck {
    pub(super) fn execute(self) -> Exit {
        block_on(async move {
            match self.ask().await {
                Ok(status) if status.is_success() => Exit::Done,
                Ok(status) => {
                    tell(format_args!("not ready: {} answers {status}", self.admin));
                    Exit::NotReady
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error)
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    tell(format_args!(
                        "not ready: {} does not answer: {error} {cause}",
                        self.admin
                    ));
                    Exit::NotReady
                }
            }
        })
    }

    async fn ask(&self) -> Result<reqwest::StatusCode, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(self.timeout))
            .build()?;
        // An unspecified address is where it listens, not where it can be asked.
        let mut admin = self.admin;
        if admin.ip().is_unspecified() {
            admin.set_ip(match admin {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let mut request = client.get(format!("http://{admin}/readyz"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(request.send().await?.status())
    }
}
