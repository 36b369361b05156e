//! What became of a post to a router.

use auth::egress::{Answer, EgressError};

/// What became of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posted {
    /// The router has it.
    Taken,
    /// The router does not know the subscription any more.
    Gone,
    /// The router does not want it, and will not.
    Refused,
    /// Nobody knows whether the router has it.
    Failed,
    /// Its reader's token was over before it was taken.
    Overdue,
}

impl Posted {
    /// Its name among the metrics' labels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Overdue => "overdue",
        }
    }

    /// What an answer, or its absence, says of a post.
    pub(super) fn of(answer: &Result<Answer, EgressError>) -> Self {
        match answer {
            Ok(answer) => match answer.status {
                200..=299 => Self::Taken,
                404 => Self::Gone,
                408 | 429 | 500..=599 => Self::Failed,
                _ => Self::Refused,
            },
            Err(
                EgressError::Deadline
                | EgressError::Resolve
                | EgressError::Connect(_)
                | EgressError::Tls(_)
                | EgressError::Exchange(_),
            ) => Self::Failed,
            Err(
                EgressError::Url(_) | EgressError::Address | EgressError::TooLarge(_) | EgressError::Identity,
            ) => Self::Refused,
        }
    }
}
