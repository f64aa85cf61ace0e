//! The variables of the server: their names, flags and defaults, and where a value was given.
//! What values mean is `config`'s business.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

/// One variable. It is set by its flag, by the environment or by `.env`, in this order.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) flag: &'static str,
    /// Empty: not set.
    pub(crate) default: &'static str,
    /// Ends the sentence `NAME is "value", ...`.
    pub(crate) allowed: &'static str,
    pub(crate) help: &'static str,
}

macro_rules! variables {
    ($($name:ident, $flag:literal, $default:literal, $allowed:literal, $help:literal;)+) => {
        $(pub(crate) const $name: Variable = Variable {
            name: stringify!($name),
            flag: $flag,
            default: $default,
            allowed: $allowed,
            help: $help,
        };)+
        /// Every variable, in the order of the help text.
        pub(crate) const ALL: &[&Variable] = &[$(&$name),+];
    };
}

variables! {
    AUTOMATION_PORT, "port", "3003", "a port from 0 to 65535 is allowed (0 is any free one)",
        "Port to listen on";
    AUTOMATION_HOST, "host", "127.0.0.1", "an IP address is allowed",
        "Address to listen on, with 127.0.0.1 also ::1; one that is not loopback needs AUTOMATION_AUTH=none";
    AUTOMATION_AUTH, "auth", "", "none is allowed, and lets everybody who reaches the server run scripts",
        "How clients prove who they are; none lets everybody in on any address";
    FRONTEND_URL, "frontend-url", "http://localhost:3000",
        "one origin without a path is allowed, for instance http://localhost:3000",
        "The one web origin whose pages may call the server";
    AUTOMATION_ALLOWED_HOSTS, "allowed-hosts", "",
        "names or addresses without ports, separated by commas, are allowed",
        "Hosts under which the server may be addressed, beside loopback and its own address";
    AUTOMATION_TRUSTED_PROXIES, "trusted-proxies", "",
        "addresses or ranges such as 10.0.0.0/8, separated by commas, are allowed",
        "Proxies whose X-Forwarded-For is believed";
    AUTOMATION_RATE_LIMIT, "rate-limit", "50/15m", "requests/time such as 50/15m, or off, are allowed",
        "Runs that a client may ask for in a time";
    NODE_ENV, "environment", "development", "development, test and production are allowed",
        "production hides the causes of errors from clients";
    PYTHON_PATH, "python", "", "a Python program is allowed",
        "The Python whose environment is embedded, by default the one it was built with; a venv's python activates that venv";
    SCRIPTS_PATH, "scripts", "./scripts", "a folder is allowed",
        "Folder of the automation scripts";
    LOGS_PATH, "logs", "./logs", "a folder is allowed",
        "Folder of the server's log files, one a day";
    DATABASE_URL, "database", "sqlite://automation.db",
        "sqlite://FILE, sqlite:///ABSOLUTE/FILE, postgres://USER:PASSWORD@HOST/DATABASE and memory: are allowed",
        "Where runs are recorded; memory: forgets them at the end";
    AUTOMATION_DURABILITY, "durability", "full", "full and normal are allowed",
        "full survives a power cut, normal may then lose the latest runs; PostgreSQL is always full";
    AUTOMATION_WORKERS, "workers", "256", "a number from 1 to 256 is allowed",
        "Scripts that run at once, at most; threads are started when scripts wait";
    AUTOMATION_ISOLATE, "isolate", "metadata", "metadata and all are allowed",
        "Which scripts run in a process of their own: those whose metadata says so, or all";
    AUTOMATION_TIMEOUT_SECONDS_MAX, "timeout-seconds-max", "", "a number from 1 to 86400 is allowed",
        "Longest time that a script gets, whatever its metadata says";
    AUTOMATION_CPU_SECONDS_MAX, "cpu-seconds-max", "", "a number from 1 to 86400 is allowed",
        "Most processor time that a script gets, whatever its metadata says";
    AUTOMATION_MEMORY_MB_MAX, "memory-mb-max", "", "a number from 1 to 1048576 is allowed",
        "Most memory in MiB that a script gets, whatever its metadata says";
    AUTOMATION_OUTPUT_KIB_MAX, "output-kib-max", "", "a number from 1 to 16384 is allowed",
        "Most output in KiB that is kept of a stream, whatever a script's metadata says";
    AUTOMATION_CHILDREN_MAX, "children-max", "", "a number from 0 to 4294967295 is allowed",
        "Most programs that a script starts, whatever its metadata says";
    AUTOMATION_LEASE_SECONDS, "lease-seconds", "30", "a number from 1 to 3600 is allowed",
        "Seconds for which this server's runs are its own without a renewal";
    AUTOMATION_RETENTION_DAYS, "retention-days", "", "a number from 0 to 36500 is allowed",
        "Days for which ended runs are kept, for ever where it is not set; statistics keep what they counted";
    AUTOMATION_RETENTION_FAILED_DAYS, "retention-failed-days", "",
        "a number from 0 to 36500 is allowed, together with AUTOMATION_RETENTION_DAYS",
        "Days for which failed runs are kept, where it is not as long as others";
    AUTOMATION_SHUTDOWN_SECONDS, "shutdown-seconds", "30", "a number from 0 to 3600 is allowed",
        "Seconds that runs get to end at shutdown";
    AUTOMATION_SECRETS_PATH, "secrets-path", "", "a folder is allowed",
        "Folder of secrets, one file a secret; AUTOMATION_SECRET_NAME sets a single one";
    AUTOMATION_LOG, "log", "info", "a tracing filter is allowed, for instance info,automation_core=debug",
        "What is logged";
}

