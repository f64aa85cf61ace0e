//! How a run ended: from what cut it short, from how its process ended, and from what the child said last, in that
//! order. Pure.

use std::time::Duration;

use automation_core::Reason;
use automation_core::executor::{Ending, Failure, RunLimits};
use automation_core::script::Entry;
use automation_core::{Problem, json};
use serde_json::Value;

const SIGABRT: i64 = 6;
const SIGKILL: i64 = 9;
const SIGXCPU: i64 = 24;
/// Names of signals that end a process, by number.
const SIGNALS: [(i64, &str); 14] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (SIGABRT, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (SIGKILL, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (SIGXCPU, "SIGXCPU"),
    (31, "SIGSYS"),
];

/// What cuts a run short. Decided by us, never by what surfaces in the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its deadline passed.
    TimedOut,
    /// It was asked to end.
    Cancelled,
    /// It used more processor time than it may.
    Cpu,
    /// It and what it started used more memory than they may.
    Memory,
    /// The host broke, or the child could not be given its order; the caller answers with an error.
    Defect,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With an exit code, or by a signal: its number, negative.
    Code(i64),
    /// With its zygote.
    WithZygote,
    /// Not at all: it survives what nothing survives.
    StillRuns,
}

/// What there is to be said.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) ending: Ending,
    pub(super) exit_code: Option<i32>,
    pub(super) returned: Option<Value>,
}

impl Verdict {
    /// Says nothing but how it ended.
    pub(super) const fn new(ending: Ending) -> Self {
        Self {
            ending,
            exit_code: None,
            returned: None,
        }
    }

    fn failed(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Ending::Failed(Failure::new(reason, message)))
    }
}

/// Returns the ending of a run that was cut short.
pub(super) fn cut_ending(cut: Cut, limits: &RunLimits, still_running: bool) -> Ending {
    let (reason, message) = match cut {
        Cut::Cancelled if !still_running => return Ending::Cancelled,
        Cut::Cancelled => (
            Reason::CancelledByRequest,
            "cancelled, and still running: it could not be stopped".to_owned(),
        ),
        Cut::TimedOut => (
            Reason::Timeout,
            format!("timed out after {} s", limits.timeout.as_secs_f64()),
        ),
        Cut::Cpu => (Reason::CpuLimit, cpu_sentence(limits.cpu)),
        Cut::Memory => (Reason::MemoryLimit, memory_sentence(limits)),
        Cut::Defect => (Reason::ExecutorError, "the executor broke".to_owned()),
    };
    Ending::Failed(Failure::new(reason, message))
}

fn cpu_sentence(limit: Option<Duration>) -> String {
    let limit = limit.unwrap_or_default().as_secs_f64();
    format!("used more than {limit} s of processor time")
}

fn memory_sentence(limits: &RunLimits) -> String {
    format!("used more than {} MiB of memory", limits.memory_bytes >> 20)
}

/// Returns what is said of a run that ended by itself. `near_memory_limit` says whether it was seen to use about as
/// much memory as it may.
pub(super) fn verdict(
    end: End,
    told: Option<&Value>,
    entry: Entry,
    limits: &RunLimits,
    near_memory_limit: bool,
) -> Verdict {
    let code = match end {
        End::Code(code) if code < 0 => return killed(-code, limits, near_memory_limit),
        End::Code(code) => code,
        End::WithZygote | End::StillRuns => {
            let message = "the process that isolates scripts ended, and the script with it";
            return Verdict::failed(Reason::ExecutorError, message);
        }
    };
    // Words that were followed by another end are not the last ones.
    let told = told.filter(|told| told["exit"] == code);
    let mut verdict = match told {
        Some(told) => by_words(code, told, limits),
        None if code == 0 && entry == Entry::Run => Verdict::failed(
            Reason::InvalidOutput,
            "the process exited before `run` returned",
        ),
        None => exited(code),
    };
    verdict.exit_code = verdict.exit_code.or(i32::try_from(code).ok());
    verdict
}

fn exited(code: i64) -> Verdict {
    if code == 0 {
        return Verdict::new(Ending::Completed);
    }
    Verdict::failed(Reason::ExitCode, format!("exit code {code}"))
}

fn by_words(code: i64, told: &Value, limits: &RunLimits) -> Verdict {
    if let Some(sentence) = told["exception"].as_str() {
        if told["out_of_memory"] == true {
            let limit = limits.memory_bytes >> 20;
            let message = format!("{sentence}: it may use {limit} MiB of memory");
            return Verdict::failed(Reason::MemoryLimit, message);
        }
        return Verdict::failed(Reason::Exception, sentence);
    }
    if let Some(detail) = told["refused"].as_str() {
        let pointer = told["pointer"].as_str().unwrap_or_default();
        return refused(&Problem::new(pointer, detail));
    }
    let mut verdict = exited(code);
    if let Some(text) = told["returned"].as_str() {
        match read(text) {
            Ok(value) => verdict.returned = Some(value),
            Err(problem) => return refused(&problem),
        }
    }
    verdict
}

