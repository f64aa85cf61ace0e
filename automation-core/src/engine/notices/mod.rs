//! What every run has to know before it starts, and every instance of: entries that are read without a lock and kept
//! as records. Knows nothing of what they mean: the quarantine's findings and people's stops are two kinds of them.

mod records;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex as Turn, OnceCell};

use super::Engine;
use crate::storage::{RecordKind, StorageError};

/// What an entry says.
pub(super) trait Notice:
    Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The kind of its records.
    const KIND: RecordKind;

    /// Returns whether it takes the place of another one under the same key, instead of staying behind it.
    fn outweighs(&self, other: &Self) -> bool;
}

#[derive(Debug, Clone)]
pub(super) struct Entry<N> {
    pub(super) notice: N,
    /// Whether the storage has it as it is here.
    is_recorded: bool,
}

/// Entries by their keys.
pub(super) type Entries<N> = BTreeMap<Arc<str>, Entry<N>>;

/// The entries of one kind, as this instance knows them.
#[derive(Debug)]
pub(super) struct Notices<N> {
    entries: ArcSwap<Entries<N>>,
    loaded: OnceCell<()>,
    /// Held while entries and records are brought together, so that a deletion is not undone by an older reading.
    turn: Turn<()>,
}

impl<N> Default for Notices<N> {
    fn default() -> Self {
        Self {
            entries: ArcSwap::default(),
            loaded: OnceCell::new(),
            turn: Turn::new(()),
        }
    }
}

impl<N: Notice> Notices<N> {
    /// Returns the entries of this moment.
    pub(super) fn entries(&self) -> Guard<Arc<Entries<N>>> {
        self.entries.load()
    }

    /// Returns every entry, by key.
    pub(super) fn all(&self) -> Vec<(Arc<str>, N)> {
        self.collect(|_| true)
    }

    /// Returns the entries that the storage does not have yet.
    pub(super) fn unrecorded(&self) -> Vec<(Arc<str>, N)> {
        self.collect(|entry| !entry.is_recorded)
    }

    fn collect(&self, wanted: impl Fn(&Entry<N>) -> bool) -> Vec<(Arc<str>, N)> {
        let entries = self.entries();
        let wanted = entries.iter().filter(|(_, entry)| wanted(entry));
        wanted
            .map(|(key, entry)| (Arc::clone(key), entry.notice.clone()))
            .collect()
    }

    /// Adds an entry, which holds from now on; returns whether that is new. The one that is there stays unless it is
    /// outweighed.
    pub(super) fn add(&self, key: &str, notice: &N) -> bool {
        let is_known = |entries: &Entries<N>| {
            let known = entries.get(key);
            known.is_some_and(|known| !notice.outweighs(&known.notice))
        };
        let before = self.entries.rcu(|entries| {
            if is_known(entries) {
                return Arc::clone(entries);
            }
            let mut entries = Entries::clone(entries);
            let entry = Entry {
                notice: notice.clone(),
                is_recorded: false,
            };
            entries.insert(key.into(), entry);
            Arc::new(entries)
        });
        !is_known(&before)
    }

    /// Takes over what the storage has; what it does not have yet stays.
    pub(super) fn replace(&self, recorded: &BTreeMap<Arc<str>, N>) {
        self.entries.rcu(|entries| {
            let unrecorded = entries.iter().filter(|(_, entry)| !entry.is_recorded);
            let unrecorded = unrecorded.map(|(key, entry)| (Arc::clone(key), entry.clone()));
            let recorded = recorded.iter().map(|(key, notice)| {
                let entry = Entry {
                    notice: notice.clone(),
                    is_recorded: true,
                };
                (Arc::clone(key), entry)
            });
            recorded.chain(unrecorded).collect::<Entries<N>>()
        });
    }

    /// Notes that the storage has an entry, unless another one took its place meanwhile.
    pub(super) fn recorded(&self, key: &str, notice: &N) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            if let Some(entry) = entries.get_mut(key) {
                entry.is_recorded |= entry.notice == *notice;
            }
            entries
        });
    }

    /// Removes an entry, unless another one took its place meanwhile.
    pub(super) fn remove(&self, key: &str, notice: &N) {
        self.entries.rcu(|entries| {
            let mut entries = Entries::clone(entries);
            if entries.get(key).map(|known| &known.notice) == Some(notice) {
                entries.remove(key);
            }
            entries
        });
    }
}

impl Engine {
    /// Waits until it is known what may not start: before that, nothing does.
    pub(super) async fn notices_loaded(&self) -> Result<(), StorageError> {
        self.quarantine_loaded().await?;
        self.stops_loaded().await
    }

    /// Catches up with other instances, and with what could not be recorded at once.
    pub(super) async fn refresh_notices(&self) -> Result<(), StorageError> {
        let (quarantine, stops) = tokio::join!(self.keep_up_quarantine(), self.keep_up_stops());
        quarantine.and(stops)
    }

    /// Records what is not recorded yet.
    pub(super) async fn record_notices(&self) -> [Result<(), StorageError>; 2] {
        let stops = self.record_stops();
        tokio::join!(self.record_quarantine(), stops).into()
    }
}

#[cfg(test)]
mod tests;
