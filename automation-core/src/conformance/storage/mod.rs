//! What every [`Storage`] promises: one function a promise, one named test a promise and backend.
//!
//! A backend states what it is in a [`Fixture`], and [`storage_conformance!`](crate::storage_conformance) makes
//! the tests. Each gets a fixture of its own, so an empty storage. Knows no backend.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a promise that is not kept is a panic: that is what these functions are for"
)]

mod atomicity;
mod claims;
mod events;
mod histories;
mod life;
mod lists;
mod prune;
mod records;
mod samples;
mod stats;
mod tenants;
mod writes;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::atomicity::*;
pub use self::claims::*;
pub use self::events::*;
pub use self::histories::*;
pub use self::life::*;
pub use self::lists::*;
pub use self::prune::*;
pub use self::records::*;
pub use self::stats::*;
pub use self::tenants::*;
pub use self::writes::*;
use crate::storage::{Storage, StorageCapabilities};

/// A place for one storage: at first empty, gone when dropped.
#[async_trait]
pub trait Fixture: Debug + Send + Sync {
    /// Opens the storage of this place. After a close, a durable backend opens the same data again.
    async fn open(&self) -> Arc<dyn Storage>;

    /// Returns what the backend is to be capable of, so that no test is skipped by mistake.
    fn expected_capabilities(&self) -> StorageCapabilities;
}

/// Makes one test a promise for a backend, in a module `$name`. `$fixture` is evaluated once a test.
///
/// The calling crate needs tokio with the features `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! storage_conformance {
    ($name:ident, $fixture:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the fixture may be named by its path")]
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn capabilities_are_the_expected() {
                $crate::conformance::storage::capabilities_are_the_expected(&$fixture).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn reopen_preserves() {
                $crate::conformance::storage::reopen_preserves(&$fixture).await;
            }

            $crate::storage_conformance! { @tests $fixture;
                an_empty_call_answers_nothing
                atomic_call_all_or_none
                writes_of_a_call_see_each_other
                calls_do_not_harm_each_other
                dropped_commit_leaves_valid_state
                claim_takes_due_rows_in_order
                claim_takes_only_due_rows
                claim_fences_the_holder_before
                claim_takes_no_more_than_asked
                concurrent_claims_never_share_a_row
                a_wait_releases_and_fences
                only_what_starts_can_wait
                renew_prolongs_own_open_leases
                events_keep_order_and_number
                an_event_number_is_taken_once
                append_to_missing_is_missing
                concurrent_appends_lose_nothing
                event_pages_visit_each_once
                histories_equal_those_in_memory
                clone_shares_state
                readers_see_what_was_committed
                debug_hides_rows
                after_close_is_closed
                close_answers_every_call
                list_newest_first_ties_by_id
                filters_compose
                half_open_window
                pages_visit_each_once_despite_inserts
                page_limit_boundaries
                a_page_is_bounded_by_its_output
                foreign_cursor_is_invalid
                empty_answers
                a_list_can_leave_output_out
                pruning_keeps_the_statistics_exact
                pruning_takes_what_fits_and_nothing_else
                pruning_takes_what_belongs_to_a_row
                pruning_keeps_what_open_executions_name
                pruning_goes_on_from_call_to_call
                pruning_is_taken_back_with_its_call
                records_grow_by_revision
                put_of_another_revision_is_refused
                delete_needs_the_revision
                concurrent_put_has_one_winner
                records_of_a_kind_by_key
                record_pages_visit_each_once
                stats_count_each_outcome
                test_and_rollback_are_not_counted
                stats_by_day_and_script
                stats_since_any_day_count_each_run_once
                recent_are_the_newest_finished
                stats_equal_model
                tenants_are_invisible_to_each_other
                tenants_do_not_write_to_each_other
                roundtrip_every_field
                json_numbers_come_back_exactly
                times_are_kept_to_the_microsecond
                numbers_are_held_to_what_json_readers_agree_on
                get_missing_is_not_found
                insert_duplicate_is_rejected_and_keeps_original
                insert_with_taken_idempotency_key_is_rejected
                an_idempotency_key_has_one_winner
                insert_only_initial_status
                transition_table
                a_dispatch_records_its_holder
                wrong_epoch_or_status_changes_nothing
                transition_of_missing_is_missing
                terminal_never_changes
                concurrent_transition_has_one_winner
            }
        }
    };
    (@tests $fixture:expr; $($promise:ident)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = $fixture;
                let storage = $crate::conformance::storage::Fixture::open(&fixture).await;
                $crate::conformance::storage::$promise(&storage).await;
            }
        )+
    };
}

#[cfg(test)]
mod tests {
    /// A promise that no macro names would never be tested.
    #[test]
    fn every_promise_is_tested() {
        let sources = [
            include_str!("atomicity.rs"),
            include_str!("claims.rs"),
            include_str!("events.rs"),
            include_str!("histories.rs"),
            include_str!("life.rs"),
            include_str!("lists.rs"),
            include_str!("prune.rs"),
            include_str!("records.rs"),
            include_str!("stats.rs"),
            include_str!("tenants.rs"),
            include_str!("writes.rs"),
        ];
        let named: Vec<_> = include_str!("mod.rs").lines().map(str::trim).collect();
        let mut promises = 0;
        for line in sources.into_iter().flat_map(str::lines) {
            let Some(promise) = line.strip_prefix("pub async fn ") else {
                continue;
            };
            let (name, arguments) = promise.split_once('(').unwrap();
            promises += 1;
            let called = format!("$crate::conformance::storage::{name}(&$fixture).await;");
            assert!(
                named.contains(&name) || named.contains(&called.as_str()),
                "{name}({arguments}"
            );
        }
        assert!(promises > 40, "{promises} promises were found");
    }
}
