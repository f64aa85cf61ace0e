//! What the server was told, checked: from texts of variables to values that can't be wrong any more.
//! Every wrong value is named in one start, not one a start.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use automation_core::executor::LimitPolicy;
use automation_core::limits::{
    SCRIPT_MEMORY_MB_MAX, SCRIPT_TIMEOUT_MAX, SECRET_BYTES_MIN, STREAM_KIB_MAX,
};
use automation_core::secret::{Secret, Secrets, is_secret_name};
use automation_core::{Durability, PostgresStorage, Retention};
use automation_http::{Host, HttpConfig, Network, Origin, RateLimit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::variables::{self as v, SECRET_PREFIX, Source, Values, Variable};

/// Longest retention: a hundred years.
const RETENTION_DAYS_MAX: u64 = 36_500;

/// Everything the server was told.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) address: SocketAddr,
    pub(crate) http: HttpConfig,
    pub(crate) trusted_proxies: Vec<Network>,
    /// The one it was built with, if none.
    pub(crate) python: Option<PathBuf>,
    pub(crate) scripts: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) database: Database,
    pub(crate) durability: Durability,
    pub(crate) workers: usize,
    /// Whether every script runs in a process of its own.
    pub(crate) isolate_all: bool,
    pub(crate) limits: LimitPolicy,
    pub(crate) lease: Duration,
    /// For how long ended runs are kept, if not for ever.
    pub(crate) retention: Option<Retention>,
    pub(crate) shutdown_grace: Duration,
    pub(crate) secrets: Secrets,
    pub(crate) log_filter: String,
    /// Names that look like variables of the server.
    pub(crate) unknown: Vec<String>,
}

/// Where runs are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    Memory,
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

/// The URL of a PostgreSQL database, and the place that it names; the former may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PostgresUrl {
    pub(crate) url: String,
    place: String,
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory (runs are forgotten at the end)"),
            Self::Sqlite(path) => write!(f, "SQLite file {}", path.display()),
            Self::Postgres(url) => write!(f, "PostgreSQL {}", url.place),
        }
    }
}

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// One sentence a wrong value, at least one.
    pub(crate) fn read(values: &Values) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            values,
            sentences: Vec::new(),
        };
        let config = read(&mut reader);
        match config {
            Some(config) if reader.sentences.is_empty() => Ok(config),
            _ => Err(reader.sentences),
        }
    }
}

/// Reads all values before the first missing one ends it, so that every sentence is there.
fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let address = read_address(reader);
    let trusted_proxies: Option<Vec<Network>> = reader.list(&v::AUTOMATION_TRUSTED_PROXIES);
    let http = read_http(reader, trusted_proxies.as_deref());
    let database = read_database(reader);
    let durability = reader.parse_with(&v::AUTOMATION_DURABILITY, durability);
    let workers = reader.number(&v::AUTOMATION_WORKERS, 1, 256);
    let isolate_all = reader.parse_with(&v::AUTOMATION_ISOLATE, isolate_all);
    let limits = read_limits(reader);
    let lease = reader.number(&v::AUTOMATION_LEASE_SECONDS, 1, 3600);
    let retention = read_retention(reader);
    let shutdown_grace = reader.number(&v::AUTOMATION_SHUTDOWN_SECONDS, 0, 3600);
    let secrets = read_secrets(reader);
    let log_filter = reader.parse_with(&v::AUTOMATION_LOG, log_filter);
    let python = Some(reader.path(&v::PYTHON_PATH));
    let address = address?;
    Some(Config {
        address,
        http: http?.with_bound(address.ip()),
        trusted_proxies: trusted_proxies?,
        python: python.filter(|path| !path.as_os_str().is_empty()),
        scripts: reader.path(&v::SCRIPTS_PATH),
        logs: reader.path(&v::LOGS_PATH),
        database: database?,
        durability: durability?,
        workers: usize::try_from(workers?).ok()?,
        isolate_all: isolate_all?,
        limits: limits?,
        lease: Duration::from_secs(lease?),
        retention: retention?,
        shutdown_grace: Duration::from_secs(shutdown_grace?),
        secrets,
        log_filter: log_filter?,
        unknown: reader.values.unknown(),
    })
}

