//! How many runs are dispatched and how many wait; the rest is refused.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::executor::RunQueue;

/// The gate. Clones share one.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    places_max: usize,
    waiting: RunQueue<oneshot::Sender<Permit>>,
    queue_max: usize,
    closed: bool,
}

/// A place among the dispatched; handed on when it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Gate);

/// Whether a run may be dispatched at once.
#[derive(Debug)]
pub(super) enum Place {
    /// It may.
    Free(Permit),
    /// It has to wait.
    Queued(Waiter),
}

/// A place in the queue; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    gate: Gate,
    permit: oneshot::Receiver<Permit>,
}

impl Waiter {
    /// Waits until it is the run's turn to be dispatched; `None` when the gate was closed.
    pub(super) async fn permit(mut self) -> Option<Permit> {
        (&mut self.permit).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.permit.close();
        let given_up = self
            .gate
            .0
            .lock()
            .waiting
            .remove(oneshot::Sender::is_closed);
        drop(given_up);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        let Some(next) = state.waiting.pop() else {
            state.free += 1;
            return;
        };
        drop(state);
        // Should the next one be gone meanwhile, dropping this hands the place on.
        drop(next.send(Self(self.0.clone())));
    }
}

impl Gate {
    pub(super) fn new(places_max: usize, queue_max: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places_max,
            places_max,
            waiting: RunQueue::new(),
            queue_max,
            closed: false,
        })))
    }

    pub(super) fn enter(&self, actor: Option<&str>, script: &str) -> Result<Place, Error> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.free > 0 {
            state.free -= 1;
            return Ok(Place::Free(Permit(self.clone())));
        }
        if state.waiting.len() >= state.queue_max {
            return Err(Error::Overloaded {
                running: state.places_max,
                queued: state.waiting.len(),
            });
        }
        let (sender, permit) = oneshot::channel();
        state.waiting.push(actor, script, sender);
        let gate = self.clone();
        Ok(Place::Queued(Waiter { gate, permit }))
    }

    /// Waits for a place, however many wait already; `None` when the gate was closed.
    pub(super) async fn turn(&self) -> Option<Permit> {
        let permit = {
            let mut state = self.0.lock();
            if state.closed {
                return None;
            }
            if state.free > 0 {
                state.free -= 1;
                return Some(Permit(self.clone()));
            }
            let (sender, permit) = oneshot::channel();
            state.waiting.push(None, "", sender);
            permit
        };
        let gate = self.clone();
        Waiter { gate, permit }.permit().await
    }

    /// Returns up to `count` of the places that are free now.
    pub(super) fn spare(&self, count: usize) -> Vec<Permit> {
        let mut state = self.0.lock();
        let count = count.min(state.free);
        state.free -= count;
        (0..count).map(|_| Permit(self.clone())).collect()
    }

    /// Returns how many runs are dispatched and how many wait.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.places_max - state.free, state.waiting.len())
    }

    /// Lets nobody in any more, those who wait among them.
    pub(super) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, Permit, Place, Waiter};
    use crate::error::Error;

    fn free(gate: &Gate) -> Permit {
        match gate.enter(None, "x.py").unwrap() {
            Place::Free(permit) => permit,
            Place::Queued(_) => panic!("no place is free"),
        }
    }

    fn queued(gate: &Gate, actor: &str) -> Waiter {
        match gate.enter(Some(actor), "x.py").unwrap() {
            Place::Free(_) => panic!("a place is free"),
            Place::Queued(waiter) => waiter,
        }
    }

    #[tokio::test]
    async fn refuses_beyond_places_and_queue_and_frees_both() {
        let gate = Gate::new(1, 1);
        let first = free(&gate);
        let second = queued(&gate, "a");
        assert_eq!(gate.load(), (1, 1));
        assert!(matches!(
            gate.enter(None, "x.py"),
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
        assert!(matches!(gate.enter(None, "x.py"), Err(Error::Closed)));
    }

    #[tokio::test]
    async fn an_actor_waits_for_one_run_of_another_and_not_for_all_of_them() {
        let gate = Gate::new(1, 10);
        let first = free(&gate);
        let batch = [queued(&gate, "batch"), queued(&gate, "batch")];
        let person = queued(&gate, "person");
        drop(first);
        let [one, two] = batch;
        drop(one.permit().await.unwrap());
        drop(person.permit().await.unwrap());
        drop(two.permit().await.unwrap());
        assert_eq!(gate.load(), (0, 0));
    }

    #[tokio::test]
    async fn a_turn_comes_though_the_queue_is_full_and_takes_spare_places_along() {
        let gate = Gate::new(3, 0);
        let taken = [free(&gate), free(&gate), free(&gate)];
        let mut turn = std::pin::pin!(gate.turn());
        assert!(
            futures_poll(turn.as_mut()).await.is_none(),
            "no place is free"
        );
        drop(taken);
        let turn = turn.await.unwrap();
        let spare = gate.spare(64);
        assert_eq!((spare.len(), gate.load()), (2, (3, 0)));
        drop((turn, spare));
        assert_eq!(gate.load(), (0, 0));
        gate.close();
        assert!(gate.turn().await.is_none());
    }

    /// Looks at a future once.
    async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn a_place_in_the_queue_that_is_given_up_goes_to_the_next() {
        let gate = Gate::new(1, 2);
        let first = free(&gate);
        let (gone, told) = (queued(&gate, "a"), queued(&gate, "b"));
        drop(gone);
        assert_eq!(gate.load(), (1, 1));
        // Told that it is its turn, and gone before it looks.
        drop(first);
        drop(told);
        assert_eq!(gate.load(), (0, 0));
        let _first = free(&gate);
        let waiter = queued(&gate, "c");
        gate.close();
        assert!(waiter.permit().await.is_none());
    }
}
