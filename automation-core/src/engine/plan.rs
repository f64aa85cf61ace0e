//! From a request to what is to run. Pure: looks at the scripts, touches nothing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Engine;
use super::attempts::Links;
use super::keys::Key;
use super::waiting::Wait;
use crate::error::{Error, Problem, Result};
use crate::execution::Trigger;
use crate::json;
use crate::request::{
    Classification, ExecuteRequest, ManualRequest, Route, TestRequest, Ticket, check_actor,
    check_idempotency_key, validate_ticket_id,
};
use crate::script::{Risk, Script, ScriptIndex};

/// The parameter by which a script is told to change nothing.
const DRY_RUN: &str = "dry_run";

/// What is to run, checked.
pub(super) struct Plan {
    pub(super) script: Arc<Script>,
    pub(super) trigger: Trigger,
    pub(super) parameters: Map<String, Value>,
    pub(super) ticket_id: Option<String>,
    pub(super) ticket: Option<Arc<Value>>,
    pub(super) classification: Option<Arc<Value>>,
    pub(super) actor: Option<String>,
    pub(super) dry_run: bool,
    /// What it has to wait for before it runs.
    pub(super) wait: Option<Wait>,
    /// Its place in a chain of attempts, unless it is the first.
    pub(super) links: Option<Links>,
    /// Under which at most one is recorded.
    pub(super) key: Option<Key>,
}

impl Plan {
    /// Checks what the schema does not: that everything keeps the JSON profile, and that the script may run.
    pub(super) fn checked(self) -> Result<Self> {
        if self.script.metadata().risk == Risk::High {
            let name = self.script.name();
            return Err(Error::Unsupported {
                what: format!(
                    "script {name:?} is risk = \"high\", which needs an approval, and there are none yet"
                ),
            });
        }
        let mut problems = Vec::new();
        let documents = [
            ("/ticket", &self.ticket),
            ("/classification", &self.classification),
        ];
        for (pointer, document) in documents {
            if let Some(Err(problem)) = document.as_deref().map(json::check) {
                problems.push(Problem::new(
                    format!("{pointer}{}", problem.pointer),
                    problem.detail,
                ));
            }
        }
        if !problems.is_empty() {
            return Err(Error::InvalidRequest { problems });
        }
        Ok(self)
    }
}

impl Engine {
    pub(super) fn plan_ticket(&self, request: ExecuteRequest) -> Result<Plan> {
        let ExecuteRequest {
            ticket,
            classification,
            actor,
            idempotency_key,
            ..
        } = request;
        check_common(
            actor.as_deref(),
            Some(ticket.id()),
            idempotency_key.as_deref(),
        )?;
        let (_, script) = self.route(&ticket, &classification)?;
        let parameters = validate(&script, Map::new())?;
        let key = idempotency_key.map(|key| {
            let asked = json!({ "ticket": ticket.fields(), "classification": classification });
            Key::of_request(key, &asked)
        });
        Plan {
            dry_run: asks_for_dry_run(&parameters),
            trigger: Trigger::Ticket,
            ticket_id: Some(ticket.id().to_owned()),
            ticket: Some(Arc::new(Value::Object(ticket.fields().clone()))),
            classification: Some(Arc::new(json!(classification))),
            script,
            parameters,
            actor,
            wait: None,
            links: None,
            key,
        }
        .checked()
    }

    pub(super) fn plan_manual(&self, request: ManualRequest) -> Result<Plan> {
        check_common(
            request.actor.as_deref(),
            request.ticket_id.as_deref(),
            request.idempotency_key.as_deref(),
        )?;
        let script = self.script(&request.script_name)?;
        let key = key_of_manual(&request, &script);
        let parameters = parameters_of(&script, request.parameters, request.dry_run)?;
        Plan {
            dry_run: asks_for_dry_run(&parameters),
            trigger: Trigger::Manual,
            ticket_id: request.ticket_id,
            ticket: None,
            classification: None,
            script,
            parameters,
            actor: request.actor,
            wait: None,
            links: None,
            key,
        }
        .checked()
    }

