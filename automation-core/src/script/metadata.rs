//! What a script says about itself: the standard's keys at the top of the block, ours in `[tool.automation]`.
//!
//! Knows nothing of comments (`block`) and of parameter schemas (`declaration`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use super::category::is_declarable;
use super::fields::{Fields, Findings, integer, shown};
use super::message::nearest;
use super::retry::RetryPolicy;
use crate::execution::{Effect, Isolation};
use crate::limits;

/// Place of a script among those of its category unless its metadata says otherwise.
const ORDER: i32 = 100;

/// How a script is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// Executed as `__main__`; prints its result.
    #[default]
    Plain,
    /// Defines `run(ctx, **parameters)`; returns its result.
    Run,
}

/// How much harm a script can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Little.
    #[default]
    Low,
    /// Enough to ask somebody first.
    High,
}

/// What a script's metadata says, defaults filled in. Limits that it does not state are `None`: what holds then is the
/// [`LimitPolicy`](crate::executor::LimitPolicy)'s.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// The classification category that selects the script, as written; `None`: manual only.
    pub category: Option<String>,
    /// Place among the scripts of the same category, lowest first, then by name. Default 100.
    pub order: i32,
    /// What it does.
    pub description: String,
    /// Time from its first byte to its deadline.
    pub timeout: Option<Duration>,
    /// Processor time it may use, its threads and programs included.
    pub cpu: Option<Duration>,
    /// Memory it may use, in MiB.
    pub memory_mb: Option<u64>,
    /// Bytes of each stream that are kept.
    pub stream_bytes: Option<usize>,
    /// Programs it may start in all.
    pub children_max: Option<u32>,
    /// What it must not do; an attempt fails inside the script. No sandbox, see [`Effect`].
    pub deny: Vec<Effect>,
    /// Where it runs.
    pub isolation: Isolation,
    /// How much harm it can do.
    pub risk: Risk,
    /// Whether it may run again after an unknown outcome.
    pub idempotent: bool,
    /// When and how often a failed run is tried again by itself; `None`: never.
    pub retry: Option<RetryPolicy>,
    /// How it is entered.
    pub entry: Entry,
    /// Whether the ticket is handed over as JSON in `sys.argv[2]`.
    pub context_argv: bool,
    /// The Python versions it needs, for instance `>=3.9`.
    pub requires_python: Option<String>,
    /// The packages it needs (PEP 508).
    pub dependencies: Vec<String>,
}

impl Default for Metadata {
    /// What holds for a script that says nothing: it is run by name only.
    fn default() -> Self {
        Self {
            category: None,
            order: ORDER,
            description: String::new(),
            timeout: None,
            cpu: None,
            memory_mb: None,
            stream_bytes: None,
            children_max: None,
            deny: Vec::new(),
            isolation: Isolation::default(),
            risk: Risk::default(),
            idempotent: false,
            retry: None,
            entry: Entry::default(),
            context_argv: false,
            requires_python: None,
            dependencies: Vec::new(),
        }
    }
}

/// The tables of a block that are read for themselves.
#[derive(Debug, Default)]
pub(super) struct Schemas<'t> {
    /// `[tool.automation.parameters]`.
    pub(super) parameters: Option<&'t DeTable<'t>>,
    /// `[tool.automation.output_schema]`.
    pub(super) output: Option<&'t DeTable<'t>>,
    /// `[tool.automation.retry]`.
    pub(super) retry: Option<&'t DeTable<'t>>,
}

/// Reads a block's document. Returns the tables of its schemas beside the metadata.
pub(super) fn read<'t>(
    document: &'t DeTable<'t>,
    findings: &mut Findings<'_>,
) -> (Metadata, Schemas<'t>) {
    let mut metadata = Metadata::default();
    let mut fields = Fields::new("outside [tool.automation]", document, findings);
    metadata.requires_python = fields.read(
        "requires-python",
        "Python versions, for instance \">=3.9\"",
        |value| text(value).filter(|text| is_version_specifier(text)),
    );
    metadata.dependencies = dependencies(&mut fields);
    let tool = fields.read("tool", "a table", DeValue::as_table);
    fields.finish();

    let automation = tool.and_then(|tool| our_table(tool, findings));
    let schemas = automation.map(|automation| {
        metadata.read_ours(Fields::new("[tool.automation]", automation, findings))
    });
    (metadata, schemas.unwrap_or_default())
}

