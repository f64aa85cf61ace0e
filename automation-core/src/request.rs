//! What the verbs of the handle are asked: the same structs behind Rust, Python and HTTP.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Problem};
use crate::execution::{Concern, TenantId};
use crate::limits;
use crate::status::Status;

/// A ticket: an id, and whatever else the helpdesk knows of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Ticket(Map<String, Value>);

impl Ticket {
    /// Creates a ticket that has only an id.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(Map::from_iter([(
            "id".to_owned(),
            Value::String(id.into()),
        )]))
    }

    /// Creates a ticket from its fields.
    ///
    /// # Errors
    /// Only [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest): `id` is missing or not 1 to 128
    /// visible characters.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, Error> {
        match fields.get("id") {
            Some(Value::String(id)) => validate_ticket_id(id)
                .map_err(|detail| Error::invalid_request("/ticket/id", detail))?,
            Some(_) => return Err(Error::invalid_request("/ticket/id", "must be a string")),
            None => return Err(Error::invalid_request("/ticket/id", "is missing")),
        }
        Ok(Self(fields))
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns all fields, the id among them.
    #[must_use]
    pub const fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Checks a ticket id: 1 to 128 visible characters (spaces inside are allowed, control characters are not).
///
/// # Errors
/// A sentence that says what is expected.
pub(crate) fn validate_ticket_id(id: &str) -> Result<(), String> {
    let chars = id.chars().count();
    let blank = id.trim() != id || id.is_empty();
    if blank || chars > limits::TICKET_ID_CHARS_MAX || id.chars().any(char::is_control) {
        return Err(format!(
            "must be 1 to {} visible characters without spaces at its ends",
            limits::TICKET_ID_CHARS_MAX
        ));
    }
    Ok(())
}

/// What a classifier says of a ticket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Classification {
    /// Selects the script.
    pub category: String,
    /// Whether the ticket can be automated at all.
    pub automation_possible: bool,
    /// How sure the classifier is, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Whatever else it says.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Classification {
    /// Creates a classification that says that automation is possible.
    #[must_use]
    pub fn new(category: impl Into<String>) -> Self {
        Self {
            category: category.into(),
            automation_possible: true,
            confidence: None,
            more: Map::new(),
        }
    }
}

/// Forces a ticket's run against the policy. A stop holds all the same: it has to be resumed first.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Override {
    /// Why; recorded on the run with the request's actor, who must be named.
    pub reason: String,
    /// The script in place of the one that the policy selects.
    pub script_name: Option<String>,
    /// Parameters beside the script's defaults.
    pub parameters: Map<String, Value>,
}

impl Override {
    /// Forces the run of the script that the policy selects, whatever else the policy and the classification say.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            script_name: None,
            parameters: Map::new(),
        }
    }

    /// Takes another script.
    #[must_use]
    pub fn with_script(mut self, script_name: impl Into<String>) -> Self {
        self.script_name = Some(script_name.into());
        self
    }

    /// Sets parameters; the verb validates them against the script's schema.
    #[must_use]
    pub fn with_parameters(mut self, parameters: Map<String, Value>) -> Self {
        self.parameters = parameters;
        self
    }
}

impl fmt::Debug for Override {
    // Parameters may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Override")
            .field("reason", &self.reason)
            .field("script_name", &self.script_name)
            .finish_non_exhaustive()
    }
}

/// Asks for the script that a ticket's classification selects.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ExecuteRequest {
    /// The ticket.
    pub ticket: Ticket,
    /// Its classification.
    pub classification: Classification,
    /// Who asks.
    pub actor: Option<String>,
    /// Forces the run against the policy.
    pub forced: Option<Override>,
    /// Under which at most one execution is recorded: whoever asks again with it is answered with that one. 1 to
    /// [`limits::IDEMPOTENCY_KEY_CHARS_MAX`] visible ASCII characters; it lives as long as the execution's row.
    pub idempotency_key: Option<String>,
    /// How long the answer may take; see [`with_patience`](Self::with_patience).
    pub patience: Option<Duration>,
}

impl ExecuteRequest {
    /// Creates a request.
    #[must_use]
    pub fn new(ticket: Ticket, classification: Classification) -> Self {
        Self {
            ticket,
            classification,
            actor: None,
            forced: None,
            idempotency_key: None,
            patience: None,
        }
    }

    /// Forces the run against the policy; needs an actor.
    #[must_use]
    pub fn with_override(mut self, forced: Override) -> Self {
        self.forced = Some(forced);
        self
    }

