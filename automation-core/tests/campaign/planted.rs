//! The checker against histories that are sound, in each of which one thing is then spoilt.

use std::collections::BTreeMap;

use automation_core::{Completion, Execution, ExecutionId, Reason, Stats, Status, Trigger};
use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

use crate::checker::{Evidence, RECENT, Violation, check};
use crate::ledger::{Answer, Line, Phase};

/// What may become of a request, and leave sound evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Completed,
    CompletedUnheard,
    Failed,
    KilledBeforeStart,
    KilledInScript,
    KilledAfterScript,
    Refused,
}

const FATES: [Fate; 7] = [
    Fate::Completed,
    Fate::CompletedUnheard,
    Fate::Failed,
    Fate::KilledBeforeStart,
    Fate::KilledInScript,
    Fate::KilledAfterScript,
    Fate::Refused,
];

impl Fate {
    fn end(self) -> (Status, Option<Reason>) {
        match self {
            Self::Completed | Self::CompletedUnheard => (Status::Completed, None),
            Self::Failed => (Status::Failed, Some(Reason::ExitCode)),
            Self::KilledBeforeStart | Self::Refused => (Status::Failed, Some(Reason::NotStarted)),
            Self::KilledInScript | Self::KilledAfterScript => {
                (Status::Failed, Some(Reason::Orphaned))
            }
        }
    }

    fn phases(self) -> &'static [Phase] {
        match self {
            Self::KilledBeforeStart | Self::Refused => &[],
            Self::KilledInScript => &[Phase::Began],
            _ => &[Phase::Began, Phase::Ended],
        }
    }
}

fn row(n: usize, fate: Fate) -> Execution {
    let id = ExecutionId::from_uuid(Uuid::from_u128(n as u128 + 1));
    let day = DateTime::from_timestamp(1_767_268_800, 0).unwrap();
    let mut row = Execution::new(id, "quick.py", "0", Trigger::Ticket, day);
    row.ticket_id = format!("r-{n}");
    let (status, reason) = fate.end();
    row.end(Completion::new(status, reason, day));
    row
}

fn effect(row: &Execution, phase: Phase) -> Line {
    Line::Effect {
        id: row.id,
        request: row.ticket_id.clone(),
        phase,
    }
}

fn evidence(fates: &[Fate]) -> Evidence {
    let mut rows: Vec<_> = fates
        .iter()
        .enumerate()
        .map(|(n, fate)| row(n, *fate))
        .collect();
    let mut lines = Vec::new();
    for (row, fate) in rows.iter().zip(fates) {
        lines.extend(fate.phases().iter().map(|phase| effect(row, *phase)));
        let request = row.ticket_id.clone();
        match fate {
            Fate::Completed | Fate::Failed => lines.push(Line::Answered {
                request,
                answer: Answer::of(row),
            }),
            Fate::Refused => lines.push(Line::Refused {
                request,
                why: String::new(),
            }),
            _ => {}
        }
    }
    let earlier: BTreeMap<_, _> = rows
        .iter()
        .step_by(2)
        .map(|row| (row.id, Answer::of(row)))
        .collect();
    rows.reverse();
    let stats = Stats::fold(&rows, RECENT);
    Evidence {
        lines,
        earlier,
        rows,
        stats,
    }
}

impl Evidence {
    fn row(&mut self, id: ExecutionId) -> &mut Execution {
        self.rows.iter_mut().find(|row| row.id == id).unwrap()
    }

    fn recount(&mut self) {
        self.stats = Stats::fold(&self.rows, RECENT);
    }

    fn drop_line(&mut self, unwanted: &Line) {
        self.lines.retain(|line| line != unwanted);
    }
}

/// Something that a bug would leave behind: how it spoils the evidence of a run with one of these fates, and what
/// the checker must say then.
struct Plant {
    name: &'static str,
    of: &'static [Fate],
    spoil: fn(&mut Evidence, Execution) -> Violation,
}

const RAN: &[Fate] = &[
    Fate::Completed,
    Fate::CompletedUnheard,
    Fate::Failed,
    Fate::KilledInScript,
    Fate::KilledAfterScript,
];

