//! The places in lists: what a [`Cursor`] holds, and that no other list understands it. Knows no backend.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::prune::Stretch;
use super::{RecordKind, StorageError};
use crate::execution::{Execution, ExecutionId, TenantId};
use crate::request::Cursor;

/// The place of an execution in a list: when it was accepted, and its id.
pub(super) type Place = (DateTime<Utc>, ExecutionId);

/// Returns the place of an execution.
pub(super) const fn place(execution: &Execution) -> Place {
    (execution.started_at, execution.id)
}

/// Returns the cursor of a place in a list of executions.
pub(super) fn of_place((at, id): Place) -> Cursor {
    Cursor::new(format!(
        "x{}.{}",
        at.timestamp_micros(),
        id.as_uuid().simple()
    ))
}

/// Returns the place that a cursor holds.
pub(super) fn to_place(cursor: &Cursor) -> Result<Place, StorageError> {
    let parse = || {
        let (us, id) = cursor.as_str().strip_prefix('x')?.split_once('.')?;
        let at = DateTime::from_timestamp_micros(us.parse().ok()?)?;
        Some((at, ExecutionId::from_uuid(Uuid::try_parse(id).ok()?)))
    };
    exact(cursor, parse(), |place| of_place(*place))
}

/// Returns the cursor of an event in the list of its execution.
pub(super) fn of_event(execution_id: ExecutionId, seq: u32) -> Cursor {
    Cursor::new(format!("v{seq}.{}", execution_id.as_uuid().simple()))
}

/// Returns the number of the event that a cursor of this execution's list holds.
pub(super) fn to_event(cursor: &Cursor, execution_id: ExecutionId) -> Result<u32, StorageError> {
    let parse = || {
        let (seq, _) = cursor.as_str().strip_prefix('v')?.split_once('.')?;
        seq.parse().ok()
    };
    exact(cursor, parse(), |seq| of_event(execution_id, *seq))
}

/// Returns the cursor of a record in the list of its kind.
pub(super) fn of_record(kind: RecordKind, key: &str) -> Cursor {
    Cursor::new(format!("r{kind}.{key}"))
}

/// Returns the key of the record that a cursor of this kind's list holds.
pub(super) fn to_record(cursor: &Cursor, kind: RecordKind) -> Result<String, StorageError> {
    let parse = || {
        let (word, key) = cursor.as_str().strip_prefix('r')?.split_once('.')?;
        (word == kind.as_str()).then(|| key.to_owned())
    };
    exact(cursor, parse(), |key| of_record(kind, key))
}

/// Returns the cursor of a place where pruning goes on.
pub(super) fn of_stretch(stretch: &Stretch) -> Cursor {
    let place = stretch.after.map(of_place);
    let place = place.as_ref().map_or("", Cursor::as_str);
    Cursor::new(format!("p{place}/{}", stretch.tenant))
}

/// Returns the place that a cursor of pruning holds.
pub(super) fn to_stretch(cursor: &Cursor) -> Result<Stretch, StorageError> {
    let parse = || {
        let (place, tenant) = cursor.as_str().strip_prefix('p')?.split_once('/')?;
        let place = (!place.is_empty()).then(|| to_place(&Cursor::new(place)));
        Some(Stretch {
            tenant: TenantId::new(tenant),
            after: place.transpose().ok()?,
        })
    };
    exact(cursor, parse(), of_stretch)
}

/// Cuts a list that was read one row too far; returns where the next page begins.
pub(super) fn cut<T>(
    rows: &mut Vec<T>,
    rows_max: usize,
    cursor: impl Fn(&T) -> Cursor,
) -> Option<Cursor> {
    let more = rows.len() > rows_max;
    rows.truncate(rows_max);
    more.then(|| rows.last().map(cursor)).flatten()
}

/// Accepts only the very text that we would write ourselves.
fn exact<T>(
    cursor: &Cursor,
    parsed: Option<T>,
    write: impl Fn(&T) -> Cursor,
) -> Result<T, StorageError> {
    parsed
        .filter(|parsed| write(parsed) == *cursor)
        .ok_or_else(|| invalid(cursor))
}

/// Says that a cursor is not one of this list.
pub(super) fn invalid(cursor: &Cursor) -> StorageError {
    StorageError::InvalidCursor {
        cursor: cursor.as_str().chars().take(CURSOR_CHARS_SHOWN).collect(),
    }
}

/// A cursor comes from outside and may have any length; those of executions and events have at most 54 characters.
const CURSOR_CHARS_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Stretch, of_event, of_place, of_record, of_stretch, to_event, to_place, to_record,
        to_stretch,
    };
    use crate::execution::{ExecutionId, TenantId};
    use crate::request::Cursor;
    use crate::storage::RecordKind;
    use chrono::DateTime;
    use uuid::Uuid;

    proptest! {
        #[test]
        fn places_round_trip(us in -62_167_219_200_000_000_i64..253_402_300_800_000_000, id: u128) {
            let place = (
                DateTime::from_timestamp_micros(us).unwrap(),
                ExecutionId::from_uuid(Uuid::from_u128(id)),
            );
            prop_assert_eq!(to_place(&of_place(place)).unwrap(), place);
            prop_assert!(to_event(&of_place(place), place.1).is_err());
        }

        #[test]
        fn event_numbers_round_trip_for_their_execution_only(seq: u32, id: u128) {
            let own = ExecutionId::from_uuid(Uuid::from_u128(id));
            let other = ExecutionId::from_uuid(Uuid::from_u128(!id));
            let cursor = of_event(own, seq);
            prop_assert_eq!(to_event(&cursor, own).unwrap(), seq);
            prop_assert!(to_event(&cursor, other).is_err());
            prop_assert!(to_place(&cursor).is_err());
        }

        #[test]
        fn record_keys_round_trip_for_their_kind_only(key: String) {
            let cursor = of_record(RecordKind::Quarantine, &key);
            prop_assert_eq!(to_record(&cursor, RecordKind::Quarantine).unwrap(), key);
            prop_assert!(to_record(&cursor, RecordKind::ScriptVersion).is_err());
            prop_assert!(to_place(&cursor).is_err());
        }

        #[test]
        fn stretches_round_trip(tenant: String, us in proptest::option::of(0_i64..1 << 50), id: u128) {
            let at = us.map(|us| DateTime::from_timestamp_micros(us).unwrap());
            let after = at.map(|at| (at, ExecutionId::from_uuid(Uuid::from_u128(id))));
            let stretch = Stretch { tenant: TenantId::new(tenant), after };
            let cursor = of_stretch(&stretch);
            prop_assert_eq!(to_stretch(&cursor).unwrap(), stretch);
            prop_assert!(to_place(&cursor).is_err());
        }

        #[test]
        fn other_texts_are_refused(text in "[xvp]?[-+0-9.a-f]{0,40}") {
            prop_assert!(to_stretch(&Cursor::new(text.clone())).is_err());
            prop_assert!(to_place(&Cursor::new(text.clone())).is_err());
            prop_assert!(to_record(&Cursor::new(text), RecordKind::Quarantine).is_err());
        }
    }
}