    /// Asks for an answer within a time that begins when the run is recorded: an execution that is still open then is
    /// returned as it stands, and goes on. Without it the answer is the end.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Sets the key under which at most one execution is recorded.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Says who asks.
    #[must_use]
    pub fn with_actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }
}

/// Asks for a script by its name.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct ManualRequest {
    /// The script's name, for instance `disk_cleanup.py`.
    pub script_name: String,
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// The ticket that the run serves, if any.
    pub ticket_id: Option<String>,
    /// Who asks.
    pub actor: Option<String>,
    /// Under which at most one execution is recorded: whoever asks again with it is answered with that one. 1 to
    /// [`limits::IDEMPOTENCY_KEY_CHARS_MAX`] visible ASCII characters; it lives as long as the execution's row.
    pub idempotency_key: Option<String>,
    /// Whether the script is to change nothing.
    pub dry_run: bool,
    /// Forces the run against the policy, for this reason; as [`Override`].
    pub forced: Option<String>,
    /// How long the answer may take; see [`with_patience`](Self::with_patience).
    pub patience: Option<Duration>,
}

impl fmt::Debug for ManualRequest {
    // Parameters may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualRequest")
            .field("script_name", &self.script_name)
            .field("ticket_id", &self.ticket_id)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl ManualRequest {
    /// Creates a request without parameters.
    #[must_use]
    pub fn new(script_name: impl Into<String>) -> Self {
        Self {
            script_name: script_name.into(),
            parameters: Map::new(),
            ticket_id: None,
            actor: None,
            idempotency_key: None,
            dry_run: false,
            forced: None,
            patience: None,
        }
    }

    /// Forces the run against the policy, for a reason that is recorded; needs an actor.
    #[must_use]
    pub fn with_override(mut self, reason: impl Into<String>) -> Self {
        self.forced = Some(reason.into());
        self
    }

    /// Asks for an answer within a time that begins when the run is recorded: an execution that is still open then is
    /// returned as it stands, and goes on. Without it the answer is the end.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Sets the parameters; the verb validates them against the script's schema.
    #[must_use]
    pub fn with_parameters(mut self, parameters: Map<String, Value>) -> Self {
        self.parameters = parameters;
        self
    }

    /// Sets the ticket.
    #[must_use]
    pub fn with_ticket_id(mut self, ticket_id: impl Into<String>) -> Self {
        self.ticket_id = Some(ticket_id.into());
        self
    }

    /// Sets the key under which at most one execution is recorded.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// Says who asks.
    #[must_use]
    pub fn with_actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Asks the script to change nothing.
    #[must_use]
    pub const fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// Asks for a dry run through the whole path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TestRequest {
    /// The script; by default the first that has a `dry_run` parameter.
    pub script_name: Option<String>,
    /// Who asks.
    pub actor: Option<String>,
}

/// Which of a ticket's executions are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsQuery {
    /// The ticket.
    pub ticket_id: String,
    /// Of this script.
    pub script_name: Option<String>,
    /// With one of these statuses; any when empty.
    pub statuses: Vec<Status>,
}

impl LogsQuery {
    /// Asks for all executions of a ticket.
    #[must_use]
    pub fn new(ticket_id: impl Into<String>) -> Self {
        Self {
            ticket_id: ticket_id.into(),
            script_name: None,
            statuses: Vec::new(),
        }
    }
}

impl<T: Into<String>> From<T> for LogsQuery {
    fn from(ticket_id: T) -> Self {
        Self::new(ticket_id)
    }
}

/// Which executions are asked for, of any ticket. Conditions compose; an empty one does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutionsQuery {
    /// Of this ticket.
    pub ticket_id: Option<String>,
    /// Of this script.
    pub script_name: Option<String>,
    /// With one of these statuses; any when empty.
    pub statuses: Vec<Status>,
    /// Asked for by this actor.
    pub actor: Option<String>,
    /// Accepted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Accepted before this time.
    pub until: Option<DateTime<Utc>>,
    /// With `output`, `stderr` and `parsed_output`, which are empty otherwise.
    pub with_output: bool,
}

/// Which ended executions are pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneRequest {
    /// The first day (UTC) that is kept: what ended earlier goes. Today at the latest.
    pub before: NaiveDate,
    /// With one of these terminal statuses; with any when empty.
    pub statuses: Vec<Status>,
}

impl PruneRequest {
    /// Asks for every execution that ended before a day (UTC).
    #[must_use]
    pub const fn before(before: NaiveDate) -> Self {
        Self {
            before,
            statuses: Vec::new(),
        }
    }

    /// Asks for those with one of these terminal statuses only.
    #[must_use]
    pub fn with_statuses(mut self, statuses: impl Into<Vec<Status>>) -> Self {
        self.statuses = statuses.into();
        self
    }
}

