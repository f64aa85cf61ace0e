//! The zygote of an executor: started when it is needed, replaced when it is gone, asked for a child ahead. Knows
//! nothing of runs.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use automation_core::executor::ExecutorError;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::builder::Settings;
use super::zygote::{Child, Refusal, Wires, Zygote};

/// Starts within [`STARTS_WINDOW`] after which no further one is tried: each costs a second of processor time.
const STARTS_MAX: usize = 10;
const STARTS_WINDOW: Duration = Duration::from_secs(60);

/// The zygote of an executor, and the next one when it is gone.
pub(super) struct Zygotes {
    settings: Settings,
    /// Held while one is started, so that nobody starts another meanwhile.
    starting: Mutex<()>,
    state: Mutex<State>,
    /// A child that waits for the next run, and its zygote.
    spare: Mutex<Option<(Weak<Zygote>, Wires)>>,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Zygote>>,
    /// The latest starts.
    starts: Vec<Instant>,
    started: u64,
}

impl State {
    fn alive(&self) -> Option<&Arc<Zygote>> {
        self.current.as_ref().filter(|zygote| !zygote.has_ended())
    }

    fn recent_starts(&self) -> usize {
        let recent = |start: &&Instant| start.elapsed() < STARTS_WINDOW;
        self.starts.iter().filter(recent).count()
    }

    /// Counts a start, unless there were too many.
    fn count_start(&mut self) -> Result<(), ExecutorError> {
        if self.recent_starts() >= STARTS_MAX {
            return Err(ExecutorError::Unavailable {
                detail: format!("the zygote ended {STARTS_MAX} times within a minute"),
            });
        }
        self.starts.retain(|start| start.elapsed() < STARTS_WINDOW);
        self.starts.push(Instant::now());
        Ok(())
    }
}

impl Zygotes {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            starting: Mutex::default(),
            state: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// Returns a child that waits for its order. Starts a zygote when there is none.
    pub(super) fn fork(&self) -> Result<Child, ExecutorError> {
        loop {
            let zygote = self.get()?;
            // What became of one that was asked for long ago says nothing about this run.
            if let Some(spare) = self.take_spare(&zygote)
                && let Ok(child) = spare.child(&zygote)
            {
                return Ok(child);
            }
            match zygote.order().and_then(|wires| wires.child(&zygote)) {
                Ok(child) => return Ok(child),
                Err(Refusal::Gone) => self.replace(&zygote),
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
    }

    /// Asks for a child ahead of the next run, which then need not wait for the fork.
    pub(super) fn prepare(&self) {
        let mut spare = self.spare.lock();
        let zygote = self.state.lock().alive().map(Arc::clone);
        if spare.is_none()
            && let Some(zygote) = zygote
            && let Ok(wires) = zygote.order()
        {
            *spare = Some((Arc::downgrade(&zygote), wires));
        }
    }

    fn take_spare(&self, zygote: &Arc<Zygote>) -> Option<Wires> {
        let (of, wires) = self.spare.lock().take()?;
        std::ptr::eq(of.as_ptr(), Arc::as_ptr(zygote)).then_some(wires)
    }

    fn get(&self) -> Result<Arc<Zygote>, ExecutorError> {
        let _starting = self.starting.lock();
        if let Some(zygote) = self.state.lock().alive() {
            return Ok(Arc::clone(zygote));
        }
        self.state.lock().count_start()?;
        let zygote = Zygote::start(&self.settings)?;
        let mut state = self.state.lock();
        state.started += 1;
        state.current = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    /// Lets a zygote go that does not answer.
    fn replace(&self, zygote: &Arc<Zygote>) {
        let mut state = self.state.lock();
        let is_current = |current: &Arc<Zygote>| Arc::ptr_eq(current, zygote);
        state.current.take_if(|current| is_current(current));
    }

    /// Ends the zygote.
    pub(super) fn close(&self) {
        *self.spare.lock() = None;
        self.state.lock().current = None;
    }

    /// Returns whether a run would get a process, the interpreter's version, and further facts.
    pub(super) fn health(&self) -> (bool, Option<String>, Map<String, Value>) {
        let state = self.state.lock();
        let alive = state.alive().is_some();
        let facts = state.current.as_ref().map(|zygote| &zygote.facts);
        let mut details = facts.map_or_else(Map::new, |facts| facts.fields.clone());
        details.insert("zygote".to_owned(), json!(alive));
        let restarts = state.started.saturating_sub(1);
        details.insert("restarts".to_owned(), json!(restarts));
        let version = facts.map(|facts| format!("Python {}", facts.version));
        (
            alive || state.recent_starts() < STARTS_MAX,
            version,
            details,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::super::builder::ProcessExecutorBuilder;
    use super::super::wire::{self, Inbox, Silence};
    use super::super::zygote::Facts;
    use super::*;

    fn zygotes() -> Zygotes {
        Zygotes::new(ProcessExecutorBuilder::new().settings)
    }

    /// A zygote that is nothing but its socket.
    fn with_socket(socket: OwnedFd) -> Zygote {
        Zygote {
            socket,
            ended: Arc::default(),
            facts: Facts {
                version: String::new(),
                fields: Map::new(),
            },
        }
    }

    #[test]
    fn a_zygote_that_is_replaced_ends_with_its_last_child() {
        let zygotes = zygotes();
        let child = zygotes.fork().unwrap();
        let zygote = Arc::downgrade(&child.zygote);
        zygotes.replace(&child.zygote);
        let said = Inbox::default().wait(&child.wires.warden, Duration::from_millis(300));
        assert_eq!(said, Err(Silence::Late));
        drop(child);
        assert!(zygote.upgrade().is_none());
    }

    #[test]
    fn one_that_ended_ahead_of_its_run_harms_nothing() {
        let zygotes = zygotes();
        let zygote = zygotes.get().unwrap();
        let (error, theirs) = wire::pair().unwrap();
        wire::send(&theirs, &json!({ "error": "no memory" })).unwrap();
        let mut wires = zygote.order().unwrap();
        wires.warden = error;
        *zygotes.spare.lock() = Some((Arc::downgrade(&zygote), wires));
        assert!(Arc::ptr_eq(&zygotes.fork().unwrap().zygote, &zygote));
    }

    #[test]
    fn one_that_is_gone_is_told_from_one_that_does_not_answer() {
        let (ours, theirs) = wire::pair().unwrap();
        let zygote = Arc::new(with_socket(ours));
        let wires = zygote.order().unwrap();
        rustix::io::ioctl_fionbio(&zygote.socket, true).unwrap();
        let full = loop {
            if let Err(refusal) = zygote.order() {
                break refusal;
            }
        };
        assert!(matches!(full, Refusal::Failed(_)), "{full:?}");
        drop(theirs);
        assert!(matches!(zygote.order(), Err(Refusal::Gone)));
        assert!(matches!(wires.child(&zygote), Err(Refusal::Gone)));
    }
}
