//! The programs that a run's threads started, as the kernel lists them. Needs no GIL, but for [`collect_children`].

use std::cell::Cell;
use std::fs;
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use super::{Glue, Run, is_forked};
use crate::ffi::{Thread, blocking};

/// Processes of one run that are looked at, at most.
const TREE_MAX: usize = 4096;
/// How often a process that was stopped is looked at until it stands still.
const STOP_LOOKS: usize = 20;
/// How often the children of a thread that ends are looked for.
const END_LOOKS: usize = 20;

/// A process, told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Child {
    process: i32,
    began_ticks: u64,
}

impl Child {
    fn of(process: i32) -> Option<Self> {
        started_ticks(process).map(|began_ticks| Self {
            process,
            began_ticks,
        })
    }

    /// Whether it is there, be it that it has ended and nobody has reaped it.
    fn is_there(&self) -> bool {
        Self::of(self.process) == Some(*self)
    }
}

thread_local! {
    /// Whether runs without threads have left children on this thread.
    static HAS_CHILDREN: Cell<bool> = const { Cell::new(false) };
}

impl Run {
    /// Keeps in mind what a thread has started that ends now: the kernel takes its children for those of another
    /// thread then, which is not the run's.
    pub(super) fn keep_children(&self, thread: Thread) {
        if !is_forked() && self.account().has_started_children() {
            let children = self.children(thread).into_iter().filter_map(Child::of);
            self.left_children.lock().extend(children);
        }
    }

    /// Returns what is there of the children of threads that have ended.
    pub(crate) fn left_children(&self) -> Vec<i32> {
        let mut left = self.left_children.lock();
        left.retain(Child::is_there);
        left.iter().map(|child| child.process).collect()
    }

    /// Returns what a thread of this run has started since the run began and nobody has reaped.
    pub(crate) fn children(&self, thread: Thread) -> Vec<i32> {
        let mut children = children_of("self", thread.number);
        if !children.is_empty() {
            let begin = self.begin_ticks();
            children.retain(|child| started_ticks(*child).is_some_and(|at| at >= begin));
        }
        children
    }

    /// Returns when it began in the kernel's ticks. What is older was left by an earlier run.
    fn begin_ticks(&self) -> u64 {
        let elapsed = self.started_at().map_or(Duration::ZERO, |at| at.elapsed());
        let ticks = u64::try_from(elapsed.as_millis() / 10).unwrap_or(u64::MAX);
        blocking::ticks_since_boot().saturating_sub(ticks + 1)
    }
}

/// Kills and reaps what is left of the children of the calling thread, which ends or goes on to another run, and of
/// threads that have ended.
pub(crate) fn end_children(run: &Run, this: Thread) {
    for _ in 0..END_LOOKS {
        let left = run.left_children();
        let mut children = run.children(this);
        children.extend(&left);
        if children.is_empty() {
            return;
        }
        Stopped::trees(children).kill();
        blocking::reap_children();
        left.into_iter().for_each(blocking::reap_child);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reaps what has ended of the children that a run has started and not waited for, as the end of its process would.
/// What goes on is reaped after a later run of this thread. Called on the run's thread with the GIL held.
pub(crate) fn collect_children(py: Python<'_>, run: &Run) {
    if run.account().has_started_children() && run.threads().is_empty() {
        // They count as ended for the libraries that still know them.
        let collect = Glue::get(py).function(py, "collect_children");
        if let Err(error) = collect.and_then(|collect| collect.call0()) {
            tracing::debug!(%error, "a library does not look after the children of a run");
        }
        run.left_children()
            .into_iter()
            .for_each(blocking::reap_child);
        HAS_CHILDREN.set(true);
    }
    if HAS_CHILDREN.get() {
        HAS_CHILDREN.set(blocking::reap_children());
    }
}

/// Processes that were stopped in order to be killed.
#[derive(Debug)]
pub(crate) struct Stopped {
    processes: Vec<i32>,
    /// When, in the kernel's ticks.
    at: u64,
}

impl Stopped {
    /// Stops processes and all below them, top down so that none escapes by forking.
    pub(crate) fn trees(roots: Vec<i32>) -> Self {
        let mut processes = roots;
        let mut next = 0;
        while next < processes.len() && processes.len() < TREE_MAX {
            let process = processes[next];
            blocking::signal_process(process, libc::SIGSTOP);
            wait_until_stopped(process);
            processes.extend(all_children_of(process));
            next += 1;
        }
        let at = match processes[..] {
            [] => 0,
            _ => blocking::ticks_since_boot(),
        };
        Self { processes, at }
    }

    /// Kills them. One that is gone may have left its number to a later process, which is let be.
    pub(crate) fn kill(&self) {
        for process in &self.processes {
            if started_ticks(*process).is_some_and(|began| began <= self.at) {
                blocking::signal_process(*process, libc::SIGKILL);
            }
        }
    }
}

fn wait_until_stopped(process: i32) {
    for _ in 0..STOP_LOOKS {
        let state = stat(process).and_then(|fields| fields.chars().next());
        if !matches!(state, Some('R' | 'S')) {
            return;
        }
        thread::yield_now();
    }
}

/// Returns the children of one thread.
fn children_of(process: &str, thread: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Returns the children of all threads of a process.
fn all_children_of(process: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let threads = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
    threads
        .flat_map(|thread| children_of(&process.to_string(), thread))
        .collect()
}

/// Returns what the kernel says of a process, from its state on.
fn stat(process: i32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything, parentheses among it.
    Some(line.rsplit_once(") ")?.1.to_owned())
}

/// Returns when a process began. `None` when it is gone.
fn started_ticks(process: i32) -> Option<u64> {
    // Field 22 of the whole line, and the state is field 3.
    stat(process)?.split(' ').nth(19)?.parse().ok()
}
