//! An origin as browsers write it: the one value of `Origin` that is let in.

use std::fmt;
use std::str::FromStr;

use axum::http::HeaderValue;

use crate::config::{ConfigError, is_host};

/// A web origin: scheme, host and port, in the exact form in which browsers send it.
///
/// Parsing accepts what people write (upper case, the scheme's own port, one slash at the end) and refuses what
/// can never match or would match too much.
///
/// ```
/// use automation_http::Origin;
/// let origin: Origin = "HTTP://Localhost:80/".parse().unwrap();
/// assert_eq!(origin.as_str(), "http://localhost");
/// assert!("*".parse::<Origin>().is_err());
/// assert!("null".parse::<Origin>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Returns the text that browsers send.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("an origin has only visible ASCII characters")
    }

    /// Compares byte by byte: browsers always send the normal form, so anything else is somebody else.
    pub(crate) fn is(&self, header: &HeaderValue) -> bool {
        header.as_bytes() == self.0.as_bytes()
    }
}

impl FromStr for Origin {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).ok_or_else(|| ConfigError::Origin {
            value: text.to_owned(),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, parse_port(port)?),
        _ => (rest, default_port),
    };
    let host = host.to_ascii_lowercase();
    match (is_host(&host), port == default_port) {
        (false, _) => None,
        (true, true) => Some(format!("{scheme}://{host}")),
        (true, false) => Some(format!("{scheme}://{host}:{port}")),
    }
}

/// Only digits: `u16` also reads a sign.
fn parse_port(text: &str) -> Option<u16> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Origin;

    proptest! {
        #[test]
        fn what_is_accepted_is_in_normal_form(text in "(?i)(https?|ftp)://[a-z0-9.:@/*\\[\\]-]{0,20}") {
            if let Ok(origin) = text.parse::<Origin>() {
                prop_assert_eq!(&origin.as_str().parse::<Origin>().unwrap(), &origin, "parsing is idempotent");
                let rest = origin.as_str().split_once("://").unwrap().1;
                prop_assert!(!rest.contains(['/', '@', '*', '?', '#']) && rest == rest.to_ascii_lowercase());
                let _ = origin.header_value();
            }
        }
    }

    #[test]
    fn normal_form_is_the_browsers() {
        for (written, normal) in [
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:3000/", "http://localhost:3000"),
            ("HTTP://LOCALHOST:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("https://desk.example:443/", "https://desk.example"),
            ("https://desk.example:80", "https://desk.example:80"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(
                written.parse::<Origin>().unwrap().as_str(),
                normal,
                "{written}"
            );
        }
    }

    #[test]
    fn what_matches_nothing_or_too_much_is_refused() {
        for text in [
            "",
            "*",
            "null",
            "localhost",
            "localhost:3000",
            "//localhost",
            "http://",
            "http://*",
            "http://*.example",
            "ftp://localhost",
            "file:///x",
            "http://a/b",
            "http://a//",
            "http://a/?x",
            "http://a?x",
            "http://a#x",
            "http://u@a",
            "http://u:p@a",
            "http://a,http://b",
            "http://a http://b",
            " http://a",
            "http://a:",
            "http://a:x",
            "http://a:99999",
            "http://a:+80",
            "http://[::1",
            "http://[x]",
            "http:///",
            "http://ä.example",
            "http://a\n",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text:?}");
        }
    }
}
