//! From a request to what is to run. Looks at the scripts, asks for the decision, touches nothing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Engine;
use super::attempts::Links;
use super::decision::{About, Decision, Forced};
use super::keys::Key;
use super::waiting::Wait;
use crate::error::{Error, Problem, Result};
use crate::execution::Trigger;
use crate::json;
use crate::request::{
    ExecuteRequest, ManualRequest, TestRequest, check_actor, check_idempotency_key, refuse,
    validate_ticket_id,
};
use crate::script::{Script, ScriptIndex};

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
    pub(super) decision: Decision,
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
        if self.decision.approval.is_some() {
            let name = self.script.name();
            return Err(Error::Unsupported {
                what: format!("script {name:?} needs an approval, and there are none yet"),
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
        refuse(problems)?;
        Ok(self)
    }
}

impl Engine {
    pub(super) fn plan_ticket(&self, request: ExecuteRequest) -> Result<Plan> {
        let ExecuteRequest {
            ticket,
            classification,
            actor,
            forced: asked,
            idempotency_key,
            ..
        } = request;
        check_common(
            actor.as_deref(),
            Some(ticket.id()),
            idempotency_key.as_deref(),
        )?;
        let reason = asked.as_ref().map(|asked| asked.reason.as_str());
        let forced = Forced::of(reason, actor.as_deref())?;
        let routed = self.routed(&ticket, &classification, asked.as_ref())?;
        let script = Arc::clone(&routed.script);
        let key = idempotency_key.map(|key| {
            let forced = asked.as_ref().map(|asked| {
                json!({
                    "reason": asked.reason,
                    "script_name": asked.script_name,
                    "parameters": script.parameters().mask(&asked.parameters),
                })
            });
            let asked = json!({
                "ticket": ticket.fields(), "classification": classification, "override": forced,
            });
            Key::of_request(key, &asked)
        });
        let given = asked.map_or_else(Map::new, |asked| asked.parameters);
        let parameters = validate(&script, given)?;
        let dry_run = asks_for_dry_run(&parameters);
        let decision = self.decide_about(About {
            script: &script,
            routed: Some(&routed),
            ticket: Some((&ticket, &classification)),
            dry_run,
            forced: forced.as_ref(),
        })?;
        Plan {
            dry_run,
            decision,
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
        let forced = Forced::of(request.forced.as_deref(), request.actor.as_deref())?;
        let key = key_of_manual(&request, &script);
        let parameters = parameters_of(&script, request.parameters, request.dry_run)?;
        let dry_run = asks_for_dry_run(&parameters);
        Plan {
            dry_run,
            decision: self.decide_about(About::named(&script, dry_run, forced.as_ref()))?,
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
            decision: self.decide_about(About::named(&script, true, None))?,
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
        "override": request.forced,
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
    refuse(problems)
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