/// Without keys, whoever reaches the port runs scripts: that has to be wanted before it is opened to a network.
fn read_address(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let port = reader.number(&v::AUTOMATION_PORT, 0, u64::from(u16::MAX));
    let host: Option<IpAddr> = reader.parse(&v::AUTOMATION_HOST);
    let auth = reader.parse_with(&v::AUTOMATION_AUTH, |text| {
        ["", "none"].contains(&text).then_some(text.to_owned())
    });
    let (host, auth) = (host?, auth?);
    if !host.to_canonical().is_loopback() && auth != "none" {
        let (_, source) = reader.values.get(&v::AUTOMATION_HOST);
        reader.sentences.push(format!(
            "AUTOMATION_HOST is \"{host}\" ({source}), only a loopback address is allowed without \
             AUTOMATION_AUTH=none, which lets everybody who reaches the server run scripts"
        ));
        return None;
    }
    Some(SocketAddr::new(host, u16::try_from(port?).ok()?))
}

/// A URL of PostgreSQL may be wrong in many ways, so the sentence says in which.
fn read_database(reader: &mut Reader<'_>) -> Option<Database> {
    let (url, source) = reader.values.get(&v::DATABASE_URL);
    if !is_postgres(url) {
        return reader.parse_with(&v::DATABASE_URL, database);
    }
    match PostgresStorage::check_url(url) {
        Ok(place) => Some(Database::Postgres(PostgresUrl {
            url: url.to_owned(),
            place,
        })),
        Err(error) => {
            let shown = shown(url);
            let sentence = format!("DATABASE_URL is {shown:?} ({source}): {error}");
            reader.sentences.push(sentence);
            None
        }
    }
}

fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

fn read_http(reader: &mut Reader<'_>, trusted_proxies: Option<&[Network]>) -> Option<HttpConfig> {
    let frontend: Option<Origin> = reader.parse(&v::FRONTEND_URL);
    let hosts: Option<Vec<Host>> = reader.list(&v::AUTOMATION_ALLOWED_HOSTS);
    let rate_limit = reader.parse_with(&v::AUTOMATION_RATE_LIMIT, rate_limit);
    let is_environment = |text: &str| {
        ["development", "test", "production"]
            .contains(&text)
            .then(|| text.to_owned())
    };
    let environment = reader.parse_with(&v::NODE_ENV, is_environment)?;
    let config = HttpConfig::new(frontend?)
        .with_allowed_hosts(hosts?)
        .with_trusted_proxies(trusted_proxies?.iter().copied())
        .with_rate_limit(rate_limit?)
        .with_exposed_errors(environment != "production")
        .with_environment(environment);
    Some(config)
}

/// What no script exceeds, whatever its metadata states; no value is no ceiling.
fn read_limits(reader: &mut Reader<'_>) -> Option<LimitPolicy> {
    let seconds_max = SCRIPT_TIMEOUT_MAX.as_secs();
    let timeout = reader.ceiling(&v::AUTOMATION_TIMEOUT_SECONDS_MAX, 1, seconds_max);
    let cpu = reader.ceiling(&v::AUTOMATION_CPU_SECONDS_MAX, 1, seconds_max);
    let memory_mb = reader.ceiling(&v::AUTOMATION_MEMORY_MB_MAX, 1, SCRIPT_MEMORY_MB_MAX);
    let output_kib = reader.ceiling(&v::AUTOMATION_OUTPUT_KIB_MAX, 1, STREAM_KIB_MAX as u64);
    let children = reader.ceiling(&v::AUTOMATION_CHILDREN_MAX, 0, u64::from(u32::MAX));
    let mut policy = LimitPolicy::default();
    let ceilings = &mut policy.ceilings;
    ceilings.timeout = timeout?.map(Duration::from_secs);
    ceilings.cpu = cpu?.map(Duration::from_secs);
    ceilings.memory_bytes = memory_mb?.map(|mb| mb * 1024 * 1024);
    ceilings.stream_bytes = output_kib?.map(|kib| kib as usize * 1024);
    ceilings.children_max = children?.and_then(|children| children.try_into().ok());
    Some(policy)
}

/// How long failed runs are kept says nothing where the others are kept for ever.
fn read_retention(reader: &mut Reader<'_>) -> Option<Option<Retention>> {
    let days = reader.ceiling(&v::AUTOMATION_RETENTION_DAYS, 0, RETENTION_DAYS_MAX);
    let failed_days = reader.ceiling(&v::AUTOMATION_RETENTION_FAILED_DAYS, 0, RETENTION_DAYS_MAX);
    let number = |days: u64| u32::try_from(days).ok();
    match (days?.and_then(number), failed_days?.and_then(number)) {
        (Some(days), Some(failed)) => Some(Some(Retention::days(days).with_failed_days(failed))),
        (Some(days), None) => Some(Some(Retention::days(days))),
        (None, None) => Some(None),
        (None, Some(_)) => {
            reader.refuse(&v::AUTOMATION_RETENTION_FAILED_DAYS);
            None
        }
    }
}

