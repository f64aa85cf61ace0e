//! From a request to what is to run. Looks at the scripts, asks for the decision, touches nothing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Engine;
use super::decision::{About, Decision, Forced};
use crate::error::{Error, Problem, Result};
use crate::execution::Trigger;
use crate::json;
use crate::request::{ExecuteRequest, ManualRequest, TestRequest, check_actor, validate_ticket_id};
use crate::script::{Script, ScriptIndex};

/// The parameter by which a script is told to change nothing.
const DRY_RUN: &str = "dry_run";

/// What is to run, checked.
pub(super) struct Plan {
    pub(super) script: Arc<Script>,
    pub(super) trigger: Trigger,
    pub(super) parameters: Map<String, Value>,
    pub(super) ticket_id: Option<String>,
    pub(super) ticket: Option<Value>,
    pub(super) classification: Option<Value>,
    pub(super) actor: Option<String>,
    pub(super) dry_run: bool,
    pub(super) decision: Decision,
}

impl Plan {
    /// Checks what the schema does not: that everything keeps the JSON profile, and that the script may run.
    fn checked(self) -> Result<Self> {
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
            if let Some(Err(problem)) = document.as_ref().map(json::check) {
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
            forced: asked,
        } = request;
        check_common(actor.as_deref(), Some(ticket.id()))?;
        let reason = asked.as_ref().map(|asked| asked.reason.as_str());
        let forced = Forced::of(reason, actor.as_deref())?;
        let routed = self.routed(&ticket, &classification, asked.as_ref())?;
        let script = Arc::clone(&routed.script);
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
            ticket: Some(Value::Object(ticket.fields().clone())),
            classification: Some(json!(classification)),
            script,
            parameters,
            actor,
        }
        .checked()
    }

    pub(super) fn plan_manual(&self, request: ManualRequest) -> Result<Plan> {
        check_common(request.actor.as_deref(), request.ticket_id.as_deref())?;
        let script = self.script(&request.script_name)?;
        let forced = Forced::of(request.forced.as_deref(), request.actor.as_deref())?;
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
        }
        .checked()
    }

    pub(super) fn plan_test(&self, request: TestRequest) -> Result<Plan> {
        check_common(request.actor.as_deref(), None)?;
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

fn check_common(actor: Option<&str>, ticket_id: Option<&str>) -> Result<()> {
    let mut problems = Vec::new();
    check_actor(actor, &mut problems);
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

fn validate(script: &Script, given: Map<String, Value>) -> Result<Map<String, Value>> {
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
