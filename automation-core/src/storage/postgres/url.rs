//! What a database's URL says: where the server is, and how it is trusted.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::error::Failure;
use super::tls::Trust;

/// How long a connection may take to come about.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long sent data may stay unacknowledged, and a silent server be believed alive.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The port of Supabase's transaction pooler.
const TRANSACTION_POOLER_PORT: u16 = 6543;

/// Where the server is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) config: Config,
    /// `None` where connections are not to be encrypted.
    pub(super) trust: Option<Trust>,
    /// Row Level Security need not bind the user.
    pub(super) superuser_allowed: bool,
}

impl Place {
    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(unusable("the URL does not begin with postgres://"));
        }
        let (plain, options) = without_own_options(url);
        let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            // The cause names the option and not its value.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Failure::Unusable(format!("the URL is wrong: {}", cause.unwrap_or_default()))
        })?;
        if config.get_ports().contains(&TRANSACTION_POOLER_PORT) {
            return Err(unusable(
                "port 6543 is a transaction pooler, which mixes the sessions of its users; \
                 use the direct connection or the session pooler on port 5432",
            ));
        }
        let superuser_allowed = options.superuser()?;
        let trust = options.trust(&mut config)?;
        config
            .application_name("automation")
            .connect_timeout(CONNECT_MAX)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX)
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            // After a failover, the old primary may be a standby.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self {
            config,
            trust,
            superuser_allowed,
        })
    }

    /// Returns the place without credentials.
    pub(super) fn shown(&self) -> String {
        let hosts: Vec<_> = self.config.get_hosts().iter().map(shown_host).collect();
        let database = self.config.get_dbname().or(self.config.get_user());
        format!("{}/{}", hosts.join(","), database.unwrap_or_default())
    }

    /// Returns whether all that is sent stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                let address = name.parse::<std::net::IpAddr>();
                name == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        })
    }
}

fn shown_host(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    }
}

fn unusable(sentence: &str) -> Failure {
    Failure::Unusable(sentence.to_owned())
}

/// The options of a URL that the client does not know, or not all of.
#[derive(Debug, Default)]
struct Options {
    mode: Option<String>,
    root: Option<String>,
    superuser: Option<String>,
}

/// Takes our options out of a URL: `superuser`, and those about encryption, of which the client knows fewer than
/// PostgreSQL's own.
fn without_own_options(url: &str) -> (String, Options) {
    let Some((place, query)) = url.split_once('?') else {
        return (url.to_owned(), Options::default());
    };
    let (mut options, mut others) = (Options::default(), Vec::new());
    for option in query.split('&') {
        let decoded = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
        match option.split_once('=') {
            Some(("sslmode", value)) => options.mode = Some(decoded(value)),
            Some(("sslrootcert", value)) => options.root = Some(decoded(value)),
            Some(("superuser", value)) => options.superuser = Some(decoded(value)),
            _ => others.push(option),
        }
    }
    (format!("{place}?{}", others.join("&")), options)
}

impl Options {
    fn superuser(&self) -> Result<bool, Failure> {
        match self.superuser.as_deref() {
            None => Ok(false),
            Some("allow") => Ok(true),
            Some(_) => Err(unusable("superuser has another value than \"allow\"")),
        }
    }

    fn trust(self, config: &mut Config) -> Result<Option<Trust>, Failure> {
        let verified = || match &self.root {
            Some(path) if path != "system" => Trust::File(path.into()),
            _ => Trust::System,
        };
        let (mode, trust) = match self.mode.as_deref() {
            Some("disable") => (SslMode::Disable, None),
            None | Some("prefer") => (SslMode::Prefer, Some(Trust::Anybody)),
            Some("require") => (SslMode::Require, Some(Trust::Anybody)),
            Some("verify-full") => (SslMode::Require, Some(verified())),
            Some(other) => {
                return Err(Failure::Unusable(format!(
                    "sslmode is {other:?}, disable, prefer, require and verify-full are allowed"
                )));
            }
        };
        config.ssl_mode(mode);
        Ok(trust)
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::{Place, Trust};

    #[test]
    fn encryption_is_as_with_postgresqls_own_clients() {
        let file = Trust::File("/etc/ca.pem".into());
        for (options, mode, trust) in [
            ("", SslMode::Prefer, Some(Trust::Anybody)),
            ("?sslmode=disable", SslMode::Disable, None),
            ("?sslmode=require", SslMode::Require, Some(Trust::Anybody)),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Some(Trust::System),
            ),
            (
                "?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
                SslMode::Require,
                Some(file),
            ),
        ] {
            let place = Place::parse(&format!("postgres://me@db.example/x{options}")).unwrap();
            assert_eq!(place.config.get_ssl_mode(), mode, "{options}");
            assert_eq!(place.trust, trust, "{options}");
            assert!(!place.is_local());
        }
        assert!(
            Place::parse("postgres://me@127.0.0.1,localhost/x")
                .unwrap()
                .is_local()
        );
    }

    #[test]
    fn what_is_shown_has_no_credentials() {
        let place = Place::parse("postgresql://me:hunter2@db.example:5433/runs?sslmode=require");
        let place = place.unwrap();
        assert_eq!(place.shown(), "db.example/runs");
        assert!(!format!("{place:?}").contains("hunter2"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for (url, why) in [
            ("mysql://me:hunter2@db/x", "does not begin with postgres://"),
            ("postgres://me:hunter2@db:hunter2/x", "the URL is wrong"),
            ("postgres://me:hunter2@db/x?passwort=hunter2", "passwort"),
            (
                "postgres://me:hunter2@db/x?sslmode=verify-ca",
                "verify-full are allowed",
            ),
            (
                "postgres://me:hunter2@db.example:6543/x",
                "transaction pooler",
            ),
        ] {
            let failure = Place::parse(url).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
            assert!(!failure.contains("hunter2"), "{failure}");
        }
    }
}
