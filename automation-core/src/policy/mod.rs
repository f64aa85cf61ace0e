//! The routing policy: what the operator of a helpdesk decides about runs, as data.
//!
//! Everything here is a pure function of the policy, the scripts, the request and the clock. Knows nothing of how a run
//! goes: the engine asks, and counts.

mod approval;
mod quota;
mod routing;
mod source;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::approval::{ApprovalDefaults, ApprovalRule};
pub(crate) use self::approval::{ApprovalTerms, Asked};
pub(crate) use self::quota::Counted;
pub use self::quota::{Per, Quota};
pub(crate) use self::routing::Routed;
pub use self::source::PolicyError;
pub(crate) use self::source::PolicySource;
pub use self::window::MaintenanceWindow;
use crate::script::Category;

/// What the operator decides: which scripts serve a category, which may run at all, when, how often, and who is asked
/// first. The default decides nothing: metadata alone selects, and nothing is limited.
///
/// Written as TOML or JSON; unknown keys are errors, since a misspelled rule would not protect anybody.
///
/// # Examples
/// ```
/// use automation_core::policy::Policy;
///
/// let policy = Policy::from_toml(r#"
///     confidence_min = 0.7
///
///     [[routes]]
///     category = "Device Slow"
///     scripts = ["disk_cleanup.py", "defragment.py"]
///
///     [scripts."password_reset.py"]
///     enabled = false
///     reason = "the directory is being moved"
///
///     [[maintenance]]
///     name = "backup"
///     days = ["sat", "sun"]
///     from = "22:00"
///     until = "02:00"
///     utc_offset = "+01:00"
///
///     [[quotas]]
///     per = "actor"
///     runs = 10
///     window_seconds = 3600
/// "#)?;
/// assert_eq!(policy.confidence_min, Some(0.7));
/// assert!(Policy::from_toml("confidence_mim = 0.7").is_err());
/// # Ok::<(), automation_core::policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// Least confidence of a classification, from 0 to 1; one that states none is refused too. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence_min: Option<f64>,
    /// Which scripts serve a category, beside or instead of what metadata says. One rule a category.
    pub routes: Vec<RouteRule>,
    /// What holds for single scripts, by name.
    pub scripts: BTreeMap<String, ScriptRule>,
    /// Which runs go first; the first rule that fits decides.
    pub priorities: Vec<PriorityRule>,
    /// When scripts do not run.
    pub maintenance: Vec<MaintenanceWindow>,
    /// What holds for every approval unless its rule says otherwise.
    pub approval: ApprovalDefaults,
    /// Which runs wait for an approval; the first rule that fits decides. Without one, `risk = "high"` does.
    pub approvals: Vec<ApprovalRule>,
    /// How many runs there may be, at once and in a time.
    pub quotas: Vec<Arc<Quota>>,
}

/// Which scripts serve a category.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteRule {
    /// The category, in any spelling that [`Category`] takes for equal.
    pub category: String,
    /// The scripts, in their order.
    pub scripts: Vec<String>,
    /// Whether the scripts that name the category in their metadata follow, instead of being left out.
    #[serde(default)]
    pub extend: bool,
    /// Least confidence for this category, in place of the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence_min: Option<f64>,
}

/// What holds for one script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScriptRule {
    /// Whether it may run at all. Default: yes.
    pub enabled: bool,
    /// Why not, for whoever asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Default for ScriptRule {
    fn default() -> Self {
        Self {
            enabled: true,
            reason: None,
        }
    }
}

/// Which runs go first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PriorityRule {
    /// Of these scripts, or of one of `categories`; both empty: of all.
    pub scripts: Vec<String>,
    /// Of these categories.
    pub categories: Vec<String>,
    /// Whose ticket has one of these priorities (`priority` of the classification, else of the ticket); empty: any.
    pub ticket_priorities: Vec<String>,
    /// The runs' priority: higher goes first; what no rule fits has 0.
    pub priority: i32,
}

/// What a rule is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) script: &'a str,
    pub(crate) category: Option<&'a str>,
}

impl Subject<'_> {
    /// Returns whether a rule with these lists is about it; two empty lists are about everything.
    pub(crate) fn is_in(self, scripts: &[String], categories: &[String]) -> bool {
        if scripts.is_empty() && categories.is_empty() {
            return true;
        }
        scripts.iter().any(|script| script == self.script)
            || self.category.is_some_and(|category| {
                let category = Category::new(category);
                categories.iter().any(|one| Category::new(one) == category)
            })
    }
}

/// Why a script does not run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) detail: String,
    /// When it may run again, if that is known.
    pub(crate) until: Option<DateTime<Utc>>,
}

impl Policy {
    /// Returns why a script may not run now, if so. What changes nothing may run during maintenance.
    pub(crate) fn refusal(
        &self,
        subject: Subject<'_>,
        now: DateTime<Utc>,
        dry_run: bool,
    ) -> Option<Refusal> {
        if let Some(detail) = self.disabled(subject.script) {
            let until = None;
            return Some(Refusal { detail, until });
        }
        if dry_run {
            return None;
        }
        let open = self.maintenance.iter().filter_map(|window| {
            let until = window.closes_at(now)?;
            subject
                .is_in(&window.scripts, &window.categories)
                .then_some((window, until))
        });
        let (window, until) = open.max_by_key(|(_, until)| *until)?;
        let script = subject.script;
        let (name, end) = (&window.name, until.to_rfc3339());
        let detail = format!(
            "script {script:?} does not run in maintenance window {name:?}, which ends {end}"
        );
        let until = Some(until);
        Some(Refusal { detail, until })
    }

    fn disabled(&self, script: &str) -> Option<String> {
        let rule = self.scripts.get(script).filter(|rule| !rule.enabled)?;
        let why = rule.reason.as_ref();
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        Some(format!("script {script:?} is disabled by the policy{why}"))
    }

    /// Returns a run's priority.
    pub(crate) fn priority(&self, subject: Subject<'_>, ticket_priority: Option<&str>) -> i32 {
        let fits = |rule: &&PriorityRule| {
            let wanted = &rule.ticket_priorities;
            let of_ticket = wanted.is_empty()
                || ticket_priority.is_some_and(|priority| {
                    wanted.iter().any(|one| one.eq_ignore_ascii_case(priority))
                });
            of_ticket && subject.is_in(&rule.scripts, &rule.categories)
        };
        let rule = self.priorities.iter().find(fits);
        rule.map_or(0, |rule| rule.priority)
    }

    /// Returns the scripts that rules name, so that a name that no script has can be told.
    pub(crate) fn named_scripts(&self) -> impl Iterator<Item = &str> {
        let lists = [
            self.routes
                .iter()
                .map(|rule| &rule.scripts)
                .collect::<Vec<_>>(),
            self.priorities.iter().map(|rule| &rule.scripts).collect(),
            self.maintenance.iter().map(|rule| &rule.scripts).collect(),
            self.approvals.iter().map(|rule| &rule.scripts).collect(),
            self.quotas.iter().map(|rule| &rule.scripts).collect(),
        ];
        let listed = lists.into_iter().flatten().flatten();
        self.scripts.keys().chain(listed).map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