impl Metadata {
    fn read_ours<'t>(&mut self, mut fields: Fields<'t, '_, '_>) -> Schemas<'t> {
        self.category = fields.read(
            "category",
            "a name of 1 to 128 characters, none of them a control character",
            |value| text(value).filter(|text| is_declarable(text)),
        );
        set(
            &mut self.order,
            fields.read("order", "a whole number", |value| {
                integer(value)?.try_into().ok()
            }),
        );
        set(
            &mut self.description,
            fields.read("description", "a string", text),
        );
        self.read_limits(&mut fields);
        self.read_manner(&mut fields);
        let schemas = Schemas {
            parameters: fields.read("parameters", "a table", DeValue::as_table),
            output: fields.read("output_schema", "a table", DeValue::as_table),
            retry: fields.read("retry", "a table", DeValue::as_table),
        };
        fields.finish();
        schemas
    }

    fn read_limits(&mut self, fields: &mut Fields<'_, '_, '_>) {
        let expected = format!(
            "a number of seconds from 0.001 to {}",
            limits::SCRIPT_TIMEOUT_MAX.as_secs()
        );
        self.timeout = fields.read("timeout_seconds", &expected, timeout);
        let expected = format!(
            "a whole number of MiB from 1 to {}",
            limits::SCRIPT_MEMORY_MB_MAX
        );
        self.memory_mb = fields.read("memory_mb", &expected, |value| {
            u64::try_from(integer(value)?)
                .ok()
                .filter(|mb| (1..=limits::SCRIPT_MEMORY_MB_MAX).contains(mb))
        });
        self.cpu = fields.read(
            "cpu_seconds",
            &format!(
                "a number of seconds from 0.001 to {}",
                limits::SCRIPT_TIMEOUT_MAX.as_secs()
            ),
            timeout,
        );
        let expected = format!("a whole number of KiB from 1 to {}", limits::STREAM_KIB_MAX);
        self.stream_bytes = fields.read("output_kib", &expected, |value| {
            usize::try_from(integer(value)?)
                .ok()
                .filter(|kib| (1..=limits::STREAM_KIB_MAX).contains(kib))
                .map(|kib| kib * 1024)
        });
        self.children_max = fields.read("children_max", "a whole number, 0 for none", |value| {
            integer(value)?.try_into().ok()
        });
    }

    fn read_manner(&mut self, fields: &mut Fields<'_, '_, '_>) {
        set(
            &mut self.isolation,
            fields.read("isolation", "\"in-process\" or \"process\"", |value| {
                value.as_str().and_then(Isolation::from_word)
            }),
        );
        set(
            &mut self.risk,
            fields.read("risk", "\"low\" or \"high\"", |value| {
                match value.as_str()? {
                    "low" => Some(Risk::Low),
                    "high" => Some(Risk::High),
                    _ => None,
                }
            }),
        );
        set(
            &mut self.entry,
            fields.read("entry", "\"plain\" or \"run\"", |value| {
                match value.as_str()? {
                    "plain" => Some(Entry::Plain),
                    "run" => Some(Entry::Run),
                    _ => None,
                }
            }),
        );
        self.read_deny(fields);
        set(&mut self.idempotent, fields.flag("idempotent"));
        set(&mut self.context_argv, fields.flag("context_argv"));
        if self.context_argv && self.entry == Entry::Run {
            fields.warning(
                "context_argv",
                "context_argv has no effect with entry = \"run\": `run` gets the ticket from `ctx`",
            );
        }
    }
}

impl Metadata {
    fn read_deny(&mut self, fields: &mut Fields<'_, '_, '_>) {
        let items = fields.read("deny", "a list of effects", DeValue::as_array);
        for item in items.into_iter().flatten() {
            match item.get_ref().as_str().and_then(Effect::from_word) {
                Some(effect) => self.deny.push(effect),
                None => fields.error_at(
                    &item.span(),
                    &format!(
                        "deny holds {}, expected one of {}",
                        shown(item.get_ref()),
                        effects().join(", ")
                    ),
                ),
            }
        }
    }
}

fn effects() -> Vec<String> {
    let quoted = |effect: &Effect| format!("\"{effect}\"");
    Effect::ALL.iter().map(quoted).collect()
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Returns `[tool.automation]`. The tables of other tools are theirs, but a misspelled one of ours is reported:
/// a script whose limits are ignored must not run.
fn our_table<'t>(tool: &'t DeTable<'t>, findings: &mut Findings<'_>) -> Option<&'t DeTable<'t>> {
    const NAME: &str = "automation";
    if tool.contains_key(NAME) {
        return Fields::new("[tool]", tool, findings).read(NAME, "a table", DeValue::as_table);
    }
    for key in tool.keys() {
        if nearest(key.get_ref(), &[NAME]).is_some() {
            let message = format!(
                "[tool.{}] is unknown, did you mean [tool.{NAME}]?",
                key.get_ref()
            );
            findings.error(&key.span(), message);
        }
    }
    None
}

fn text(value: &DeValue<'_>) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.contains('\0'))
        .map(str::to_owned)
}

fn timeout(value: &DeValue<'_>) -> Option<Duration> {
    let seconds = super::fields::number(value)?.as_f64()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| (Duration::from_millis(1)..=limits::SCRIPT_TIMEOUT_MAX).contains(timeout))
}

fn dependencies(fields: &mut Fields<'_, '_, '_>) -> Vec<String> {
    let items = fields.read("dependencies", "a list of packages", DeValue::as_array);
    let mut dependencies = Vec::new();
    for item in items.into_iter().flatten() {
        match text(item.get_ref()).filter(|text| is_requirement(text)) {
            Some(requirement) => dependencies.push(requirement),
            None => fields.error_at(
                &item.span(),
                &format!(
                    "dependencies holds {}, expected a package, for instance \"requests>=2\"",
                    shown(item.get_ref())
                ),
            ),
        }
    }
    dependencies
}

/// Returns whether a text looks like a version specifier (PEP 440). Who resolves it has the last word.
fn is_version_specifier(text: &str) -> bool {
    const OPERATORS: [&str; 8] = ["===", "~=", "==", "!=", "<=", ">=", "<", ">"];
    text.split(',').all(|clause| {
        let clause = clause.trim();
        OPERATORS
            .iter()
            .find_map(|operator| clause.strip_prefix(operator))
            .is_some_and(|version| {
                let version = version.trim();
                version.starts_with(|first: char| first.is_ascii_digit())
                    && version
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b".*+!-_".contains(&byte))
            })
    })
}

/// Returns whether a text looks like a requirement (PEP 508). Who resolves it has the last word.
fn is_requirement(text: &str) -> bool {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
        && (rest.is_empty() || rest.starts_with([' ', '[', '(', '<', '>', '=', '!', '~', ';', '@']))
        && !rest.contains(char::is_control)
}
