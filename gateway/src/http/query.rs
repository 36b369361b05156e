//! The query string, taken apart: reserved parameters, and everything else for the stream's filter.
//!
//! Unknown parameters are refused, never passed over: a filter that is misspelt would show too much. A token is never
//! accepted here, because URLs are logged.

use schemas::problem::Code;

use super::problem::Problem;

/// Reserved names that this version answers as not supported.
pub(crate) const LATER: [&str; 2] = ["snapshot", "rate"];

/// The parameters of a request for a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<String>,
    pub(crate) wait: Option<String>,
    pub(crate) ticket: Option<String>,
    /// Accepted ones of streams that change nothing yet.
    pub(crate) idle: Option<&'static str>,
    /// The rest, in order.
    pub(crate) filters: Vec<(String, String)>,
}

impl Parameters {
    /// Takes a query string apart.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let place = match &*name {
                "after" => &mut parameters.after,
                "limit" => &mut parameters.limit,
                "wait" => &mut parameters.wait,
                "ticket" => &mut parameters.ticket,
                "overflow" => {
                    overflow(&value)?;
                    parameters.idle = Some("overflow");
                    continue;
                }
                "snapshot" if value == "false" => {
                    parameters.idle = Some("snapshot");
                    continue;
                }
                later if LATER.contains(&later) => {
                    return Err(Problem::new(
                        Code::UNSUPPORTED,
                        format!("{later} comes with a later version"),
                    ));
                }
                "token" | "access_token" | "authorization" | "jwt" => {
                    let detail = "tokens are not accepted in URLs: use the Authorization header, a ticket or the cookie";
                    return Err(Problem::new(Code::UNKNOWN_PARAMETER, detail));
                }
                _ => {
                    parameters.filters.push((name.into_owned(), value.into_owned()));
                    continue;
                }
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(Problem::new(
                    Code::PARAMETER_INVALID,
                    format!("{name} is given twice"),
                ));
            }
        }
        Ok(parameters)
    }

    /// For paths that know `ticket` only.
    pub(crate) fn ticket_only(query: Option<&str>) -> Result<Option<String>, Problem> {
        let parameters = Self::parse(query)?;
        if let Some(name) = parameters.idle {
            return Err(unknown(name));
        }
        let other = [
            ("after", &parameters.after),
            ("limit", &parameters.limit),
            ("wait", &parameters.wait),
        ];
        match other.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(unknown(name)),
            None if parameters.filters.is_empty() => Ok(parameters.ticket),
            None => Err(unknown("a parameter")),
        }
    }

    /// For paths that know no parameters at all.
    pub(crate) fn none(query: Option<&str>) -> Result<(), Problem> {
        if query.is_none_or(str::is_empty) {
            Ok(())
        } else {
            Err(unknown("a query string"))
        }
    }
}

/// The parameters of a path that has no filters: those of these names, each at most once.
pub(crate) fn only(
    query: Option<&str>,
    names: &[&'static str],
) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let known = names.iter().find(|known| ***known == *name);
        let known = *known.ok_or_else(|| unknown("a parameter"))?;
        if found.iter().any(|(have, _)| *have == known) {
            return Err(Problem::new(
                Code::PARAMETER_INVALID,
                format!("{known} is given twice"),
            ));
        }
        found.push((known, value.into_owned()));
    }
    Ok(found)
}

/// `close` is the only policy of this version.
pub(crate) fn overflow(policy: &str) -> Result<(), Problem> {
    match policy {
        "close" => Ok(()),
        "conflate" | "drop_oldest" => Err(Problem::new(
            Code::UNSUPPORTED,
            format!("overflow={policy} comes with a later version"),
        )),
        _ => Err(Problem::new(
            Code::PARAMETER_INVALID,
            "overflow is close, conflate or drop_oldest",
        )),
    }
}

/// A whole number between two bounds.
pub(crate) fn number(name: &str, text: &str, min: u64, max: u64) -> Result<u64, Problem> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| {
        Problem::new(
            Code::PARAMETER_INVALID,
            format!("{name} is a whole number from {min} to {max}"),
        )
    })
}

fn unknown(what: &str) -> Problem {
    Problem::new(Code::UNKNOWN_PARAMETER, format!("{what} is not known here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> &'static str {
        Parameters::parse(Some(query)).expect_err(query).code.name
    }

    #[test]
    fn what_is_not_reserved_is_a_filter() {
        let found = Parameters::parse(Some(
            "patient=Patient%2F1&after=earliest&status=final,amended&where.after=x",
        ));
        let found = found.expect("parameters");
        assert_eq!(found.after.as_deref(), Some("earliest"));
        let filters: Vec<_> = found
            .filters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            filters,
            [
                ("patient", "Patient/1"),
                ("status", "final,amended"),
                ("where.after", "x")
            ]
        );
    }

    #[test]
    fn what_comes_later_is_said_to_be_unsupported() {
        assert_eq!(refused("snapshot=true"), "unsupported");
        assert_eq!(refused("rate=5"), "unsupported");
        assert_eq!(refused("overflow=conflate"), "unsupported");
        assert_eq!(refused("overflow=drop_oldest"), "unsupported");
        assert_eq!(refused("overflow=whatever"), "parameter_invalid");
        assert!(Parameters::parse(Some("overflow=close")).is_ok());
    }

    #[test]
    fn a_token_in_the_url_is_refused() {
        for name in ["token", "access_token", "authorization", "jwt"] {
            let problem = Parameters::parse(Some(&format!("{name}=abc"))).expect_err(name);
            assert_eq!(problem.code.name, "unknown_parameter");
            assert!(!problem.detail.contains("abc"));
        }
    }

    #[test]
    fn a_reserved_parameter_is_given_once() {
        assert_eq!(refused("after=a&after=b"), "parameter_invalid");
    }

    #[test]
    fn other_paths_know_only_what_they_know() {
        assert_eq!(
            Parameters::ticket_only(Some("ticket=x"))
                .expect("ticket")
                .as_deref(),
            Some("x")
        );
        assert!(Parameters::ticket_only(Some("after=x")).is_err());
        assert!(Parameters::ticket_only(Some("stream=x")).is_err());
        assert!(Parameters::ticket_only(Some("overflow=close")).is_err());
        assert!(Parameters::ticket_only(Some("snapshot=false")).is_err());
        assert!(Parameters::none(None).is_ok());
        assert!(Parameters::none(Some("x")).is_err());
    }

    #[test]
    fn numbers_are_plain_and_bounded() {
        assert_eq!(number("limit", "10", 1, 100).expect("number"), 10);
        for bad in ["", "0", "101", "-1", "+5", "1.5", "99999999999999999999999"] {
            assert!(number("limit", bad, 1, 100).is_err(), "{bad}");
        }
    }
}
