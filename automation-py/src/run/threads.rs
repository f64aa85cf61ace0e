//! Threads that scripts start belong to the run that started them.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{
    Bound as BoundToRun, Glue, IS_LIBRARYS, Run, current, end_children, is_forked, stop_tracing,
    with_current,
};
use crate::ffi::stack::DeepStack;
use crate::ffi::{self, Thread, ThreadIdent, blocking};
use crate::interpreter::STACK_BYTES;
use crate::module::RunInterrupted;

/// The deepest recursion that a script may ask for: 4/5 of what a stack of [`STACK_BYTES`] bears of the greediest
/// recursion known, by `list.sort`, which takes 2.5 KB a level up to 3.11 and 5.3 KB on 3.13. Python 3.12 counts
/// recursion in C apart, with a limit that nobody can change.
pub(super) const RECURSION_MAX: i32 = if cfg!(Py_3_13) {
    5_000
} else if cfg!(Py_3_12) {
    i32::MAX
} else {
    10_000
};

/// Time after which a thread that does not begin holds interruptions off no longer.
const BEGIN_MAX: Duration = Duration::from_millis(20);

/// The threads that a script started.
#[derive(Debug, Default)]
pub(super) struct Threads {
    living: Vec<Thread>,
    /// Those that were asked for and have not begun.
    starting: usize,
    last_start: Option<Instant>,
}

/// The threads of a run, where they are changed and waited for.
#[derive(Debug, Default)]
pub(super) struct ThreadList {
    threads: Mutex<Threads>,
    ended: Condvar,
    /// The same in a copy of the process that the run forked: the other may have been held when it was made, by a
    /// thread that is not there, and its threads are not there either.
    of_copy: OnceLock<Box<Self>>,
}

impl ThreadList {
    /// Returns the one of this process.
    fn here(&self) -> &Self {
        if is_forked() {
            return self.of_copy.get_or_init(Box::default);
        }
        self
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.here().threads.lock()
    }

    fn ended(&self) -> &Condvar {
        &self.here().ended
    }
}

impl Run {
    /// Returns the living threads that the script started.
    pub(crate) fn threads(&self) -> Vec<Thread> {
        self.threads.lock().living.clone()
    }

    /// Returns whether a thread of the script is about to begin. An interruption would hit it instead of its starter
    /// (CPython before 3.12), who would wait for it without end.
    pub(crate) fn is_starting_thread(&self) -> bool {
        let threads = self.threads.lock();
        threads.starting > 0
            && threads
                .last_start
                .is_some_and(|at| at.elapsed() < BEGIN_MAX)
    }

    /// Interrupts what the threads that the script started wait for in the kernel, `but` some. None of them can end
    /// meanwhile.
    pub(crate) fn interrupt_threads(&self, but: &HashSet<ThreadIdent>) {
        for thread in &self.threads.lock().living {
            if !but.contains(&thread.ident) {
                blocking::interrupt(thread.number);
            }
        }
    }

    /// Waits until the threads that the script started have ended, with the GIL released: they belong to a run that was
    /// cut short, and are interrupted until then.
    pub(crate) fn wait_for_threads(&self, py: Python<'_>) {
        py.detach(|| {
            let mut threads = self.threads.lock();
            while !threads.living.is_empty() {
                self.threads.ended().wait(&mut threads);
            }
        });
    }

    fn thread_asked_for(&self) {
        let mut threads = self.threads.lock();
        threads.starting += 1;
        threads.last_start = Some(Instant::now());
    }

    fn thread_not_asked_for(&self) {
        self.threads.lock().starting -= 1;
    }
}

/// Stands for one of the functions that start a thread.
#[pyclass(frozen, module = "automation._automation")]
pub(super) struct ThreadStart {
    original: Py<PyAny>,
}

#[pymethods]
impl ThreadStart {
    #[new]
    fn new(original: Py<PyAny>) -> Self {
        Self { original }
    }

    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let original = self.original.bind(py);
        let (Some(run), Ok(function)) = (current(), arguments.get_item(0)) else {
            return original.call(arguments, keywords);
        };
        if !function.is_callable() {
            return original.call(arguments, keywords);
        }
        if run.is_cut() {
            return Err(RunInterrupted::raised());
        }
        let carried = Carried {
            run: Arc::clone(&run),
            is_librarys: is_librarys(&function),
            function: function.unbind(),
        };
        let mut carried_arguments = vec![Py::new(py, carried)?.into_bound(py).into_any()];
        carried_arguments.extend(arguments.iter().skip(1));
        let _stack = DeepStack::of_new_threads(py, STACK_BYTES);
        let carried_arguments = PyTuple::new(py, carried_arguments)?;
        run.thread_asked_for();
        let started = original.call(carried_arguments, keywords);
        if started.is_err() {
            run.thread_not_asked_for();
        }
        started
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.original.bind(py).getattr(name)
    }
}