fn read_secrets(reader: &mut Reader<'_>) -> Secrets {
    let mut secrets = Secrets::new();
    for (name, value) in reader.values.secrets() {
        // The values themselves are never shown.
        if !is_secret_name(name) {
            reader.sentences.push(format!(
                "{SECRET_PREFIX}{name} has no secret's name, letters, digits and _ are allowed"
            ));
        } else if value.len() < SECRET_BYTES_MIN {
            let bytes = value.len();
            reader.sentences.push(format!(
                "{SECRET_PREFIX}{name} has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed to keep it out of logs"
            ));
        } else {
            secrets = secrets.with(name, Secret::new(value));
        }
    }
    let (folder, _) = reader.values.get(&v::AUTOMATION_SECRETS_PATH);
    if folder.is_empty() {
        return secrets;
    }
    if !std::path::Path::new(folder).is_dir() {
        reader.refuse(&v::AUTOMATION_SECRETS_PATH);
    }
    secrets.with_folder(folder)
}

/// Takes values out of the variables, and collects a sentence for each wrong one.
struct Reader<'a> {
    values: &'a Values,
    sentences: Vec<String>,
}

impl Reader<'_> {
    fn parse_with<T>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.values.get(variable).0);
        if parsed.is_none() {
            self.refuse(variable);
        }
        parsed
    }

    fn parse<T: FromStr>(&mut self, variable: &Variable) -> Option<T> {
        self.parse_with(variable, |text| text.parse().ok())
    }

    fn list<T: FromStr>(&mut self, variable: &Variable) -> Option<Vec<T>> {
        let items = |text: &str| {
            text.split(',')
                .map(|item| item.trim().parse().ok())
                .collect()
        };
        self.parse_with(variable, |text| {
            if text.is_empty() {
                Some(Vec::new())
            } else {
                items(text)
            }
        })
    }

    fn number(&mut self, variable: &Variable, min: u64, max: u64) -> Option<u64> {
        self.parse_with(variable, |text| {
            digits(text)?
                .parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
        })
    }

    /// An empty value is no ceiling.
    fn ceiling(&mut self, variable: &Variable, min: u64, max: u64) -> Option<Option<u64>> {
        if self.values.get(variable).0.is_empty() {
            return Some(None);
        }
        self.number(variable, min, max).map(Some)
    }

    fn path(&self, variable: &Variable) -> PathBuf {
        PathBuf::from(self.values.get(variable).0)
    }

    fn refuse(&mut self, variable: &Variable) {
        let (value, source) = self.values.get(variable);
        let source = match source {
            Source::Flag => format!("given by --{}", variable.flag),
            other => other.to_string(),
        };
        let sentence = format!(
            "{} is {:?} ({source}), {}",
            variable.name,
            shown(value),
            variable.allowed
        );
        self.sentences.push(sentence);
    }
}

/// Hides what stands between the scheme and the host of a URL: it may hold a password.
fn shown(value: &str) -> String {
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://***@{rest}"),
        _ => value.to_owned(),
    }
}

