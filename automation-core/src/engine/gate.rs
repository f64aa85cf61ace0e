//! How many runs are dispatched and how many wait; the rest is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    places_max: usize,
    queued: Arc<AtomicUsize>,
    queue_max: usize,
}

/// Whether a run may be dispatched at once.
#[derive(Debug)]
pub(super) enum Place {
    /// It may.
    Free(OwnedSemaphorePermit),
    /// It has to wait.
    Queued(Waiter),
}

/// A place in the queue; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    places: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
}

impl Waiter {
    /// Waits, first come first served, until the run may be dispatched; `None` when the gate was closed.
    pub(super) async fn permit(self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    pub(super) fn new(places_max: usize, queue_max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
            queued: Arc::default(),
            queue_max,
        }
    }

    pub(super) fn enter(&self) -> Result<Place, Error> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place::Free(permit));
        }
        if self.places.is_closed() {
            return Err(Error::Closed);
        }
        let queue = |queued| (queued < self.queue_max).then_some(queued + 1);
        match self
            .queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, queue)
        {
            Ok(_) => Ok(Place::Queued(Waiter {
                places: Arc::clone(&self.places),
                queued: Arc::clone(&self.queued),
            })),
            Err(queued) => Err(Error::Overloaded {
                running: self.places_max,
                queued,
            }),
        }
    }

    /// Returns how many runs are dispatched and how many wait.
    pub(super) fn load(&self) -> (usize, usize) {
        (
            self.places_max - self.places.available_permits(),
            self.queued.load(Ordering::Acquire),
        )
    }

    /// Lets nobody in any more, those who wait among them.
    pub(super) fn close(&self) {
        self.places.close();
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, Place};
    use crate::error::Error;

    #[tokio::test]
    async fn refuses_beyond_places_and_queue_and_frees_both() {
        let gate = Gate::new(1, 1);
        let Place::Free(first) = gate.enter().unwrap() else {
            panic!("a place is free")
        };
        let Place::Queued(second) = gate.enter().unwrap() else {
            panic!("no place is free")
        };
        assert_eq!(gate.load(), (1, 1));
        assert!(matches!(
            gate.enter(),
            Err(Error::Overloaded {
                running: 1,
                queued: 1
            })
        ));
        drop(first);
        let permit = second.permit().await.unwrap();
        assert_eq!(gate.load(), (1, 0));
        drop(permit);
        assert_eq!(gate.load(), (0, 0));
        gate.close();
        assert!(matches!(gate.enter(), Err(Error::Closed)));
    }
}
