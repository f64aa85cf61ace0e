//! What makes a structured result out of a run's output.

mod documents;
mod json_in_noise;
mod machine;
mod progress;

use std::fmt::Debug;

use serde_json::{Map, Value};

pub use self::json_in_noise::JsonInNoise;
pub use self::progress::{Progress, progress_line};
use crate::error::Problem;
use crate::executor::RawOutput;

/// Finds the result in a run's output.
///
/// # Contract
/// Pure: the same output gives the same answer; linear in the size of the output. It never fails: a status comes
/// from control flow only, and text that holds no result is not an error.
pub trait OutputParser: Debug + Send + Sync + 'static {
    /// Finds the result.
    fn parse(&self, output: &RawOutput) -> ParsedOutput;
}

/// What a parser found.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct ParsedOutput {
    /// The result; anything but an object is wrapped as `{"value": ...}`.
    pub value: Option<Map<String, Value>>,
    /// How it was found.
    pub found: Found,
    /// Documents that standard output holds, where it was looked at: the last one wins.
    pub documents_seen: usize,
}

/// How a result was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Found {
    /// There is none.
    #[default]
    Nothing,
    /// It is the value that the script's function returned.
    Returned,
    /// It is the whole of standard output.
    Exact,
    /// It is an object among other text.
    Embedded,
    /// There is one, and it breaks the JSON profile: why, and where. Nothing is guessed or repaired.
    Rejected(Problem),
}

#[cfg(test)]
mod tests;
