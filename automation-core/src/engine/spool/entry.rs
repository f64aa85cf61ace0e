//! What a record says: how a run ended, cut where it is longer than a place.

use serde::{Deserialize, Serialize};

use super::format::RECORD_BYTES_MAX;
use crate::execution::{Completion, ExecutionId, TenantId};
use crate::status::Status;
use crate::storage::{Change, Transition};

/// Bytes that are tried to be kept of each stream, largest first.
const STREAM_BYTES: [usize; 5] = [8 * 1024, 4 * 1024, 2 * 1024, 512, 0];

/// The end of a run that the storage did not take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) tenant_id: TenantId,
    pub(super) id: ExecutionId,
    pub(super) epoch: i64,
    pub(super) from: Status,
    pub(super) completion: Completion,
}

impl Entry {
    /// Takes the end of a run that was dispatched. One that never ran needs no entry: that is what its row says too.
    pub(super) fn of(transition: &Transition) -> Option<Self> {
        let Change::End(completion) = &transition.change else {
            return None;
        };
        (transition.from == Status::Running).then(|| Self {
            tenant_id: transition.tenant_id.clone(),
            id: transition.id,
            epoch: transition.epoch,
            from: transition.from,
            completion: completion.clone(),
        })
    }

    /// Returns the write that records it.
    pub(super) fn into_transition(self) -> Transition {
        Transition {
            tenant_id: self.tenant_id,
            id: self.id,
            epoch: self.epoch,
            from: self.from,
            change: Change::End(self.completion),
        }
    }

    /// Returns the bytes of the record; what does not fit is cut, and says so.
    pub(super) fn encode(self) -> Vec<u8> {
        let whole = bytes(&self);
        if whole.len() <= RECORD_BYTES_MAX {
            return whole;
        }
        let with_result = STREAM_BYTES.map(|kept| (kept, true));
        let without = STREAM_BYTES.map(|kept| (kept, false));
        let mut shorter = whole;
        for (kept, result) in with_result.into_iter().chain(without) {
            shorter = bytes(&self.cut(kept, result));
            if shorter.len() <= RECORD_BYTES_MAX {
                break;
            }
        }
        shorter
    }

    fn cut(&self, kept: usize, result: bool) -> Self {
        let mut entry = self.clone();
        let end = &mut entry.completion;
        end.truncated = true;
        end.output = middle_cut(&end.output, kept);
        end.stderr = middle_cut(&end.stderr, kept);
        if !result && let Some(value) = end.parsed_output.take() {
            let length = value.to_string().len();
            end.stderr += &format!("\n[... a result of {length} bytes omitted ...]\n");
        }
        entry
    }

    /// Reads a record; `None` where another version of the program wrote it.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        serde_json::from_slice(record).ok()
    }
}

fn bytes(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(entry).expect("texts, numbers and JSON values can be written as JSON")
}

/// Keeps so many bytes of the beginning and the end together, and says in between how many are missing.
fn middle_cut(text: &str, kept: usize) -> String {
    if text.len() <= kept {
        return text.to_owned();
    }
    let head = text.floor_char_boundary(kept / 2);
    let tail = text.ceil_char_boundary(text.len() - kept / 2);
    let missing = tail - head;
    format!(
        "{}\n[... {missing} bytes omitted: the storage was away ...]\n{}",
        &text[..head],
        &text[tail..]
    )
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::{Entry, RECORD_BYTES_MAX};
    use crate::execution::{Completion, ExecutionId, Reason, TenantId};
    use crate::limits::ERROR_BYTES_MAX;
    use crate::status::Status;
    use crate::storage::Change;

    fn entry(
        output: String,
        stderr: String,
        error: Option<String>,
        result: Option<Value>,
    ) -> Entry {
        let at = DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        let mut completion = Completion::new(Status::Failed, Some(Reason::Exception), at);
        (completion.output, completion.stderr) = (output, stderr);
        (completion.error, completion.parsed_output) = (error, result);
        completion.duration_us = Some(17);
        completion.exit_code = Some(-9);
        Entry {
            tenant_id: TenantId::new("acme"),
            id: ExecutionId::from_uuid(Uuid::now_v7()),
            epoch: 3,
            from: Status::Running,
            completion,
        }
    }

    #[test]
    fn what_is_cut_says_so_and_the_result_is_the_last_to_go() {
        let (long, result) = ("é".repeat(500_000), json!({"ok": "r".repeat(9_000)}));
        let cut = entry(long.clone(), long.clone(), None, Some(result.clone())).encode();
        let cut = Entry::decode(&cut).unwrap().completion;
        assert!(cut.truncated && cut.output.contains("bytes omitted: the storage was away"));
        assert!(cut.output.starts_with('é') && cut.output.ends_with('é'));
        assert_eq!(cut.parsed_output, Some(result));
        let huge = json!({"ok": "r".repeat(200_000)});
        let cut = entry(long, String::new(), None, Some(huge)).encode();
        let cut = Entry::decode(&cut).unwrap().completion;
        assert_eq!(cut.parsed_output, None);
        assert!(
            cut.stderr.contains("a result of 200009 bytes omitted"),
            "{}",
            cut.stderr
        );
    }

    #[test]
    fn only_the_end_of_what_ran_is_an_entry() {
        let ran = entry(String::new(), String::new(), None, None);
        let mut transition = ran.clone().into_transition();
        assert_eq!(Entry::of(&transition), Some(ran));
        transition.from = Status::Starting;
        assert_eq!(Entry::of(&transition), None);
        let Change::End(_) = transition.change else {
            panic!("an end")
        };
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The worst text: each character takes six bytes of JSON.
        #[test]
        fn every_end_fits_and_keeps_its_status(
            output in 0..60_000_usize, stderr in 0..60_000_usize, error in 0..=ERROR_BYTES_MAX,
            result in 0..60_000_usize, character in prop::sample::select(vec!["\u{1}", "x", "\"", "é", "🦀"]),
        ) {
            let text = |bytes: usize| character.repeat(bytes / character.len());
            let whole = entry(text(output), text(stderr), Some(text(error)), Some(json!(text(result))));
            let record = whole.clone().encode();
            prop_assert!(record.len() <= RECORD_BYTES_MAX, "{}", record.len());
            let kept = Entry::decode(&record).unwrap();
            if !kept.completion.truncated {
                prop_assert_eq!(&kept, &whole);
            }
            prop_assert_eq!(kept.completion.status, Status::Failed);
            prop_assert_eq!(kept.completion.error, whole.completion.error);
            prop_assert_eq!((kept.id, kept.epoch), (whole.id, whole.epoch));
        }

        #[test]
        fn arbitrary_bytes_never_panic(record in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Entry::decode(&record), None);
        }
    }
}
