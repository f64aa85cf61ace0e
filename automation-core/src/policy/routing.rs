//! Which script serves a ticket, and why.

use std::sync::Arc;

use super::{Policy, RouteRule};
use crate::error::{Error, Result};
use crate::request::{Classification, Ticket};
use crate::script::{Category, Script, ScriptIndex};

/// Which script serves a ticket.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) script: Arc<Script>,
    /// Its name in the rule or in the script's metadata.
    pub(crate) category: String,
    /// The other scripts that serve it, in their order.
    pub(crate) others: Vec<Arc<Script>>,
    /// Why this script, in a sentence.
    pub(crate) reason: String,
}

impl Policy {
    /// Decides which script serves a ticket. `is_forced` passes over what the classification and the thresholds say.
    pub(crate) fn route(
        &self,
        index: &ScriptIndex,
        ticket: &Ticket,
        classification: &Classification,
        is_forced: bool,
    ) -> Result<Routed> {
        if classification.category.trim().is_empty() {
            let detail = "must not be empty";
            return Err(Error::invalid_request("/classification/category", detail));
        }
        let rule = self.rule(&classification.category);
        let confidence = if is_forced {
            String::new()
        } else {
            self.sure(rule, ticket, classification)?
        };
        let declared = index.for_category(&classification.category);
        let scripts = candidates(index, rule, declared);
        let (enabled, disabled): (Vec<_>, Vec<_>) = scripts
            .into_iter()
            .partition(|script| is_forced || self.disabled(script.name()).is_none());
        let mut enabled = enabled.into_iter();
        let Some(script) = enabled.next() else {
            return Err(unserved(index, classification, rule, &disabled));
        };
        let others: Vec<_> = enabled.collect();
        let category = rule.map(|rule| rule.category.clone());
        let category = category
            .or_else(|| script.metadata().category.clone())
            .unwrap_or_default();
        let reason = reason(&category, others.len() + 1, rule, &disabled) + &confidence;
        Ok(Routed {
            script,
            category,
            others,
            reason,
        })
    }

    fn rule(&self, category: &str) -> Option<&RouteRule> {
        if self.routes.is_empty() {
            return None;
        }
        let category = Category::new(category);
        let mut rules = self.routes.iter();
        rules.find(|rule| Category::new(&rule.category) == category)
    }

    /// Returns what the recorded reason says of the confidence, unless the ticket is not to be automated.
    fn sure(
        &self,
        rule: Option<&RouteRule>,
        ticket: &Ticket,
        classification: &Classification,
    ) -> Result<String> {
        let not_possible = |detail: String| Error::AutomationNotPossible {
            ticket_id: ticket.id().to_owned(),
            detail,
        };
        if !classification.automation_possible {
            let detail = "the classification says automation_possible = false";
            return Err(not_possible(detail.to_owned()));
        }
        let of_rule = rule.and_then(|rule| rule.confidence_min);
        let Some(least) = of_rule.or(self.confidence_min) else {
            return Ok(String::new());
        };
        match classification.confidence {
            Some(given) if given >= least => {
                Ok(format!("; confidence {given} is at least {least}"))
            }
            Some(given) => Err(not_possible(format!(
                "confidence {given} is below the policy's {least}"
            ))),
            None => Err(not_possible(format!(
                "the classification states no confidence, and the policy asks for {least}"
            ))),
        }
    }
}

/// Returns the scripts that serve a category, in their order. What a rule names and no valid script has is left out.
fn candidates(
    index: &ScriptIndex,
    rule: Option<&RouteRule>,
    declared: &[Arc<Script>],
) -> Vec<Arc<Script>> {
    let Some(rule) = rule else {
        return declared.to_vec();
    };
    let named = rule.scripts.iter().filter_map(|name| index.script(name));
    let mut scripts: Vec<Arc<Script>> = Vec::new();
    for script in named.chain(declared.iter().filter(|_| rule.extend)) {
        if !scripts.iter().any(|known| known.name() == script.name()) {
            scripts.push(Arc::clone(script));
        }
    }
    scripts
}

fn reason(
    category: &str,
    scripts: usize,
    rule: Option<&RouteRule>,
    disabled: &[Arc<Script>],
) -> String {
    let by = if rule.is_some() {
        "by the policy"
    } else {
        "by their order"
    };
    let mut reason = if scripts > 1 {
        format!("the first of {scripts} scripts of category {category:?} {by}")
    } else if rule.is_some() {
        format!("the only script of category {category:?} by the policy")
    } else {
        format!("the only script of category {category:?}")
    };
    if !disabled.is_empty() {
        reason += &format!("; disabled: {}", names(disabled));
    }
    reason
}

/// Says why nothing serves a category.
fn unserved(
    index: &ScriptIndex,
    classification: &Classification,
    rule: Option<&RouteRule>,
    disabled: &[Arc<Script>],
) -> Error {
    let detail = if !disabled.is_empty() {
        format!("the policy has disabled {}", names(disabled))
    } else if let Some(rule) = rule {
        let named = rule.scripts.iter().map(|name| {
            let is_invalid = index.invalid().iter().any(|script| script.name == *name);
            let state = if is_invalid {
                "is invalid"
            } else {
                "is not there"
            };
            format!("{name:?} {state}")
        });
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            "the policy names none".to_owned()
        } else {
            format!("of those that the policy names, {}", named.join(", "))
        }
    } else {
        "no valid script declares it, and the policy has no rule for it".to_owned()
    };
    Error::NoScriptForCategory {
        category: classification.category.clone(),
        detail,
    }
}

fn names(scripts: &[Arc<Script>]) -> String {
    let names: Vec<_> = scripts.iter().map(|script| script.name()).collect();
    names.join(", ")
}
