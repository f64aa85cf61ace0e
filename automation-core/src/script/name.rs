//! The grammar of script names. A name is a key into an index that was built when the folder was read: nothing
//! joins it to a path.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error as ThisError;

use super::message::clip;

/// Most characters before `.py`.
const STEM_MAX: usize = 64;

/// A script's name, for instance `disk_cleanup.py`.
///
/// A letter or a digit, then at most 63 letters, digits, `_` or `-`, then `.py`; ASCII, and the case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScriptName(Arc<str>);

/// That a text is not a script's name.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error(
    "\"{}\" is not a script's name: expected a letter or a digit, then at most 63 letters, digits, _ or -, then .py",
    clip(name).escape_default()
)]
pub struct InvalidName {
    name: String,
}

impl ScriptName {
    /// Checks a name. Nothing is trimmed, folded or decoded.
    ///
    /// # Errors
    /// [`InvalidName`], the only way this fails, when the text breaks the grammar.
    ///
    /// # Examples
    /// ```
    /// use automation_core::script::ScriptName;
    ///
    /// assert!(ScriptName::parse("disk_cleanup.py").is_ok());
    /// assert!(ScriptName::parse("../disk_cleanup.py").is_err());
    /// ```
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        if is_name(name) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName {
                name: name.to_owned(),
            })
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ScriptName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(name: &str) -> bool {
    name.strip_suffix(".py").is_some_and(|stem| {
        (1..=STEM_MAX).contains(&stem.len())
            && stem.starts_with(|first: char| first.is_ascii_alphanumeric())
            && stem
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::ScriptName;

    #[test]
    fn names_within_the_grammar() {
        let longest = format!("{}.py", "a".repeat(64));
        for name in [
            "a.py",
            "0.py",
            "disk_cleanup.py",
            "Disk-Cleanup2.py",
            "CON.py",
            &longest,
        ] {
            assert_eq!(ScriptName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let overlong = format!("{}.py", "a".repeat(65));
        let huge = "a".repeat(300);
        for name in [
            "",
            ".py",
            "a",
            "a.pyc",
            "a.PY",
            "a.py ",
            " a.py",
            "a.py\n",
            "a.py.",
            "a.py.py",
            "a b.py",
            "_helper.py",
            "-rf.py",
            ".hidden.py",
            "../x.py",
            "..%2fx.py",
            "%2e%2e%2fx.py",
            "%252e%252e%252fx.py",
            "..\\x.py",
            "/etc/x.py",
            "C:\\x.py",
            "a/b.py",
            "a\0.py",
            "a.py\0",
            "a\u{430}.py",
            "\u{430}.py",
            "\u{fb01}x.py",
            "a\u{202e}.py",
            "\u{ff41}.py",
            "a.p\u{443}",
            "\u{feff}a.py",
            "a\u{301}.py",
            "a;ls.py",
            "$(x).py",
            "__import__('os').py",
            &overlong,
            &huge,
        ] {
            assert!(ScriptName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_message_unmasks_look_alikes_and_stays_short() {
        let error = ScriptName::parse("disk_cle\u{430}nup.py").unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"disk_cle\\u{430}nup.py\" is not a script's name: expected a letter or a digit, then at most 63 \
             letters, digits, _ or -, then .py"
        );
        let error = ScriptName::parse(&"a".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
