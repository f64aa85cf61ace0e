//! From a storage's URL to the storage.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use automation_core::{Error, MemoryStorage, SqliteStorage, Storage};

/// Where executions are recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StorageUrl {
    /// `memory:`; forgotten at the end.
    Memory,
    /// `sqlite://FILE`, or `sqlite:///ABSOLUTE/FILE`.
    Sqlite(PathBuf),
}

impl StorageUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Only `invalid_request`, which names the URL without its password.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        text.strip_prefix("sqlite://")
            .filter(|file| is_plain_file(file))
            .map(|file| Self::Sqlite(PathBuf::from(file)))
            .ok_or_else(|| {
                let detail = format!(
                    "is {:?}, expected \"memory:\", \"sqlite://FILE\" or \"sqlite:///ABSOLUTE/FILE\"",
                    without_password(text)
                );
                Error::invalid_request("/storage", detail)
            })
    }

    /// Opens the storage.
    ///
    /// # Errors
    /// Only `storage`: the file can't be used.
    pub(super) async fn open(self) -> Result<Arc<dyn Storage>, Error> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStorage::default()),
            Self::Sqlite(file) => Arc::new(SqliteStorage::open(file).await?),
        })
    }
}

impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Sqlite(file) => write!(f, "sqlite://{}", file.display()),
        }
    }
}

/// Options and escapes of other libraries' URLs are refused: they would end up in the file's name.
fn is_plain_file(file: &str) -> bool {
    !file.is_empty() && !file.ends_with('/') && !file.contains(['?', '#', '%', '\0'])
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://***@{place}"),
        _ => url.to_owned(),
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
        let memory = StorageUrl::parse("memory:").unwrap();
        assert_eq!(memory, StorageUrl::Memory);
        assert_eq!(memory.to_string(), "memory:");
    }

    #[test]
    fn anything_else_is_named() {
        for url in [
            "",
            "memory",
            "automation.db",
            "sqlite:",
            "sqlite://",
            "sqlite://folder/",
            "sqlite://a.db?mode=ro",
            "sqlite://a%20b.db",
            "SQLITE://a.db",
            "file:a.db",
        ] {
            let error = StorageUrl::parse(url).unwrap_err().to_string();
            assert!(error.contains(&format!("/storage: is {url:?}")), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let error = StorageUrl::parse("postgres://me:hunter2@db.example/x").unwrap_err();
        let error = error.to_string();
        assert!(error.contains("postgres://***@db.example/x"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