/// Which script would run for a ticket, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Route {
    /// The script's name.
    pub script_name: String,
    /// The version that would run.
    pub script_version: String,
    /// The category as the script's metadata has it.
    pub category: String,
    /// Why this script, and why so: what a run records as its decision.
    pub reason: String,
    /// Other scripts of the category, in their order.
    pub alternatives: Vec<String>,
    /// Those of them that may follow when this one fails, in their order: each one before them declares
    /// `fallback = true`.
    pub fallbacks: Vec<String>,
    /// The run's priority: higher goes first.
    pub priority: i32,
    /// Whether the run waits for an approval.
    pub needs_approval: bool,
    /// Why the version is kept out of this process, if it is and that is known already.
    pub concern: Option<Concern>,
}

impl Route {
    pub(crate) const fn new(
        script_name: String,
        script_version: String,
        category: String,
        reason: String,
        alternatives: Vec<String>,
    ) -> Self {
        Self {
            script_name,
            script_version,
            category,
            reason,
            alternatives,
            fallbacks: Vec::new(),
            priority: 0,
            needs_approval: false,
            concern: None,
        }
    }
}

/// Which statistics are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatsQuery {
    /// Whose executions; the handle sets its own.
    pub tenant_id: TenantId,
    /// Of executions that ended on this day (UTC) or later.
    pub since: Option<NaiveDate>,
    /// Of this script.
    pub script_name: Option<String>,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Rows at most, from 1 to [`limits::PAGE_ROWS_MAX`].
    pub rows_max: usize,
    /// Where the page before this one ended.
    pub after: Option<Cursor>,
}

impl Page {
    /// Asks for the first `rows_max` rows; held to 1 and [`limits::PAGE_ROWS_MAX`].
    #[must_use]
    pub fn first(rows_max: usize) -> Self {
        Self {
            rows_max: rows_max.clamp(1, limits::PAGE_ROWS_MAX),
            after: None,
        }
    }

    /// Asks for the rows that follow `cursor`.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(limits::PAGE_ROWS)
    }
}

/// A place in a list. Opaque: only the list that gave it understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// Wraps a cursor that came from outside; a wrong one is refused when it is used.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text to hand out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last row.
    pub next: Option<Cursor>,
}

impl<T> Listing<T> {
    /// Creates a part of a list.
    #[must_use]
    pub const fn new(items: Vec<T>, next: Option<Cursor>) -> Self {
        Self { items, next }
    }
}

/// Checks a key that a caller chose.
pub(crate) fn check_idempotency_key(key: Option<&str>, problems: &mut Vec<Problem>) {
    let Some(key) = key else { return };
    let fits = (1..=limits::IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len());
    if !fits || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        problems.push(Problem::new(
            "/idempotency_key",
            format!(
                "must be 1 to {} visible ASCII characters without spaces",
                limits::IDEMPOTENCY_KEY_CHARS_MAX
            ),
        ));
    }
}

/// Refuses a request that has problems.
pub(crate) fn refuse(problems: Vec<Problem>) -> Result<(), Error> {
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidRequest { problems })
    }
}

/// Checks a request of which only the actor can be wrong.
pub(crate) fn check_only_actor(actor: Option<&str>) -> Result<(), Error> {
    let mut problems = Vec::new();
    check_actor(actor, &mut problems);
    refuse(problems)
}

/// Checks what every request has in common.
pub(crate) fn check_actor(actor: Option<&str>, problems: &mut Vec<Problem>) {
    let Some(actor) = actor else { return };
    let chars = actor.chars().count();
    if chars == 0 || chars > limits::ACTOR_CHARS_MAX || actor.chars().any(char::is_control) {
        problems.push(Problem::new(
            "/actor",
            format!(
                "must be 1 to {} visible characters",
                limits::ACTOR_CHARS_MAX
            ),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::{Ticket, validate_ticket_id};

    #[test]
    fn ticket_ids_need_not_be_uuids() {
        for id in [
            "test-ticket",
            "manual-execution-id",
            "T 1",
            "票-1",
            &"x".repeat(128),
        ] {
            assert_eq!(validate_ticket_id(id), Ok(()), "{id}");
        }
        for id in ["", " x", "x ", "a\nb", "a\0b", &"x".repeat(129)] {
            assert!(validate_ticket_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_ticket_needs_an_id() {
        let fields = serde_json::json!({"issue_text": "slow"});
        let error = Ticket::from_fields(fields.as_object().unwrap().clone()).unwrap_err();
        assert_eq!(error.to_string(), "invalid request: /ticket/id: is missing");
    }
}
