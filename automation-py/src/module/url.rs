//! From a storage's URL to the storage.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use automation_core::{Error, MemoryStorage, PostgresStorage, SqliteStorage, Storage};

/// Where executions are recorded.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum StorageUrl {
    /// `memory:`; forgotten at the end.
    Memory,
    /// `sqlite://FILE`, or `sqlite:///ABSOLUTE/FILE`.
    Sqlite(PathBuf),
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?OPTIONS`, and the place that it names.
    Postgres { url: String, place: String },
}

impl StorageUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Only `invalid_request`, which names the scheme: a password may be anywhere in the rest.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        if ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
        {
            return Self::postgres(text);
        }
        text.strip_prefix("sqlite://")
            .filter(|file| is_plain_file(file))
            .map(|file| Self::Sqlite(PathBuf::from(file)))
            .ok_or_else(|| {
                let detail = format!(
                    "{}, expected \"memory:\", \"sqlite://FILE\", \"sqlite:///ABSOLUTE/FILE\" or \"postgres://USER:PASSWORD@HOST/DATABASE\"",
                    found(text)
                );
                Error::invalid_request("/storage", detail)
            })
    }

    fn postgres(url: &str) -> Result<Self, Error> {
        let place = PostgresStorage::check_url(url)
            .map_err(|error| Error::invalid_request("/storage", error.to_string()))?;
        let url = url.to_owned();
        Ok(Self::Postgres { url, place })
    }

    /// Opens the storage; returns beside it the file for the ends of runs that it does not take: where it is a file
    /// itself, the one with `.spool` added to its name.
    ///
    /// # Errors
    /// Only `storage`: the file or the server can't be used.
    pub(super) async fn open(self) -> Result<(Arc<dyn Storage>, Option<PathBuf>), Error> {
        Ok(match self {
            Self::Memory => (Arc::new(MemoryStorage::default()), None),
            Self::Sqlite(file) => {
                let storage = SqliteStorage::open(file).await?;
                let spool = storage.path().with_added_extension("spool");
                (Arc::new(storage), Some(spool))
            }
            Self::Postgres { url, .. } => (Arc::new(PostgresStorage::connect(url).await?), None),
        })
    }
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(file) => write!(f, "sqlite://{}", file.display()),
            Self::Postgres { place, .. } => write!(f, "postgres://{place}"),
        }
    }
}

impl fmt::Debug for StorageUrl {
    // The URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Options and escapes of other libraries' URLs are refused: they would end up in the file's name.
fn is_plain_file(file: &str) -> bool {
    !file.is_empty() && !file.ends_with('/') && !file.contains(['?', '#', '%', '\0'])
}

/// Says what was found instead, without anything that may be a secret.
fn found(url: &str) -> String {
    let is_scheme = |scheme: &&str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    match url
        .split_once("://")
        .map(|(scheme, _)| scheme)
        .filter(is_scheme)
    {
        Some("sqlite") => "names no plain file after sqlite://".to_owned(),
        Some(scheme) => format!("has the scheme {scheme:?}"),
        None if url.is_empty() => "is empty".to_owned(),
        None => "has no scheme".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::StorageUrl;

    #[test]
    fn urls_name_files_or_memory() {
        for (url, file) in [
            ("sqlite://a.db", "a.db"),
            ("sqlite://data/a.db", "data/a.db"),
            ("sqlite:///var/a.db", "/var/a.db"),
        ] {
            let parsed = StorageUrl::parse(url).unwrap();
            assert_eq!(parsed, StorageUrl::Sqlite(file.into()));
            assert_eq!(parsed.to_string(), url);
        }
        let server = StorageUrl::parse("postgres://me:hunter2@db.example:5433/x").unwrap();
        assert_eq!(
            format!("{server} {server:?}"),
            "postgres://db.example/x postgres://db.example/x"
        );
        let memory = StorageUrl::parse("memory:").unwrap();
        assert_eq!(memory, StorageUrl::Memory);
        assert_eq!(memory.to_string(), "memory:");
    }

    #[test]
    fn anything_else_is_refused() {
        for (url, found) in [
            ("", "is empty"),
            ("memory", "has no scheme"),
            ("automation.db", "has no scheme"),
            ("sqlite:", "has no scheme"),
            ("file:a.db", "has no scheme"),
            ("sqlite://", "names no plain file after sqlite://"),
            ("sqlite://folder/", "names no plain file after sqlite://"),
            (
                "sqlite://a.db?mode=ro",
                "names no plain file after sqlite://",
            ),
            ("sqlite://a%20b.db", "names no plain file after sqlite://"),
            ("SQLITE://a.db", "has the scheme \"SQLITE\""),
        ] {
            let error = StorageUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(&format!("/storage: {found}, ")), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in [
            "mysql://me:hunter2@db.example/x",
            "postgres://me:hunter2@db.example/x?sslmode=maybe",
            "postgres://db.example/x?user=me&password=hunter2&port=hunter2",
            "host=db password=hunter2",
            "me:hunter2@db/x",
            "me:hunter2://x",
            "sqlite://x.db?key=hunter2",
        ] {
            let error = StorageUrl::parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