/// Returns whether a thread executes a library's code, which keeps it when the run is over.
fn is_librarys(function: &Bound<'_, PyAny>) -> bool {
    let py = function.py();
    let answer = Glue::get(py)
        .function(py, "is_library_thread")
        .and_then(|is_library_thread| is_library_thread.call1((function,))?.is_truthy());
    answer.unwrap_or(false)
}

/// Raises the interruption in the calling thread.
#[pyfunction]
pub(super) fn interrupt_this_thread(py: Python<'_>) {
    ffi::raise_in_thread(ffi::thread_ident(), &py.get_type::<RunInterrupted>());
}

/// Time for which a wait for threads lasts at most: no interruption strikes in it.
const WAIT: Duration = Duration::from_millis(20);

/// Returns the living threads of this thread's run.
#[pyfunction]
pub(super) fn run_threads() -> Vec<ThreadIdent> {
    let threads = with_current(|run| run.map(|run| run.threads()).unwrap_or_default());
    threads.into_iter().map(|thread| thread.ident).collect()
}

/// Waits until one of `count` threads of this thread's run ends, or a moment has passed.
#[pyfunction]
pub(super) fn wait_for_threads(py: Python<'_>, count: usize) {
    let Some(run) = current() else { return };
    py.detach(|| {
        let mut threads = run.threads.lock();
        if threads.living.len() >= count {
            run.threads.ended().wait_for(&mut threads, WAIT);
        }
    });
}

/// A thread's function together with the run that it belongs to.
#[pyclass(frozen, module = "automation._automation")]
struct Carried {
    run: Arc<Run>,
    /// Whether a library has started it for itself.
    is_librarys: bool,
    function: Py<PyAny>,
}

#[pymethods]
impl Carried {
    #[pyo3(signature = (*arguments, **keywords))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) {
        IS_LIBRARYS.set(self.is_librarys);
        let process = std::process::id();
        // A library's thread may be there for ever, and is no part of what the script does.
        let _active = (!self.is_librarys).then(|| self.run.purity.active());
        let _bound = BoundToRun::to(Arc::clone(&self.run));
        let _counted = self.run.account().thread_started();
        let _registered = Registered::new(py, &self.run);
        let function = self.function.bind(py);
        // Whoever started this thread waits without end for one that fails before it has begun.
        let _ = ffi::call0(Glue::get(py).begin_thread.bind(py));
        let result = {
            let _charged = self.run.account().charge();
            ffi::call(function, arguments, keywords)
        };
        // Reported here, while the thread still belongs to its run.
        if let Err(error) = result
            && !error.is_instance_of::<PySystemExit>(py)
        {
            error.write_unraisable(py, Some(function));
        }
        if is_forked() && std::process::id() != process {
            // A copy of the process that has come out of its function has nothing to come back to.
            ffi::exit_child(0);
        }
    }
}

/// Keeps the calling thread in its run's list, so that a deadline reaches it too.
struct Registered<'py> {
    py: Python<'py>,
    run: Arc<Run>,
}

impl<'py> Registered<'py> {
    fn new(py: Python<'py>, run: &Arc<Run>) -> Self {
        blocking::unblock();
        let mut threads = run.threads.lock();
        threads.starting = threads.starting.saturating_sub(1);
        threads.living.push(Thread::this());
        drop(threads);
        Self {
            py,
            run: Arc::clone(run),
        }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let this = Thread::this();
        // The kernel counts them to another thread from then on.
        self.run.keep_children(this);
        let end = |threads: &mut Threads| threads.living.retain(|thread| *thread != this);
        end(&mut self.run.threads.lock());
        self.run.threads.ended().notify_all();
        stop_tracing(self.py);
        self.run.meet_interruption(self.py);
        // A run that goes on may have begun to trace again.
        stop_tracing(self.py);
        if self.run.is_cut() {
            self.py.detach(|| end_children(&self.run, this));
        }
    }
}
