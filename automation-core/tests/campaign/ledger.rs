//! What happened, written down outside the engine: what scripts did and what callers were told. A line counts when it
//! is whole; each is one append, which stays when the process is killed. Knows nothing of the engine's rows.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use automation_core::{Execution, ExecutionId};
use serde::{Deserialize, Serialize};

/// What a script did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Began,
    Ended,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A script that was run for a request did something.
    Effect {
        id: ExecutionId,
        request: String,
        phase: Phase,
    },
    /// A caller was told how the run ended.
    Answered { request: String, answer: Answer },
    /// A caller was told that nothing ran, and to come again.
    Refused { request: String, why: String },
}

/// What a caller was told of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: ExecutionId,
    pub(crate) status: automation_core::Status,
    /// All of it, in a few bytes.
    digest: u64,
}

impl Answer {
    pub(crate) fn of(row: &Execution) -> Self {
        use std::hash::{DefaultHasher, Hasher};
        let mut hasher = DefaultHasher::new();
        hasher.write(&serde_json::to_vec(row).unwrap());
        Self {
            id: row.id,
            status: row.status,
            digest: hasher.finish(),
        }
    }
}

/// The file that lines are added to.
#[derive(Debug)]
pub(crate) struct Ledger(File);

impl Ledger {
    pub(crate) fn open(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        Self(options.create(true).append(true).open(path).unwrap())
    }

    /// Adds a line and brings it to the disk.
    pub(crate) fn note(&self, line: &Line) {
        // The line feed is first: a line that a kill cut short does not spoil the next one.
        let text = format!("\n{}", serde_json::to_string(line).unwrap());
        (&self.0).write_all(text.as_bytes()).unwrap();
        self.0.sync_data().unwrap();
    }
}

/// Reads the lines that are whole.
pub(crate) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[test]
fn a_line_that_was_cut_short_is_no_line_and_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let line = |request: &str| Line::Refused {
        request: request.to_owned(),
        why: String::new(),
    };
    Ledger::open(&path).note(&line("a"));
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"\n{\"Refused\":{\"requ").unwrap();
    Ledger::open(&path).note(&line("b"));
    assert_eq!(read(&path), [line("a"), line("b")]);
}
