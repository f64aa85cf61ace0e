//! The stop switches: people keep everything, one script or one category from starting, until they let it go on.
//!
//! Every run asks, so the answer is read without a lock (`notices`). A stop holds here before it is recorded: whoever
//! pulls an emergency switch must not wait for a storage.

mod commands;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::notices::{Notice, Notices};
use crate::error::{Error, Result};
use crate::policy::Subject;
use crate::script::Category;
use crate::storage::RecordKind;

/// What is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "scope", content = "name")]
pub enum StopTarget {
    /// Everything.
    All,
    /// One script, by its name.
    Script(String),
    /// One category, in any spelling that [`Category`] takes for equal: the scripts that declare it, and the tickets
    /// that are classified so.
    Category(String),
}

impl StopTarget {
    fn key(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Script(name) => format!("script:{name}"),
            Self::Category(name) => format!("category:{}", Category::new(name)),
        }
    }
}

impl fmt::Display for StopTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Script(name) => write!(f, "script {name:?}"),
            Self::Category(name) => write!(f, "category {name:?}"),
        }
    }
}

/// That something is stopped: by whom, why and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stopped {
    /// What.
    pub target: StopTarget,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, at) = (&self.target, self.at.to_rfc3339());
        let verb = match target {
            StopTarget::All => "was",
            StopTarget::Script(_) | StopTarget::Category(_) => "is",
        };
        write!(
            f,
            "{target} {verb} stopped by {} at {at}: {}",
            self.actor, self.reason
        )
    }
}

impl Notice for Stopped {
    const KIND: RecordKind = RecordKind::Stop;

    /// The first stays: it says who did it.
    fn outweighs(&self, _other: &Self) -> bool {
        false
    }
}

#[derive(Debug, Default)]
pub(super) struct Stops {
    /// By the target's key.
    notices: Notices<Stopped>,
}

impl Stops {
    /// Refuses what is stopped. A script's own category counts beside the one for which it runs.
    pub(super) fn check(&self, subject: Subject<'_>, declared: Option<&str>) -> Result<()> {
        let stops = self.notices.entries();
        if stops.is_empty() {
            return Ok(());
        }
        let of_category = |name: &str| StopTarget::Category(name.to_owned());
        let targets = [
            Some(StopTarget::All),
            Some(StopTarget::Script(subject.script.to_owned())),
            subject.category.map(of_category),
            declared.map(of_category),
        ];
        let mut targets = targets.into_iter().flatten();
        match targets.find_map(|target| stops.get(target.key().as_str())) {
            Some(stop) => Err(Error::Stopped(Box::new(stop.notice.clone()))),
            None => Ok(()),
        }
    }
}