/// Returns `text` if it is of digits only: what reads numbers would also take a sign.
fn digits(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

fn database(text: &str) -> Option<Database> {
    if text == "memory:" {
        return Some(Database::Memory);
    }
    let file = text.strip_prefix("sqlite://")?;
    let plain = !file.is_empty()
        && file != ":memory:"
        && !file.ends_with('/')
        && !file.contains(['?', '#', '%']);
    plain.then(|| Database::Sqlite(PathBuf::from(file)))
}

fn durability(text: &str) -> Option<Durability> {
    match text {
        "full" => Some(Durability::Full),
        "normal" => Some(Durability::Normal),
        _ => None,
    }
}

fn isolate_all(text: &str) -> Option<bool> {
    match text {
        "metadata" => Some(false),
        "all" => Some(true),
        _ => None,
    }
}

/// A bare word would be taken for the name of a part of the program, and silence all others.
fn log_filter(text: &str) -> Option<String> {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut parts = text.split(',').map(str::trim);
    let sound = parts.all(|part| part.contains(['=', '[']) || is_level(part));
    let filter = EnvFilter::try_new(text);
    (sound && filter.is_ok()).then(|| text.to_owned())
}

/// `off`, or requests and the time of a window.
fn rate_limit(text: &str) -> Option<Option<RateLimit>> {
    if text == "off" {
        return Some(None);
    }
    let (requests, window) = text.split_once('/')?;
    let requests: NonZeroU32 = digits(requests.trim())?.parse().ok()?;
    let window = humantime::parse_duration(window.trim()).ok()?;
    let sound = (Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60)).contains(&window);
    sound.then(|| Some(RateLimit::new(requests, window)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;
    use std::time::Duration;

    use automation_core::executor::LimitPolicy;
    use automation_core::script::Metadata;

    use super::{Config, Database};
    use crate::variables::Values;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let environment: HashMap<_, _> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::read(&Values {
            environment,
            ..Values::default()
        })
    }

    #[test]
    fn nothing_set_is_a_sound_start() {
        let config = read(&[]).unwrap();
        assert_eq!(config.address.to_string(), "127.0.0.1:3003");
        assert_eq!(
            config.database,
            Database::Sqlite(PathBuf::from("automation.db"))
        );
        assert_eq!((config.workers, config.lease.as_secs()), (256, 30));
    }

    #[test]
    fn runs_are_kept_for_ever_unless_days_are_set() {
        let days = ("AUTOMATION_RETENTION_DAYS", "30");
        let failed = ("AUTOMATION_RETENTION_FAILED_DAYS", "90");
        let retention = automation_core::Retention::days(30);
        assert_eq!(read(&[]).unwrap().retention, None);
        assert_eq!(read(&[days]).unwrap().retention, Some(retention));
        let both = read(&[days, failed]).unwrap().retention;
        assert_eq!(both, Some(retention.with_failed_days(90)));
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        for (name, value) in [
            ("AUTOMATION_PORT", "abc"),
            ("AUTOMATION_PORT", "65536"),
            ("AUTOMATION_PORT", "-1"),
            ("AUTOMATION_PORT", "+3913"),
            ("AUTOMATION_HOST", "localhost"),
            ("AUTOMATION_AUTH", "basic"),
            ("FRONTEND_URL", "*"),
            ("FRONTEND_URL", "null"),
            ("FRONTEND_URL", "http://a.example,http://b.example"),
            ("FRONTEND_URL", "http://a.example/path"),
            ("AUTOMATION_ALLOWED_HOSTS", "a.example:80"),
            ("AUTOMATION_ALLOWED_HOSTS", "a.example,,b.example"),
            ("AUTOMATION_TRUSTED_PROXIES", "10.0.0.0/99"),
            ("AUTOMATION_RATE_LIMIT", "50"),
            ("AUTOMATION_RATE_LIMIT", "0/15m"),
            ("AUTOMATION_RATE_LIMIT", "50/0s"),
            ("AUTOMATION_RATE_LIMIT", "no"),
            ("AUTOMATION_RATE_LIMIT", "+50/15m"),
            ("NODE_ENV", "prod"),
            ("DATABASE_URL", "automation.db"),
            ("DATABASE_URL", "sqlite://"),
            ("DATABASE_URL", "sqlite://:memory:"),
            ("DATABASE_URL", "sqlite://x.db?mode=ro"),
            ("AUTOMATION_DURABILITY", "off"),
            ("AUTOMATION_WORKERS", "0"),
            ("AUTOMATION_ISOLATE", "none"),
            ("AUTOMATION_TIMEOUT_SECONDS_MAX", "0"),
            ("AUTOMATION_TIMEOUT_SECONDS_MAX", "86401"),
            ("AUTOMATION_CPU_SECONDS_MAX", "1.5"),
            ("AUTOMATION_MEMORY_MB_MAX", "1048577"),
            ("AUTOMATION_OUTPUT_KIB_MAX", "16385"),
            ("AUTOMATION_CHILDREN_MAX", "-1"),
            ("AUTOMATION_LEASE_SECONDS", "0"),
            ("AUTOMATION_RETENTION_DAYS", "36501"),
            ("AUTOMATION_RETENTION_FAILED_DAYS", "90"),
            ("AUTOMATION_SHUTDOWN_SECONDS", "1h"),
            ("AUTOMATION_SECRETS_PATH", "/nowhere/at/all"),
            ("AUTOMATION_LOG", "a=b=c"),
            ("AUTOMATION_LOG", "inof"),
            ("AUTOMATION_LOG", "info,automation_core"),
        ] {
            let sentences = read(&[(name, value)]).expect_err(name);
            let [sentence] = &sentences[..] else {
                panic!("{sentences:?}")
            };
            assert!(
                sentence.starts_with(&format!("{name} is {value:?} (from the environment), ")),
                "{sentence}"
            );
            assert!(sentence.contains("allowed"), "{sentence}");
        }
    }

    #[test]
    fn filters_are_levels_and_parts_with_levels() {
        for filter in [
            "off",
            "WARN",
            "info,automation_core=debug",
            "warn,automation_http=trace",
            "[request{path}]=debug",
        ] {
            let config = read(&[("AUTOMATION_LOG", filter)]).unwrap();
            assert_eq!(config.log_filter, filter);
        }
    }

    #[test]
    fn every_wrong_value_is_named_at_once() {
        let sentences = read(&[
            ("AUTOMATION_PORT", "x"),
            ("NODE_ENV", "y"),
            ("DATABASE_URL", "z"),
        ])
        .unwrap_err();
        assert_eq!(sentences.len(), 3, "{sentences:?}");
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for url in [
            "mysql://me:hunter2@db.example/x",
            "postgres://me:hunter2@db.example/x?sslmode=maybe",
        ] {
            let sentences = read(&[("DATABASE_URL", url)]).unwrap_err();
            let text = sentences.join("\n");
            assert!(text.contains("://***@db.example/x"), "{text}");
            assert!(text.contains("allowed"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let config = read(&[("DATABASE_URL", "postgres://me:hunter2@db.example/x")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(
            config.database.to_string(),
            "PostgreSQL db.example/x",
            "and it is a database"
        );
    }

    #[test]
    fn databases_are_files_or_memory() {
        for (url, file) in [
            ("sqlite://a.db", "a.db"),
            ("sqlite:///var/a.db", "/var/a.db"),
            ("sqlite://data/a.db", "data/a.db"),
        ] {
            assert_eq!(
                read(&[("DATABASE_URL", url)]).unwrap().database,
                Database::Sqlite(PathBuf::from(file))
            );
        }
        assert_eq!(
            read(&[("DATABASE_URL", "memory:")]).unwrap().database,
            Database::Memory
        );
    }

    #[test]
    fn ceilings_are_set_one_by_one() {
        assert_eq!(read(&[]).unwrap().limits, LimitPolicy::default());
        let config = read(&[
            ("AUTOMATION_TIMEOUT_SECONDS_MAX", "60"),
            ("AUTOMATION_CPU_SECONDS_MAX", "30"),
            ("AUTOMATION_MEMORY_MB_MAX", "128"),
            ("AUTOMATION_OUTPUT_KIB_MAX", "64"),
            ("AUTOMATION_CHILDREN_MAX", "0"),
            ("AUTOMATION_ISOLATE", "all"),
        ]);
        let config = config.unwrap();
        let limits = config.limits.limits(&Metadata::default());
        assert_eq!(
            (limits.timeout.as_secs(), limits.cpu),
            (60, Some(Duration::from_secs(30)))
        );
        assert_eq!(
            (limits.memory_bytes, limits.stream_bytes),
            (128 << 20, 64 << 10)
        );
        assert_eq!((limits.children_max, config.isolate_all), (Some(0), true));
    }

    #[test]
    fn a_network_is_opened_only_on_purpose() {
        for host in ["0.0.0.0", "::", "192.0.2.1"] {
            let sentences = read(&[("AUTOMATION_HOST", host)]).unwrap_err();
            assert!(
                sentences[0].contains("AUTOMATION_AUTH=none"),
                "{sentences:?}"
            );
            assert!(read(&[("AUTOMATION_HOST", host), ("AUTOMATION_AUTH", "none")]).is_ok());
        }
        for host in ["127.0.0.1", "127.1.2.3", "::1"] {
            assert!(read(&[("AUTOMATION_HOST", host)]).is_ok(), "{host}");
        }
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        let sentences = read(&[
            ("AUTOMATION_SECRET_SMTP-X", "hunter2"),
            ("AUTOMATION_SECRET_PIN", "123"),
        ])
        .unwrap_err();
        let text = sentences.join("\n");
        assert!(
            text.contains("AUTOMATION_SECRET_SMTP-X") && text.contains("AUTOMATION_SECRET_PIN"),
            "{text}"
        );
        assert!(!text.contains("hunter2") && !text.contains("123"), "{text}");
        let config = read(&[("AUTOMATION_SECRET_SMTP_PASSWORD", "hunter2")]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
