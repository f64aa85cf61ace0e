//! The one place where decisions by people are reported: a stop, an override, an approval.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::Engine;
use crate::error::{Problem, Result};
use crate::limits;
use crate::request::{check_actor, refuse};

/// What somebody decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    /// That something is stopped.
    Stop,
    /// That it goes on.
    Resume,
    /// That a run goes against the policy.
    Override,
}

/// A decision by somebody.
#[derive(Debug)]
pub(super) struct Decided<'a> {
    verb: Verb,
    about: String,
    actor: &'a str,
    reason: &'a str,
}

impl<'a> Decided<'a> {
    pub(super) fn new(
        verb: Verb,
        about: impl fmt::Display,
        actor: &'a str,
        reason: &'a str,
    ) -> Self {
        let about = about.to_string();
        Self {
            verb,
            about,
            actor,
            reason,
        }
    }

    /// Returns what an event of the run says of it.
    pub(super) fn event(&self) -> Value {
        json!({ "decision": self.verb, "actor": self.actor, "reason": self.reason })
    }
}

impl Engine {
    /// Reports a decision. What is about a run is an event of the run too, which the caller records with the change
    /// that it causes, in one commit.
    pub(super) fn decided(&self, decided: &Decided<'_>) {
        let Decided {
            verb,
            about,
            actor,
            reason,
        } = decided;
        tracing::warn!(?verb, about, actor, reason, instance = %self.instance, "somebody decided");
    }
}

/// Checks who decides, and why: neither may be left out.
pub(super) fn check_decider(actor: &str, reason: &str) -> Result<()> {
    let mut problems = Vec::new();
    check_actor(Some(actor), &mut problems);
    let chars = reason.trim().chars().count();
    if chars == 0 || chars > limits::REASON_CHARS_MAX || reason.contains('\0') {
        let detail = format!("must be 1 to {} characters", limits::REASON_CHARS_MAX);
        problems.push(Problem::new("/reason", detail));
    }
    refuse(problems)
}