/// The prefix of the variables that hold one secret each.
pub(crate) const SECRET_PREFIX: &str = "AUTOMATION_SECRET_";

/// Names that begin like the server's variables and are read by others.
const OTHERS: [&str; 2] = ["AUTOMATION_SETTING_", "AUTOMATION_LOG_ROOT"];

/// Returns whether a name is one of the server's, or looks like one.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("AUTOMATION_") || is_known(name)
}

fn is_known(name: &str) -> bool {
    ALL.iter().any(|variable| variable.name == name)
}

/// Where a value was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Environment,
    File,
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "given by its flag",
            Self::Environment => "from the environment",
            Self::File => "from .env",
            Self::Default => "its default",
        })
    }
}

/// The values of all variables.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) flags: HashMap<String, String>,
    pub(crate) environment: HashMap<String, String>,
    pub(crate) file: HashMap<String, String>,
}

impl Values {
    /// Returns a variable's value and where it was given; an empty value is none.
    pub(crate) fn get(&self, variable: &Variable) -> (&str, Source) {
        let places = [
            (self.flags.get(variable.flag), Source::Flag),
            (self.environment.get(variable.name), Source::Environment),
            (self.file.get(variable.name), Source::File),
        ];
        let given = places
            .into_iter()
            .filter_map(|(value, source)| Some((value?.trim(), source)));
        let default = (variable.default, Source::Default);
        given
            .into_iter()
            .find(|(value, _)| !value.is_empty())
            .unwrap_or(default)
    }

    /// Returns the names that look like the server's and are nobody's, in order.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let is_others = |name: &str| {
            name.starts_with(SECRET_PREFIX) || OTHERS.iter().any(|other| name.starts_with(other))
        };
        let names = self.environment.keys().chain(self.file.keys());
        let unknown = names.filter(|name| is_ours(name) && !is_known(name) && !is_others(name));
        unknown
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Returns the variables that hold one secret each, without their prefix; the environment overrides `.env`.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&str, &str)> {
        let file = self
            .file
            .iter()
            .filter(|(name, _)| !self.environment.contains_key(*name));
        self.environment
            .iter()
            .chain(file)
            .filter_map(|(name, value)| Some((name.strip_prefix(SECRET_PREFIX)?, value.as_str())))
    }
}

/// The flag that prints the tables.
pub(crate) const PRINT_SCHEMA: &str = "print-schema";
/// The flag that copies the database.
pub(crate) const BACK_UP: &str = "back-up";

/// Returns the command line's grammar, made of the variables.
pub(crate) fn command() -> Command {
    let flags = ALL.iter().map(|variable| {
        let default = if variable.default.is_empty() {
            String::new()
        } else {
            format!(", default {}", variable.default)
        };
        Arg::new(variable.flag)
            .long(variable.flag)
            .value_name("VALUE")
            .help(format!("{} [{}{default}]", variable.help, variable.name))
    });
    Command::new("automation-server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs helpdesk automation scripts behind an HTTP interface")
        .after_help(
            "Flags override the environment, the environment overrides .env in the working directory.\n\n\
             Exit codes: 0 ended when asked to, 1 could not start or end in good order, 2 a wrong value, 75 scripts that \
             could not be stopped have used up the threads: start the server again.",
        )
        .args(flags)
        .arg(
            Arg::new(PRINT_SCHEMA)
                .long(PRINT_SCHEMA)
                .action(ArgAction::SetTrue)
                .help("Prints the tables for PostgreSQL as SQL, and ends"),
        )
        .arg(
            Arg::new(BACK_UP)
                .long(BACK_UP)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Copies the SQLite database into a new file, also while a server uses it, and ends"),
        )
}

