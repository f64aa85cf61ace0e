//! Hands the ends that nobody looks after to the storage: those of an earlier process, before its runs are taken for
//! orphans, and those whose task gave up.

use super::Spool;
use super::entry::Entry;
use crate::engine::late;
use crate::storage::{Storage, StorageError, Write, WriteError};

/// Hands over what it can; returns how many ends were recorded.
///
/// # Errors
/// That the storage does not take one; the others are tried all the same, and what is not taken stays.
pub(in crate::engine) async fn replay(
    spool: &Spool,
    storage: &dyn Storage,
) -> Result<usize, StorageError> {
    let (mut recorded, mut away) = (0, Ok(()));
    for entry in spool.left() {
        let id = entry.id;
        match settle(storage, entry).await {
            Ok(()) => {
                spool.settle(id);
                recorded += 1;
            }
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => {
                tracing::error!(execution = %id, %error, "a spooled end is not recorded yet");
                away = Err(error);
            }
        }
    }
    away.map(|()| recorded)
}

/// Records one end, or finds that the row has one.
async fn settle(storage: &dyn Storage, entry: Entry) -> Result<(), StorageError> {
    let transition = entry.into_transition();
    let write = Write::Transition(Box::new(transition.clone()));
    let answer = storage.commit(vec![write]).await.pop();
    let Some(Err(error)) = answer else {
        return Ok(());
    };
    match error {
        WriteError::Storage(error) => Err(error),
        WriteError::Missing { .. } => {
            tracing::error!(
                execution = %transition.id,
                "a spooled end is dropped: this storage has no such run, another one was in use before"
            );
            Ok(())
        }
        _ => late::tell(storage, &transition).await,
    }
}