const PLANTS: &[Plant] = &[
    Plant {
        name: "an acknowledged row is lost",
        of: &[Fate::Completed, Fate::Failed],
        spoil: |evidence, row| {
            evidence.rows.retain(|other| other.id != row.id);
            evidence.recount();
            Violation::Lost(row.id)
        },
    },
    Plant {
        name: "a row that was there is lost",
        of: &[Fate::KilledBeforeStart],
        spoil: |evidence, row| {
            evidence.earlier.insert(row.id, Answer::of(&row));
            evidence.rows.retain(|other| other.id != row.id);
            evidence.recount();
            Violation::Lost(row.id)
        },
    },
    Plant {
        name: "a script ran without a row",
        of: RAN,
        spoil: |evidence, row| {
            evidence.rows.retain(|other| other.id != row.id);
            evidence.recount();
            Violation::WithoutRow(row.id)
        },
    },
    Plant {
        name: "a script began twice",
        of: RAN,
        spoil: |evidence, row| {
            evidence.lines.push(effect(&row, Phase::Began));
            Violation::Twice(row.id)
        },
    },
    Plant {
        name: "a script ended twice",
        of: &[Fate::Completed, Fate::Failed, Fate::KilledAfterScript],
        spoil: |evidence, row| {
            evidence.lines.push(effect(&row, Phase::Ended));
            Violation::Twice(row.id)
        },
    },
    Plant {
        name: "a request was run twice",
        of: &FATES,
        spoil: |evidence, row| {
            let mut twin = row.clone();
            twin.id = ExecutionId::from_uuid(Uuid::from_u128(u128::MAX));
            evidence.rows.insert(0, twin);
            evidence.recount();
            Violation::RequestTwice(row.ticket_id)
        },
    },
    Plant {
        name: "a row stays open",
        of: &FATES,
        spoil: |evidence, row| {
            evidence.row(row.id).status = Status::Running;
            evidence.recount();
            Violation::Stuck(row.id)
        },
    },
    Plant {
        name: "what was never started ran",
        of: &[Fate::KilledBeforeStart],
        spoil: |evidence, row| {
            evidence.lines.push(effect(&row, Phase::Began));
            Violation::RanAllTheSame(row.id)
        },
    },
    Plant {
        name: "what was refused ran",
        of: &[Fate::CompletedUnheard, Fate::KilledInScript],
        spoil: |evidence, row| {
            evidence.lines.push(Line::Refused {
                request: row.ticket_id,
                why: String::new(),
            });
            Violation::RanAllTheSame(row.id)
        },
    },
    Plant {
        name: "a row is completed whose script did not end",
        of: &[Fate::Completed, Fate::CompletedUnheard, Fate::Failed],
        spoil: |evidence, row| {
            evidence.drop_line(&effect(&row, Phase::Ended));
            Violation::NeverEnded(row.id)
        },
    },
    Plant {
        name: "a terminal status changes",
        of: &[Fate::Completed],
        spoil: |evidence, row| {
            let changed = evidence.row(row.id);
            (changed.status, changed.reason) = (Status::Failed, Some(Reason::Orphaned));
            evidence.recount();
            Violation::TerminalChanged(row.id)
        },
    },
    Plant {
        name: "a terminal row changes",
        of: &[Fate::Completed, Fate::Failed],
        spoil: |evidence, row| {
            evidence.row(row.id).output = "late".to_owned();
            evidence.recount();
            Violation::Differs(row.id)
        },
    },
    Plant {
        name: "a run gets another's row",
        of: RAN,
        spoil: |evidence, row| {
            evidence.row(row.id).ticket_id = "r-other".to_owned();
            evidence.recount();
            Violation::Mixed(row.id)
        },
    },
    Plant {
        name: "a run is not counted",
        of: &FATES,
        spoil: |evidence, row| {
            let rest = evidence.rows.iter().filter(|other| other.id != row.id);
            evidence.stats = Stats::fold(rest, RECENT);
            Violation::WrongStatistics
        },
    },
    Plant {
        name: "a run is counted twice",
        of: &FATES,
        spoil: |evidence, row| {
            evidence.stats.all.add(&row);
            Violation::WrongStatistics
        },
    },
];

proptest! {
    #[test]
    fn sound_evidence_has_no_violation_and_every_planted_bug_is_found(
        mut fates in proptest::collection::vec(proptest::sample::select(&FATES[..]), 0..20),
        at: proptest::sample::Index,
    ) {
        prop_assert_eq!(check(&evidence(&fates)), []);
        for plant in PLANTS {
            for fate in plant.of {
                let n = at.index(fates.len() + 1);
                fates.insert(n, *fate);
                let mut spoilt = evidence(&fates);
                let expected = (plant.spoil)(&mut spoilt, row(n, *fate));
                let found = check(&spoilt);
                prop_assert!(found.contains(&expected), "{}, {fate:?}: {found:?}", plant.name);
                fates.remove(n);
            }
        }
    }
}
