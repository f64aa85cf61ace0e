//! Holds what happened against what is recorded. Pure; `planted` proves that it finds what it should.

use std::collections::{BTreeMap, BTreeSet};

use automation_core::{Execution, ExecutionId, Reason, Stats, Status};

use crate::ledger::{Answer, Line, Phase};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// A run that was recorded or acknowledged has no row any more.
    Lost(ExecutionId),
    /// A script began or ended more than once.
    Twice(ExecutionId),
    /// More than one run was made of one request.
    RequestTwice(String),
    /// A row is open that nobody looks after.
    Stuck(ExecutionId),
    /// A script ran that was never recorded.
    WithoutRow(ExecutionId),
    /// A row says that nothing ran, or a caller was told so, and something did.
    RanAllTheSame(ExecutionId),
    /// A row says that the script came to its end, and it did not.
    NeverEnded(ExecutionId),
    /// A terminal status changed, or is another one than the caller was told.
    TerminalChanged(ExecutionId),
    /// The rest of a terminal row changed, or is not what the caller was told.
    Differs(ExecutionId),
    /// A row and its script's effects are of different requests.
    Mixed(ExecutionId),
    /// The statistics are not a recount.
    WrongStatistics,
}

/// All that is known after a fault.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// The ledger, in order.
    pub(crate) lines: Vec<Line>,
    /// The terminal rows of an earlier look.
    pub(crate) earlier: BTreeMap<ExecutionId, Answer>,
    /// All rows, newest first.
    pub(crate) rows: Vec<Execution>,
    pub(crate) stats: Stats,
}

/// Rows of the list of recent ones that storages answer with.
pub(crate) const RECENT: usize = 10;

/// Returns everything that must not be.
pub(crate) fn check(evidence: &Evidence) -> Vec<Violation> {
    let rows: BTreeMap<_, _> = evidence.rows.iter().map(|row| (row.id, row)).collect();
    let mut found = Vec::new();
    check_effects(&evidence.lines, &rows, &mut found);
    check_answers(evidence, &rows, &mut found);
    check_requests(evidence, &mut found);
    if evidence.stats != Stats::fold(&evidence.rows, RECENT) {
        found.push(Violation::WrongStatistics);
    }
    found.sort();
    found.dedup();
    found
}

type Rows<'e> = BTreeMap<ExecutionId, &'e Execution>;

/// What a script did, against its row.
fn check_effects(lines: &[Line], rows: &Rows<'_>, found: &mut Vec<Violation>) {
    let mut happened = BTreeMap::<ExecutionId, (u32, u32)>::new();
    for line in lines {
        let Line::Effect { id, request, phase } = line else {
            continue;
        };
        let (began, ended) = happened.entry(*id).or_default();
        match phase {
            Phase::Began => *began += 1,
            Phase::Ended => *ended += 1,
        }
        match rows.get(id) {
            None => found.push(Violation::WithoutRow(*id)),
            Some(row) if row.ticket_id != *request => found.push(Violation::Mixed(*id)),
            Some(_) => {}
        }
    }
    for (id, (began, ended)) in &happened {
        if *began > 1 || *ended > 1 {
            found.push(Violation::Twice(*id));
        }
    }
    for row in rows.values() {
        let (began, ended) = happened.get(&row.id).copied().unwrap_or_default();
        found.extend(row_says(row, began > 0, ended > 0));
    }
}

fn row_says(row: &Execution, began: bool, ended: bool) -> Option<Violation> {
    match (row.status, row.reason) {
        (status, _) if !status.is_terminal() => Some(Violation::Stuck(row.id)),
        (Status::Failed, Some(Reason::Orphaned)) => None,
        (_, Some(Reason::NotStarted | Reason::Shutdown)) => {
            began.then_some(Violation::RanAllTheSame(row.id))
        }
        _ => (!ended).then_some(Violation::NeverEnded(row.id)),
    }
}

/// What callers were told, and what was seen earlier, against the rows.
fn check_answers(evidence: &Evidence, rows: &Rows<'_>, found: &mut Vec<Violation>) {
    let told = evidence.lines.iter().filter_map(|line| match line {
        Line::Answered { answer, .. } => Some(answer),
        Line::Effect { .. } | Line::Refused { .. } => None,
    });
    for answer in told.chain(evidence.earlier.values()) {
        found.extend(match rows.get(&answer.id) {
            None => Some(Violation::Lost(answer.id)),
            Some(row) if row.status != answer.status => Some(Violation::TerminalChanged(row.id)),
            Some(row) if Answer::of(row) != *answer => Some(Violation::Differs(row.id)),
            Some(_) => None,
        });
    }
}

/// One request, one run; none that was refused.
fn check_requests(evidence: &Evidence, found: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    for row in &evidence.rows {
        if !seen.insert(&row.ticket_id) {
            found.push(Violation::RequestTwice(row.ticket_id.clone()));
        }
    }
    let refused: BTreeSet<_> = evidence
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Refused { request, .. } => Some(request),
            Line::Effect { .. } | Line::Answered { .. } => None,
        })
        .collect();
    for line in &evidence.lines {
        match line {
            Line::Effect { id, request, .. } if refused.contains(request) => {
                found.push(Violation::RanAllTheSame(*id));
            }
            Line::Effect { .. } | Line::Answered { .. } | Line::Refused { .. } => {}
        }
    }
}
