//! What can be wrong with a document. Messages name places, kinds and keys, never values.

use thiserror::Error as ThisError;

use crate::error::Problem;
use crate::limits;

/// Longest part of a key that a message shows, in characters.
const KEY_CHARS_SHOWN: usize = 64;

/// Why a document is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, in bytes from the start.
    pub offset: usize,
}

impl JsonError {
    /// Returns the same error for a document that begins at `start` of a larger text.
    pub(crate) fn within(mut self, start: usize) -> Self {
        self.offset += start;
        self
    }
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::new("", error.to_string())
    }
}

/// What is wrong with a document: one variant a breach of the profile.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// Not JSON.
    #[error("invalid JSON: expected {expected}")]
    Syntax {
        /// What would have been right.
        expected: &'static str,
    },
    /// The document ends before it is complete; an empty one does so at byte 0.
    #[error("invalid JSON: unexpected end")]
    Incomplete,
    /// Something follows the document.
    #[error("invalid JSON: text after the value")]
    TrailingText,
    /// Valid, and not an object where one is needed.
    #[error("expected an object")]
    NotAnObject,
    /// Larger than [`limits::JSON_BYTES_MAX`].
    #[error("longer than {} bytes", limits::JSON_BYTES_MAX)]
    TooLong,
    /// Nested deeper than [`limits::JSON_DEPTH_MAX`].
    #[error("nested deeper than {} levels", limits::JSON_DEPTH_MAX)]
    TooDeep,
    /// More values and keys than [`limits::JSON_NODES_MAX`].
    #[error("more than {} values and keys", limits::JSON_NODES_MAX)]
    TooManyNodes,
    /// An object has a key twice, however it is escaped.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key; of a long one its beginning.
        key: String,
    },
    /// `NaN`, `Infinity` or `-Infinity`, which some programs write.
    #[error("NaN or Infinity (not JSON)")]
    NotFinite,
    /// A number beyond the range of a 64-bit float.
    #[error("number too large")]
    NumberOverflow,
    /// An integer beyond ±[`limits::JSON_INTEGER_MAX`].
    #[error("integer beyond ±{} (send it as a string)", limits::JSON_INTEGER_MAX)]
    IntegerOverflow,
    /// The character U+0000, raw or escaped.
    #[error("character U+0000")]
    NulCharacter,
    /// Half of a surrogate pair.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// Bytes that are not UTF-8.
    #[error("invalid UTF-8")]
    InvalidUtf8,
}

impl JsonErrorKind {
    pub(super) fn duplicate(key: &str) -> Self {
        Self::DuplicateKey {
            key: key.chars().take(KEY_CHARS_SHOWN).collect(),
        }
    }
}
