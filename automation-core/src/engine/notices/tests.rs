//! Entries against a model, whatever happens to them in whatever order.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use proptest::prelude::*;
use uuid::Uuid;

use super::Notices;
use crate::engine::quarantine::Finding;
use crate::execution::{Concern, ExecutionId};

/// What can happen to entries; here those of the quarantine.
#[derive(Debug, Clone)]
enum Step {
    Add(u8, Concern, u128),
    Record(u8),
    Read(Vec<(u8, Concern)>),
    Remove(u8),
}

fn concern() -> impl Strategy<Value = Concern> {
    prop::sample::select(Concern::ALL)
}

fn step() -> impl Strategy<Value = Step> {
    let version = 0..3_u8;
    prop_oneof![
        (version.clone(), concern(), any::<u128>()).prop_map(|(v, c, id)| Step::Add(v, c, id)),
        version.clone().prop_map(Step::Record),
        prop::collection::vec((version.clone(), concern()), 0..3).prop_map(Step::Read),
        version.prop_map(Step::Remove),
    ]
}

fn finding(concern: Concern, id: u128) -> Finding {
    Finding {
        script_name: "a.py".to_owned(),
        concern,
        execution_id: ExecutionId::from_uuid(Uuid::from_u128(id)),
        at: DateTime::UNIX_EPOCH,
    }
}

/// What is to be known: a finding, and whether it is recorded.
type Model = BTreeMap<u8, (Finding, bool)>;

fn apply(step: Step, notices: &Notices<Finding>, model: &mut Model) {
    match step {
        Step::Add(v, concern, id) => {
            let found = finding(concern, id);
            let known = model.get(&v).map(|(known, _)| known.concern);
            let is_new =
                known.is_none() || concern == Concern::Crashed && known != Some(Concern::Crashed);
            assert_eq!(notices.add(&v.to_string(), &found), is_new);
            if is_new {
                model.insert(v, (found, false));
            }
        }
        Step::Record(v) => {
            // A commit that is answered late is about a finding that may have been outweighed.
            notices.recorded(&v.to_string(), &finding(Concern::Abandoned, 7));
            if let Some((found, is_recorded)) = model.get_mut(&v) {
                notices.recorded(&v.to_string(), found);
                *is_recorded = true;
            }
        }
        Step::Read(records) => {
            let records: BTreeMap<_, _> = records.into_iter().collect();
            let read = |(v, c): (&u8, &Concern)| (v.to_string().into(), finding(*c, 9));
            notices.replace(&records.iter().map(read).collect());
            model.retain(|_, (_, is_recorded)| !*is_recorded);
            for (v, c) in records {
                model.entry(v).or_insert((finding(c, 9), true));
            }
        }
        Step::Remove(v) => {
            // A release that is answered late may be about a finding that has been outweighed.
            notices.remove(&v.to_string(), &finding(Concern::Abandoned, 7));
            if let Some((found, _)) = model.remove(&v) {
                notices.remove(&v.to_string(), &found);
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_unrecorded_is_lost_and_no_crash_is_played_down(steps in prop::collection::vec(step(), 0..40)) {
        let (notices, mut model) = (Notices::default(), Model::new());
        for step in steps {
            apply(step, &notices, &mut model);
            let mut unrecorded = notices.unrecorded();
            unrecorded.sort_by(|a, b| a.0.cmp(&b.0));
            let expected: Vec<(Arc<str>, Finding)> = model
                .iter()
                .filter(|(_, (_, is_recorded))| !is_recorded)
                .map(|(v, (found, _))| (v.to_string().into(), found.clone()))
                .collect();
            prop_assert_eq!(unrecorded, expected);
            for v in 0..3 {
                let known = model.get(&v).map(|(found, _)| found.concern);
                prop_assert_eq!(notices.entries().get(v.to_string().as_str()).map(|entry| entry.notice.concern), known);
            }
        }
    }
}
