//! The ends of runs that the storage could not take, on the disk until it can: which places are taken, and by whom.
//!
//! `format` says how a record lies in the file, `file` writes it there, `entry` says what it tells, `replay` hands what
//! nobody looks after to the storage. Room for every run that may be dispatched is made beforehand, since the disk that
//! keeps the storage from working may be this one.

mod entry;
mod file;
mod format;
mod replay;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use self::entry::Entry;
use self::file::PlaceFile;
pub(super) use self::replay::replay;
use crate::error::BuildError;
use crate::execution::ExecutionId;
use crate::storage::Transition;

/// The spool of an engine.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    places: Mutex<Places>,
}

#[derive(Debug)]
struct Places {
    /// `None` once closed.
    file: Option<Arc<PlaceFile>>,
    free: Vec<u32>,
    kept: HashMap<ExecutionId, Kept>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    place: u32,
    /// The task of the run still tries to record its end; what it tries is longer than what is kept here.
    has_task: bool,
}

/// That the end of a run is on the disk. Dropping it leaves the end to [`replay`].
#[derive(Debug)]
#[must_use]
pub(super) struct Note {
    spool: Arc<Spool>,
    id: ExecutionId,
}

impl Spool {
    /// Opens the file, or makes it with so many places. Blocks.
    pub(super) fn open(path: &Path, places: usize) -> Result<Self, BuildError> {
        let refused = |detail: String| BuildError::Spool { detail };
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        let file = PlaceFile::open(path, places).map_err(refused)?;
        let (mut free, mut kept) = (Vec::new(), HashMap::new());
        for place in (0..file.places()).rev() {
            let named = |error| refused(format!("{}: {error}", path.display()));
            match file
                .read(place)
                .map_err(named)?
                .as_deref()
                .map(Entry::decode)
            {
                None => free.push(place),
                Some(Some(entry)) => {
                    let has_task = false;
                    kept.insert(entry.id, Kept { place, has_task });
                }
                // Neither lost nor used: the version that wrote it can still read it.
                Some(None) => {
                    tracing::error!(file = %path.display(), place, "another version of the program left the end of a run");
                }
            }
        }
        Ok(Self {
            path: path.to_owned(),
            places: Mutex::new(Places {
                file: Some(Arc::new(file)),
                free,
                kept,
            }),
        })
    }

    /// Writes the end of a run to the disk; `None`, with a line in the log, where that is not possible. Blocks.
    fn keep(self: &Arc<Self>, entry: Entry) -> Option<Note> {
        let id = entry.id;
        let (file, place) = self.take(id)?;
        match file.write(place, &entry.encode()) {
            Ok(()) => Some(Note {
                spool: Arc::clone(self),
                id,
            }),
            Err(error) => {
                let file = self.path.display();
                tracing::error!(execution = %id, %file, %error, "the end of a run can't be spooled");
                self.settle(id);
                None
            }
        }
    }

    fn take(&self, id: ExecutionId) -> Option<(Arc<PlaceFile>, u32)> {
        let mut places = self.places.lock();
        let file = Arc::clone(places.file.as_ref()?);
        let Some(place) = places.free.pop() else {
            tracing::error!(execution = %id, "the end of a run can't be spooled: every place is taken");
            return None;
        };
        let has_task = true;
        places.kept.insert(id, Kept { place, has_task });
        Some((file, place))
    }

    /// Forgets the end of a run: the storage has it.
    fn settle(&self, id: ExecutionId) {
        let mut places = self.places.lock();
        let Some(Kept { place, .. }) = places.kept.remove(&id) else {
            return;
        };
        if let Some(Err(error)) = places.file.as_ref().map(|file| file.clear(place)) {
            tracing::warn!(execution = %id, %error, "a recorded end stays in the spool");
        }
        places.free.push(place);
    }

    fn leave(&self, id: ExecutionId) {
        if let Some(kept) = self.places.lock().kept.get_mut(&id) {
            kept.has_task = false;
        }
    }

    /// Returns whether the end of a run is here.
    pub(super) fn holds(&self, id: ExecutionId) -> bool {
        self.places.lock().kept.contains_key(&id)
    }

    /// Returns how many ends are here.
    pub(super) fn len(&self) -> usize {
        self.places.lock().kept.len()
    }

    /// Returns the ends that no task looks after.
    fn left(&self) -> Vec<Entry> {
        let places = self.places.lock();
        let Some(file) = &places.file else {
            return Vec::new();
        };
        let left = places.kept.values().filter(|kept| !kept.has_task);
        left.filter_map(|kept| file.read(kept.place).ok().flatten())
            .filter_map(|record| Entry::decode(&record))
            .collect()
    }

    /// Gives the file back; what is in it is for the next start.
    pub(super) fn close(&self) {
        self.places.lock().file = None;
    }
}

impl Note {
    /// Writes the end of a run to the disk, if it is one to be kept.
    pub(super) async fn of(spool: &Arc<Spool>, transition: &Transition) -> Option<Self> {
        let entry = Entry::of(transition)?;
        let spool = Arc::clone(spool);
        let kept = tokio::task::spawn_blocking(move || spool.keep(entry)).await;
        kept.ok().flatten()
    }

    /// Forgets the end: the storage has it.
    pub(super) fn settle(self) {
        self.spool.settle(self.id);
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.spool.leave(self.id);
    }
}