    pub(super) fn plan_test(&self, request: TestRequest) -> Result<Plan> {
        check_common(request.actor.as_deref(), None, None)?;
        let index = self.scripts();
        let script = match &request.script_name {
            Some(name) => script(&index, name)?,
            None => index
                .scripts()
                .find(|script| script.parameters().has(DRY_RUN))
                .cloned()
                .ok_or_else(|| Error::Unsupported {
                    what: "no script has a dry_run parameter, so none can be tested".to_owned(),
                })?,
        };
        let parameters = parameters_of(&script, Map::new(), true)?;
        Plan {
            dry_run: true,
            trigger: Trigger::Test,
            ticket_id: None,
            ticket: None,
            classification: None,
            script,
            parameters,
            actor: request.actor,
            wait: None,
            links: None,
            key: None,
        }
        .checked()
    }
}

pub(super) fn route(
    index: &ScriptIndex,
    ticket: &Ticket,
    classification: &Classification,
) -> Result<(Route, Arc<Script>)> {
    if classification.category.trim().is_empty() {
        return Err(Error::invalid_request(
            "/classification/category",
            "must not be empty",
        ));
    }
    if !classification.automation_possible {
        return Err(Error::AutomationNotPossible {
            ticket_id: ticket.id().to_owned(),
            detail: "the classification says automation_possible = false".to_owned(),
        });
    }
    let scripts = index.for_category(&classification.category);
    let Some((script, others)) = scripts.split_first() else {
        return Err(Error::NoScriptForCategory {
            category: classification.category.clone(),
        });
    };
    let category = script.metadata().category.clone().unwrap_or_default();
    let reason = if others.is_empty() {
        format!("the only script of category {category:?}")
    } else {
        format!(
            "the first of {} scripts of category {category:?} by their order",
            scripts.len()
        )
    };
    let alternatives = others
        .iter()
        .map(|script| script.name().to_owned())
        .collect();
    let route = Route::new(
        script.name().to_owned(),
        script.version().to_string(),
        category,
        reason,
        alternatives,
    );
    Ok((route, Arc::clone(script)))
}

pub(super) fn script(index: &ScriptIndex, name: &str) -> Result<Arc<Script>> {
    if let Some(script) = index.script(name) {
        return Ok(Arc::clone(script));
    }
    match index.invalid().iter().find(|invalid| invalid.name == name) {
        Some(invalid) => Err(Error::InvalidScript {
            name: name.to_owned(),
            diagnostics: invalid.diagnostics.clone(),
        }),
        None => Err(Error::ScriptNotFound {
            name: name.to_owned(),
        }),
    }
}

/// Returns the key of a request with what was asked; secrets are masked, so that the digest tells nothing of them.
fn key_of_manual(request: &ManualRequest, script: &Script) -> Option<Key> {
    let key = request.idempotency_key.clone()?;
    let asked = json!({
        "script_name": request.script_name,
        "parameters": script.parameters().mask(&request.parameters),
        "ticket_id": request.ticket_id,
        "dry_run": request.dry_run,
    });
    Some(Key::of_request(key, &asked))
}

fn check_common(actor: Option<&str>, ticket_id: Option<&str>, key: Option<&str>) -> Result<()> {
    let mut problems = Vec::new();
    check_actor(actor, &mut problems);
    check_idempotency_key(key, &mut problems);
    if let Some(Err(detail)) = ticket_id.map(validate_ticket_id) {
        problems.push(Problem::new("/ticket_id", detail));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidRequest { problems })
    }
}

/// A dry run is asked for by the flag or by the parameter; the flag wins.
fn parameters_of(
    script: &Script,
    mut given: Map<String, Value>,
    dry_run: bool,
) -> Result<Map<String, Value>> {
    if dry_run {
        if !script.parameters().has(DRY_RUN) {
            return Err(Error::Unsupported {
                what: format!(
                    "script {:?} has no dry_run parameter, so it can't run without effects",
                    script.name()
                ),
            });
        }
        given.insert(DRY_RUN.to_owned(), Value::Bool(true));
    }
    validate(script, given)
}

pub(super) fn validate(script: &Script, given: Map<String, Value>) -> Result<Map<String, Value>> {
    json::check_object(&given)
        .map_err(|problem| vec![problem])
        .and_then(|()| script.parameters().validate(given))
        .map_err(|problems| Error::InvalidParameters {
            script: script.name().to_owned(),
            problems,
        })
}

fn asks_for_dry_run(parameters: &Map<String, Value>) -> bool {
    parameters.get(DRY_RUN) == Some(&Value::Bool(true))
}
