//! What is decided about a run before it is planned: which script, whether it may run now, how it goes first, and who is
//! asked. The policy says, people's stops and overrides say more; the sentence that comes of it is recorded on the run.

use std::sync::Arc;

use arc_swap::Guard;

use super::Engine;
use super::decided::{Decided, Verb, check_decider};
use crate::error::{Error, Result};
use crate::policy::{ApprovalTerms, Asked, Policy, Routed, Subject};
use crate::request::{Classification, Override, Route, Ticket};
use crate::script::Script;

/// What is decided about a run.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// The category for which it runs.
    pub(super) category: Option<String>,
    /// Why it runs, and why so.
    pub(super) sentence: Option<String>,
    pub(super) priority: i32,
    /// How it waits for an approval, if it needs one.
    pub(super) approval: Option<ApprovalTerms>,
    pub(super) forced: Option<Forced>,
}

/// That somebody forces a run against the policy.
#[derive(Debug, Clone)]
pub(super) struct Forced {
    pub(super) actor: String,
    pub(super) reason: String,
}

/// What a decision is about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) script: &'a Script,
    /// Why this script, where it was not named.
    pub(super) routed: Option<&'a Routed>,
    pub(super) ticket: Option<(&'a Ticket, &'a Classification)>,
    pub(super) dry_run: bool,
    pub(super) forced: Option<&'a Forced>,
}

impl<'a> About<'a> {
    /// About a run whose script is named.
    pub(super) const fn named(
        script: &'a Script,
        dry_run: bool,
        forced: Option<&'a Forced>,
    ) -> Self {
        Self {
            script,
            routed: None,
            ticket: None,
            dry_run,
            forced,
        }
    }
}

impl Forced {
    /// Reads a request's override: whoever forces a run is named, and says why.
    pub(super) fn of(request: Option<&str>, actor: Option<&str>) -> Result<Option<Self>> {
        let Some(reason) = request else {
            return Ok(None);
        };
        let Some(actor) = actor else {
            let detail = "is missing, and whoever forces a run against the policy must be named";
            return Err(Error::invalid_request("/actor", detail));
        };
        check_decider(actor, reason)?;
        Ok(Some(Self {
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        }))
    }

    pub(super) fn decided(&self, about: impl std::fmt::Display) -> Decided<'_> {
        Decided::new(Verb::Override, about, &self.actor, &self.reason)
    }
}

impl Engine {
    /// Returns the policy of this moment.
    pub(super) fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Returns which script serves a ticket, and why.
    pub(super) fn routed(
        &self,
        ticket: &Ticket,
        classification: &Classification,
        forced: Option<&Override>,
    ) -> Result<Routed> {
        let index = self.scripts();
        let policy = self.policy();
        let Some(name) = forced.and_then(|forced| forced.script_name.as_deref()) else {
            return policy.route(&index, ticket, classification, forced.is_some());
        };
        let script = super::plan::script(&index, name)?;
        Ok(Routed {
            reason: format!("script {name:?} in place of the one that the policy selects"),
            category: classification.category.clone(),
            others: Vec::new(),
            script,
        })
    }

    /// Decides about a run whose script is known. A stop holds for everybody; all else can be forced.
    pub(super) fn decide_about(&self, about: About<'_>) -> Result<Decision> {
        let (script, policy) = (about.script, self.policy());
        let declared = script.metadata().category.as_deref();
        let category = about.routed.map(|routed| routed.category.as_str());
        self.check_stops(script, category)?;
        let subject = Subject {
            script: script.name(),
            category: category.or(declared),
        };
        if about.forced.is_none() {
            let now = self.now();
            if let Some(refusal) = policy.refusal(subject, now, about.dry_run) {
                return Err(Error::refused_by_policy(refusal.detail, refusal.until, now));
            }
        }
        let asked = Asked {
            subject,
            risk: script.metadata().risk,
            confidence: about.ticket.map(|(_, of)| of.confidence),
        };
        // What changes nothing needs nobody's consent, and who forces a run has given it.
        let needs_none = about.dry_run || about.forced.is_some();
        let approval = if needs_none {
            None
        } else {
            policy.approval(asked)
        };
        let priority = policy.priority(subject, about.ticket.and_then(ticket_priority));
        Ok(Decision {
            sentence: sentence(about, priority),
            category: subject.category.map(str::to_owned),
            priority,
            approval,
            forced: about.forced.cloned(),
        })
    }

    pub(crate) fn route(&self, ticket: &Ticket, classification: &Classification) -> Result<Route> {
        let routed = self.routed(ticket, classification, None)?;
        let about = About {
            script: &routed.script,
            routed: Some(&routed),
            ticket: Some((ticket, classification)),
            dry_run: false,
            forced: None,
        };
        let decision = self.decide_about(about)?;
        let Routed {
            script,
            category,
            others,
            ..
        } = routed;
        let reason = decision.sentence.unwrap_or_default();
        let name = |script: &Arc<Script>| script.name().to_owned();
        let mut route = Route::new(
            name(&script),
            script.version().to_string(),
            category,
            reason,
            others.iter().map(name).collect(),
        );
        route.fallbacks = fallbacks(&script, &others).map(name).collect();
        route.priority = decision.priority;
        route.needs_approval = decision.approval.is_some();
        route.concern = self.quarantine.concern(script.version());
        Ok(route)
    }
}

/// Returns the scripts that follow one that failed, in their order: as long as each before it says that it may fail
/// without harm to the next.
pub(super) fn fallbacks<'a>(
    script: &'a Arc<Script>,
    others: &'a [Arc<Script>],
) -> impl Iterator<Item = &'a Arc<Script>> {
    let before = std::iter::once(script).chain(others);
    let allowed = before.map(|script| script.metadata().fallback);
    others
        .iter()
        .zip(allowed)
        .take_while(|(_, allowed)| *allowed)
        .map(|(script, _)| script)
}

/// A classification's priority goes before the ticket's own: it is the later word.
fn ticket_priority<'a>(
    (ticket, classification): (&'a Ticket, &'a Classification),
) -> Option<&'a str> {
    let given = classification.more.get("priority");
    given.or_else(|| ticket.fields().get("priority"))?.as_str()
}

fn sentence(about: About<'_>, priority: i32) -> Option<String> {
    let routed = about.routed.map(|routed| routed.reason.clone());
    let forced = about.forced.map(|forced| {
        let Forced { actor, reason } = forced;
        format!("forced against the policy by {actor}: {reason}")
    });
    let priority = (priority != 0).then(|| format!("priority {priority}"));
    let parts: Vec<_> = [routed, forced, priority].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
