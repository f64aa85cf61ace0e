//! How many runs there may be: the rules. Counting is the engine's business.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Subject;
use crate::execution::words;

words!(
    /// What a quota counts apart.
    #[derive(Default)]
    Per {
        /// Nothing: all runs together.
        #[default]
        All = "all",
        /// Each script.
        Script = "script",
        /// Each category; runs without one are not counted.
        Category = "category",
        /// Each ticket of each tenant; runs without one are not counted.
        Ticket = "ticket",
        /// Each actor of each tenant; runs without one are one actor's.
        Actor = "actor",
    }
);

/// How many runs there may be, at once and in a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Quota {
    /// How it is called in refusals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of these scripts, or of one of `categories`; both empty: of all.
    pub scripts: Vec<String>,
    /// Of these categories.
    pub categories: Vec<String>,
    /// What is counted apart.
    pub per: Per,
    /// Runs that are accepted and have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<usize>,
    /// Runs that are accepted within `window_seconds`, a window that ends now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
    /// The length of the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u64>,
}

/// What a run is counted by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) tenant: &'a str,
    pub(crate) ticket: Option<&'a str>,
    pub(crate) actor: Option<&'a str>,
}

impl Quota {
    /// Returns the name under which a run is counted; `None` when the rule is not about it.
    pub(crate) fn key(&self, run: Counted<'_>) -> Option<String> {
        if !run.subject.is_in(&self.scripts, &self.categories) {
            return None;
        }
        let of_tenant = |name: &str| format!("{}\0{name}", run.tenant);
        match self.per {
            Per::All => Some(String::new()),
            Per::Script => Some(run.subject.script.to_owned()),
            Per::Category => run
                .subject
                .category
                .map(|category| crate::script::Category::new(category).to_string()),
            Per::Ticket => run.ticket.map(of_tenant),
            Per::Actor => Some(of_tenant(run.actor.unwrap_or_default())),
        }
    }

    /// Returns how many runs may be accepted within which time.
    pub(crate) fn rate(&self) -> Option<(usize, Duration)> {
        let window = Duration::from_secs(self.window_seconds?);
        self.runs.map(|runs| (runs, window))
    }

    /// Returns what whoever is refused is told of the rule.
    pub(crate) fn shown(&self) -> String {
        let per = match self.per {
            Per::All => String::new(),
            per => format!(" per {per}"),
        };
        match &self.name {
            Some(name) => format!("quota {name:?}{per}"),
            None => format!("quota{per}"),
        }
    }
}
