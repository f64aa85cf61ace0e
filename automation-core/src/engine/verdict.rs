//! What a run's end says: the executor's outcome, parsed and redacted, as the completion of its row.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde_json::Value;

use super::host::{Host, Stop};
use super::life::Life;
use crate::execution::{Completion, Reason};
use crate::executor::{Ending, Failure, Outcome, RawOutput};
use crate::limits;
use crate::parser::{Found, ParsedOutput};
use crate::redact::Redactor;
use crate::script::Misfit;
use crate::status::Status;

impl Life {
    pub(super) fn complete(&self, outcome: Outcome, host: &Host) -> Completion {
        let Outcome {
            ending,
            still_running,
            mut output,
            exit_code,
            queue,
            duration,
            usage,
            concern,
        } = outcome;
        let parsed = self.parse(&output);
        if let Found::Rejected(error) = &parsed.found {
            let error = host.redacted(|redactor| redactor.text(&error.to_string()).into_owned());
            tracing::warn!(execution = %self.execution.id, %error, "the output's JSON breaks the profile");
        }
        if host.dropped() > 0 {
            tracing::warn!(execution = %self.execution.id, dropped = host.dropped(), "events were dropped");
        }
        let result = parsed.value.map(Value::Object);
        let (mut status, mut reason, mut error) = self.verdict(ending, still_running);
        if status == Status::Completed
            && let Some(misfit) =
                host.redacted(|redactor| self.misfit(result.as_ref(), &parsed.found, redactor))
        {
            (status, reason) = (Status::Failed, Some(Reason::InvalidOutput));
            error = Some(misfit);
        }
        let mut completion = Completion::new(status, reason, self.engine.now());
        completion.queue_us = Some(micros(queue));
        completion.duration_us = Some(micros(duration));
        completion.usage = usage;
        completion.exit_code = exit_code;
        completion.still_running = still_running;
        completion.concern = concern;
        completion.truncated = output.stdout.gap.is_some() || output.stderr.gap.is_some();
        completion.output_bytes = output.stdout.bytes_total + output.stderr.bytes_total;
        host.redacted(|redactor| {
            redactor.captured(&mut output.stdout);
            redactor.captured(&mut output.stderr);
            let own_words = result
                .as_ref()
                .and_then(own_words)
                .filter(|_| reason == Some(Reason::ExitCode));
            let error = match (error, own_words) {
                (Some(error), Some(own)) => Some(format!("{own} ({error})")),
                (error, _) => error,
            };
            completion.error = error.map(|error| bounded(&redactor.text(&error)));
            completion.parsed_output = result.map(|mut value| {
                redactor.value(&mut value);
                value
            });
        });
        completion.output = output.stdout.text;
        completion.stderr = output.stderr.text;
        completion
    }

    /// Parses the output; a parser that panics finds nothing, since the row must become terminal in any case.
    fn parse(&self, output: &RawOutput) -> ParsedOutput {
        let parser = &self.engine.parts.parser;
        catch_unwind(AssertUnwindSafe(|| parser.parse(output))).unwrap_or_else(|_| {
            tracing::error!(execution = %self.execution.id, "the output parser panicked");
            ParsedOutput::default()
        })
    }

    /// Returns why the result of a run that completed is not what its script promises, if it is not (rule O8). Names
    /// of the result are redacted before they become a pointer, whose escapes would hide a secret.
    fn misfit(&self, result: Option<&Value>, found: &Found, redactor: &Redactor) -> Option<String> {
        let schema = self.plan.script.output_schema()?;
        let Some(result) = result else {
            let why = match found {
                Found::Rejected(problem) => format!(": {}", problem.detail),
                _ => String::new(),
            };
            return Some(format!(
                "no result, and the script has an output schema{why}"
            ));
        };
        let Misfit { path, detail } = schema.misfit(result)?;
        let path = path.iter().map(|name| redactor.text(name));
        let pointer: String = path.map(|name| step(&name)).collect();
        let place = if pointer.is_empty() { "it" } else { &pointer };
        Some(format!(
            "the result does not fit the output schema: {place}: {detail}"
        ))
    }

    /// `cancelled` is said of runs that truly ended (promise P6).
    fn verdict(
        &self,
        ending: Ending,
        still_running: bool,
    ) -> (Status, Option<Reason>, Option<String>) {
        let (asked, by) = match self.run.stopped_by() {
            Some(Stop::Shutdown) => (Reason::Shutdown, "the engine was shut down".to_owned()),
            Some(Stop::Cancel { actor }) => {
                (Reason::CancelledByRequest, cancelled_by(actor.as_deref()))
            }
            None => (Reason::CancelledByRequest, cancelled_by(None)),
        };
        match ending {
            Ending::Completed => (Status::Completed, None, None),
            Ending::Cancelled if still_running => (Status::Failed, Some(asked), Some(by)),
            Ending::Cancelled => (Status::Cancelled, Some(asked), Some(by)),
            Ending::Failed(Failure {
                reason: Reason::CancelledByRequest,
                message,
            }) => (
                Status::Failed,
                Some(asked),
                Some(format!("{by}: {message}")),
            ),
            Ending::Failed(Failure { reason, message }) => {
                (Status::Failed, Some(reason), Some(message))
            }
        }
    }
}

/// Returns what a script that exited with a failure says of it: `{"error": {"message": ...}}` or `{"error": ...}`.
fn own_words(result: &Value) -> Option<&str> {
    let error = result.get("error")?;
    error
        .get("message")
        .unwrap_or(error)
        .as_str()
        .filter(|words| !words.trim().is_empty())
}

/// Cuts what is redacted already: a secret that is cut first is not found.
pub(super) fn bounded(error: &str) -> String {
    let end = error.floor_char_boundary(limits::ERROR_BYTES_MAX);
    let more = if end < error.len() { "..." } else { "" };
    format!("{}{more}", &error[..end])
}

/// Returns one step of a JSON pointer.
fn step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn cancelled_by(actor: Option<&str>) -> String {
    actor.map_or_else(
        || "cancelled by request".to_owned(),
        |actor| format!("cancelled by {actor}"),
    )
}