/// Reads what `run` returned, under the one profile of JSON.
fn read(text: &str) -> Result<Value, Problem> {
    let value = serde_json::from_str(text).map_err(|error| Problem::new("", error.to_string()))?;
    json::check(&value)?;
    Ok(value)
}

fn refused(problem: &Problem) -> Verdict {
    let Problem { pointer, detail } = problem;
    let message = match pointer.as_str() {
        "" => format!("the result: {detail}"),
        _ => format!("the result at {pointer}: {detail}"),
    };
    Verdict::failed(Reason::InvalidOutput, message)
}

fn killed(signal: i64, limits: &RunLimits, near_memory_limit: bool) -> Verdict {
    let name = SIGNALS.iter().find(|(number, _)| *number == signal);
    let name = name.map_or_else(String::new, |(_, name)| format!(" ({name})"));
    let message = format!("killed by signal {signal}{name}");
    match signal {
        SIGXCPU => Verdict::failed(
            Reason::CpuLimit,
            format!("{}: {message}", cpu_sentence(limits.cpu)),
        ),
        _ if near_memory_limit => Verdict::failed(
            Reason::MemoryLimit,
            format!("{}: {message}", memory_sentence(limits)),
        ),
        SIGKILL => Verdict::failed(
            Reason::ExitCode,
            format!("{message}, not by us: the system may be out of memory"),
        ),
        _ => Verdict::failed(Reason::ExitCode, message),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use automation_core::Reason;
    use automation_core::executor::{Ending, Failure, RunLimits};
    use automation_core::script::{Entry, Metadata};
    use serde_json::{Value, json};

    use super::{Cut, End, cut_ending, verdict};

    fn limits() -> RunLimits {
        let mut limits = RunLimits::of(&Metadata::default());
        limits.timeout = Duration::from_millis(1500);
        limits.memory_bytes = 64 << 20;
        limits.cpu = Some(Duration::from_secs(2));
        limits
    }

    fn ending(end: End, told: &Value, near: bool) -> Ending {
        verdict(end, Some(told), Entry::Plain, &limits(), near).ending
    }

    fn failed(reason: Reason, message: &str) -> Ending {
        Ending::Failed(Failure::new(reason, message))
    }

    #[test]
    fn words_count_only_when_the_process_ended_as_they_say() {
        let told = json!({ "exit": 0 });
        assert_eq!(ending(End::Code(0), &told, false), Ending::Completed);
        let exited = failed(Reason::ExitCode, "exit code 4");
        assert_eq!(ending(End::Code(4), &told, false), exited);
        let raised = json!({ "exit": 1, "exception": "ValueError: x", "out_of_memory": false });
        let expected = failed(Reason::Exception, "ValueError: x");
        assert_eq!(ending(End::Code(1), &raised, false), expected);
        let killed = failed(Reason::ExitCode, "killed by signal 11 (SIGSEGV)");
        assert_eq!(ending(End::Code(-11), &raised, false), killed);
        let unknown = failed(Reason::ExitCode, "killed by signal 40");
        assert_eq!(ending(End::Code(-40), &raised, false), unknown);
    }

    #[test]
    fn limits_are_named_with_what_they_allow() {
        let none = json!({});
        for (end, near, reason, message) in [
            (
                -24,
                false,
                Reason::CpuLimit,
                "used more than 2 s of processor time: killed by signal 24 (SIGXCPU)",
            ),
            (
                -6,
                true,
                Reason::MemoryLimit,
                "used more than 64 MiB of memory: killed by signal 6 (SIGABRT)",
            ),
        ] {
            assert_eq!(ending(End::Code(end), &none, near), failed(reason, message));
        }
        let told = json!({ "exit": 1, "exception": "MemoryError", "out_of_memory": true });
        let expected = failed(
            Reason::MemoryLimit,
            "MemoryError: it may use 64 MiB of memory",
        );
        assert_eq!(ending(End::Code(1), &told, false), expected);
    }

    #[test]
    fn a_result_is_under_the_one_profile() {
        let told = |text: &str| json!({ "exit": 0, "returned": text });
        let read = verdict(
            End::Code(0),
            Some(&told("[1, null]")),
            Entry::Run,
            &limits(),
            false,
        );
        assert_eq!(
            (read.ending, read.returned),
            (Ending::Completed, Some(json!([1, null])))
        );
        let refused = failed(Reason::InvalidOutput, "the result at /a: character U+0000");
        assert_eq!(
            ending(End::Code(0), &told("{\"a\": \"\\u0000\"}"), false),
            refused
        );
    }

    #[test]
    fn what_cut_a_run_short_decides() {
        let ending = |cut, still_running| cut_ending(cut, &limits(), still_running);
        let timed_out = failed(Reason::Timeout, "timed out after 1.5 s");
        assert_eq!(ending(Cut::TimedOut, false), timed_out);
        assert_eq!(ending(Cut::Cancelled, false), Ending::Cancelled);
        let Ending::Failed(failure) = ending(Cut::Cancelled, true) else {
            panic!("it still runs")
        };
        assert_eq!(failure.reason, Reason::CancelledByRequest);
    }
}
