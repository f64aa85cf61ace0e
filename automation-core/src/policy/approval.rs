//! Which runs wait for somebody's approval, for how long, and who may give it: the rules.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Policy, Subject};
use crate::script::Risk;

/// Time in which an approval is given or not, unless the policy says otherwise: a working day and a night.
const EXPIRES_SECONDS: u64 = 24 * 60 * 60;

/// What holds for every approval unless its rule says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ApprovalDefaults {
    /// How long a run waits for its approval; then it is cancelled. Default: 24 hours.
    pub expires_seconds: u64,
    /// Whether whoever asked for the run may approve it. Default: no.
    pub self_approval: bool,
}

impl Default for ApprovalDefaults {
    fn default() -> Self {
        Self {
            expires_seconds: EXPIRES_SECONDS,
            self_approval: false,
        }
    }
}

/// Which runs wait for an approval, or do not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ApprovalRule {
    /// Of these scripts, or of one of `categories`; both empty: of all.
    pub scripts: Vec<String>,
    /// Of these categories.
    pub categories: Vec<String>,
    /// Only ticket runs whose classification is less confident than this, or states no confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence_below: Option<f64>,
    /// Whether an approval is required. Default: yes.
    pub required: bool,
    /// In place of the policy's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
    /// In place of the policy's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_approval: Option<bool>,
}

impl Default for ApprovalRule {
    fn default() -> Self {
        Self {
            scripts: Vec::new(),
            categories: Vec::new(),
            confidence_below: None,
            required: true,
            expires_seconds: None,
            self_approval: None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) subject: Subject<'a>,
    pub(crate) risk: Risk,
    /// What the classification says, for a ticket run.
    pub(crate) confidence: Option<Option<f64>>,
}

/// How a run waits for its approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApprovalTerms {
    pub(crate) expires: Duration,
    pub(crate) self_approval: bool,
}

impl Policy {
    /// Returns how a run waits for an approval, if it needs one.
    pub(crate) fn approval(&self, asked: Asked<'_>) -> Option<ApprovalTerms> {
        let rule = self.approvals.iter().find(|rule| rule.fits(asked));
        let required = rule.map_or(asked.risk == Risk::High, |rule| rule.required);
        let defaults = self.approval;
        required.then(|| ApprovalTerms {
            expires: Duration::from_secs(
                rule.and_then(|rule| rule.expires_seconds)
                    .unwrap_or(defaults.expires_seconds),
            ),
            self_approval: rule
                .and_then(|rule| rule.self_approval)
                .unwrap_or(defaults.self_approval),
        })
    }
}

impl ApprovalRule {
    fn fits(&self, asked: Asked<'_>) -> bool {
        let is_unsure = self.confidence_below.is_none_or(|bound| {
            let of_ticket = asked.confidence;
            of_ticket.is_some_and(|confidence| confidence.is_none_or(|given| given < bound))
        });
        is_unsure && asked.subject.is_in(&self.scripts, &self.categories)
    }
}