/// Returns the flags that were given.
pub(crate) fn given_flags(matches: &ArgMatches) -> HashMap<String, String> {
    let given = |variable: &&Variable| {
        Some((
            variable.flag.to_owned(),
            matches.get_one::<String>(variable.flag)?.clone(),
        ))
    };
    ALL.iter().filter_map(given).collect()
}

/// Returns the environment, and a sentence for each variable of ours that is not UTF-8.
pub(crate) fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> (HashMap<String, String>, Vec<String>) {
    let mut values = HashMap::new();
    let mut sentences = Vec::new();
    // A name that is not UTF-8 can be nothing of ours.
    for (name, value) in
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
    {
        match value.into_string() {
            Ok(value) => {
                values.insert(name, value);
            }
            Err(_) if is_ours(&name) => {
                sentences.push(format!("{name} is not UTF-8 (from the environment)"));
            }
            Err(_) => {}
        }
    }
    (values, sentences)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::{ALL, AUTOMATION_PORT, Source, Values, command};

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let mut values = Values::default();
        assert_eq!(values.get(&AUTOMATION_PORT), ("3003", Source::Default));
        values.file = map(&[("AUTOMATION_PORT", "1")]);
        assert_eq!(values.get(&AUTOMATION_PORT), ("1", Source::File));
        values.environment = map(&[("AUTOMATION_PORT", "2")]);
        assert_eq!(values.get(&AUTOMATION_PORT), ("2", Source::Environment));
        values.flags = map(&[("port", "3")]);
        assert_eq!(values.get(&AUTOMATION_PORT), ("3", Source::Flag));
        values.flags = map(&[("port", " ")]);
        assert_eq!(
            values.get(&AUTOMATION_PORT),
            ("2", Source::Environment),
            "an empty value is none"
        );
    }

    #[test]
    fn secrets_are_named_without_their_prefix() {
        let values = Values {
            environment: map(&[
                ("AUTOMATION_SECRET_A", "from-environment"),
                ("AUTOMATION_SECRETS_PATH", "/x"),
                ("OTHER", "y"),
            ]),
            file: map(&[
                ("AUTOMATION_SECRET_A", "from-file"),
                ("AUTOMATION_SECRET_B", "b"),
            ]),
            ..Values::default()
        };
        let secrets: HashMap<_, _> = values.secrets().collect();
        assert_eq!(
            secrets,
            HashMap::from([("A", "from-environment"), ("B", "b")])
        );
    }

    #[test]
    fn names_that_are_nobodys_are_told() {
        let values = Values {
            environment: map(&[
                ("AUTOMATION_PROT", "1"),
                ("AUTOMATION_PORT", "1"),
                ("AUTOMATION_SECRET_A", "a"),
                ("AUTOMATION_SETTING_A", "a"),
                ("AUTOMATION_LOG_ROOT", "a"),
                ("OTHER", "y"),
            ]),
            file: map(&[("AUTOMATION_LGO", "1"), ("AUTOMATION_PROT", "2")]),
            ..Values::default()
        };
        assert_eq!(values.unknown(), ["AUTOMATION_LGO", "AUTOMATION_PROT"]);
    }

    #[test]
    fn names_and_flags_are_unique_and_the_grammar_is_sound() {
        let names: HashSet<_> = ALL
            .iter()
            .flat_map(|variable| [variable.name, variable.flag])
            .collect();
        assert_eq!(names.len(), 2 * ALL.len());
        command().debug_assert();
    }

    #[test]
    fn the_example_file_has_every_variable_with_its_default() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/server/.env.example");
        let (example, sentences) = crate::env_file::read(std::path::Path::new(path));
        assert_eq!(sentences, Vec::<String>::new());
        for variable in ALL {
            let value = example
                .get(variable.name)
                .unwrap_or_else(|| panic!("{} is missing", variable.name));
            assert_eq!(value, variable.default, "{}", variable.name);
        }
        assert_eq!(example.len(), ALL.len(), "{example:?}");
    }
}
