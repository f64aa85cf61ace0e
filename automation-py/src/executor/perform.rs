//! The life of one run on its worker thread: module, code, exit, traces. Knows nothing of queues and deadlines;
//! that something cut the run short is read from the run itself.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use automation_core::executor::{Ending, ExecutorError, Failure, Outcome};
use automation_core::script::Entry;
use automation_core::{Concern, Problem, Reason};
use pyo3::exceptions::{PyNameError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyFloat, PyFunction, PyInt, PyModule, PyString, PyType};
use serde_json::Value;

use super::cpu_clock::CpuClock;
use super::pool::Pool;
use crate::ffi::{self, FreshContext, Thread};
use crate::module::RunInterrupted;
use crate::run::{self, Context, Glue, Reply, Run, Slot, end_state, leave_process, settle};
use crate::{convert, run::is_forked};

/// How a script ended by itself.
struct Verdict {
    ending: Ending,
    exit_code: Option<i32>,
    returned: Option<Value>,
}

impl Verdict {
    fn failed(reason: Reason, message: impl Into<String>, exit_code: Option<i32>) -> Self {
        Self {
            ending: Ending::Failed(Failure::new(reason, message)),
            exit_code,
            returned: None,
        }
    }

    fn exited(code: i32) -> Self {
        if code == 0 {
            return Self {
                ending: Ending::Completed,
                exit_code: Some(0),
                returned: None,
            };
        }
        Self::failed(Reason::ExitCode, format!("exit code {code}"), Some(code))
    }
}

/// Runs a run. Returns the right to answer with the answer; `None` when the run was abandoned meanwhile.
pub(super) fn perform(
    py: Python<'_>,
    pool: &Pool,
    run: &Arc<Run>,
    clock: &mut CpuClock,
) -> Option<(Reply, Outcome)> {
    let start = clock.start();
    run.account().begin(clock.thread(), start);
    if !run.start() {
        return Some((run.claim()?, run.outcome(Ending::Cancelled)));
    }
    run.purity.enter();
    let bound = run::Bound::to(Arc::clone(run));
    let verdict = execute(py, pool, run);
    if is_forked() {
        ffi::exit_child(verdict.exit_code.unwrap_or(1));
    }
    if run.is_cut() {
        run.wait_for_threads(py);
    }
    let cut = run.end();
    // First, or it would keep the other from being met.
    run::stop_tracing(py);
    run.meet_interruption(py);
    run::leave_folder(py, run);
    run::emit(py, run, run.close_descriptors());
    if cut.is_some() {
        py.detach(|| run::end_children(run, Thread::this()));
        // The first time it may have been cut short itself.
        stop_tracing(py, Glue::get(py));
        let forget = Glue::get(py).function(py, "forget_event_loop");
        let _ = forget.and_then(|forget| ffi::call0(&forget));
    }
    end_state(py, run);
    let concern = settle(py, run);
    // What was made since. Finalisers still belong to the run.
    run.release_objects(py);
    run::collect_children(py, run);
    drop(bound);
    leave_process(py, run);
    // What threads that go on made since.
    run::leave_folder(py, run);
    run.release_objects(py);
    if is_forked() {
        ffi::exit_child(verdict.exit_code.unwrap_or(1));
    }
    let refused = run.account().was_refused();
    if refused {
        pool.soundness.recover(py);
    }
    let reply = run.claim()?;
    let mut outcome = match cut {
        Some(cut) => run.outcome(run.cut_ending(cut)),
        None => match refused_memory(run) {
            Some(outcome) => outcome,
            None => run.outcome(verdict.ending),
        },
    };
    outcome.output.interrupted = cut.is_some() || refused;
    outcome.concern = concern.or_else(|| self::concern(run));
    if !outcome.output.interrupted {
        outcome.exit_code = verdict.exit_code;
        outcome.output.returned = verdict.returned;
    }
    outcome.usage = run.account().usage(clock.stop(start, outcome.duration));
    Some((reply, outcome))
}

/// Returns the outcome of a run that was refused memory, whatever surfaced in the script. `None` when it was not.
pub(super) fn refused_memory(run: &Run) -> Option<Outcome> {
    run.account().was_refused().then(|| {
        let mut outcome = run.outcome(Ending::Failed(run.account().memory_failure()));
        outcome.concern = concern(run);
        outcome
    })
}

/// Returns why the script should not run in this process again: before Python 3.13 the interpreter does not survive
/// every refusal of memory.
pub(super) fn concern(run: &Run) -> Option<Concern> {
    (!cfg!(Py_3_13) && run.account().was_refused()).then_some(Concern::MemoryLimit)
}

/// Executes the script and cleans up after it. Whatever is cut short in here still counts as the script.
fn execute(py: Python<'_>, pool: &Pool, run: &Arc<Run>) -> Verdict {
    let context = FreshContext::enter(py);
    let result = match &context {
        Ok(_) => catch_unwind(AssertUnwindSafe(|| run_script(py, &pool.codes, run))),
        Err(error) => Ok(Err(error.clone_ref(py))),
    };
    run::stop_tracing(py);
    run.account().allow_ending();
    let verdict = match (run.exit(), result) {
        (Some(_), Ok(_)) => None,
        (None, Ok(Ok(returned))) => Some(completed(returned)),
        (None, Ok(Err(error))) => Some(judge(py, run, error)),
        // What refused memory did to our own code on the script's thread is part of the refusal.
        (_, Err(_)) if run.account().was_refused() => Some(Verdict::exited(1)),
        (_, Err(panic)) => resume_unwind(panic),
    };
    let _charged = run.account().charge();
    clean_up(py, run);
    // Another thread of the run, or what was cleaned up, may have ended it meanwhile.
    match (run.exit(), verdict) {
        (None, Some(verdict)) => verdict,
        (code, _) => Verdict::exited(code.unwrap_or(1)),
    }
}

/// Executes the module, and calls its `run` where it is entered that way.
fn run_script<'py>(
    py: Python<'py>,
    codes: &super::code::CodeCache,
    run: &Run,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let script = &run.invocation.script;
    let code = codes.get(py, script)?;
    let builtins = Glue::get(py).builtins.bind(py);
    #[cfg(not(Py_3_12))]
    run.purity.begin_sample(py, &code.was_sampled);
    if code.imports_from_folder {
        run.folder.set_used();
    }
    let namespace = run.create_module(py, code.file.bind(py), builtins)?;
    {
        let _charged = run.account().charge();
        ffi::eval(code.code.bind(py), &namespace)?;
    }
    match script.metadata().entry {
        Entry::Plain => Ok(None),
        Entry::Run => call_run(py, run, &namespace).map(Some),
    }
}

fn call_run<'py>(
    py: Python<'py>,
    run: &Run,
    namespace: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let function = namespace.get_item(intern!(py, "run"))?.ok_or_else(|| {
        PyNameError::new_err("the script has entry = \"run\" and defines no function run")
    })?;
    let parameters = convert::object_to_python(py, &run.invocation.parameters)?;
    let arguments = (Context::shared(py)?,).into_pyobject(py)?;
    let _charged = run.account().charge();
    ffi::call(&function, &arguments, Some(&parameters))
}

fn completed(returned: Option<Bound<'_, PyAny>>) -> Verdict {
    let mut verdict = Verdict::exited(0);
    match returned.map(|value| convert::to_json(&value)).transpose() {
        Ok(returned) => verdict.returned = returned,
        Err(problem) => {
            return Verdict::failed(Reason::InvalidOutput, in_result(&problem), None);
        }
    }
    verdict
}

fn in_result(problem: &Problem) -> String {
    let Problem { pointer, detail } = problem;
    match pointer.as_str() {
        "" => format!("the result: {detail}"),
        _ => format!("the result at {pointer}: {detail}"),
    }
}

/// Decides what an exception that nobody caught means, and shows it as the interpreter would.
fn judge(py: Python<'_>, run: &Run, error: PyErr) -> Verdict {
    if error.is_instance_of::<PySystemExit>(py) {
        return Verdict::exited(exit_code(py, &error));
    }
    let script = &run.invocation.script;
    let path = script.path().to_string_lossy();
    let error = error.into_value(py);
    let report = Glue::get(py).report.bind(py);
    let show = || {
        let arguments = (&error, &path, &**script.source()).into_pyobject(py)?;
        let _charged = run.account().charge();
        ffi::call(report, &arguments, None)
    };
    // A deadline may strike while the traceback is written: once more then, since it says where the script was.
    let sentence = match show() {
        Err(interrupted) if interrupted.is_instance_of::<RunInterrupted>(py) => {
            run::stop_tracing(py);
            show()
        }
        other => other,
    };
    let message = sentence
        .and_then(|sentence| sentence.extract::<String>())
        .unwrap_or_else(|_| "an exception that can't be shown".to_owned());
    Verdict::failed(Reason::Exception, message, Some(1))
}

/// Returns the code of a `SystemExit` as the operating system would show it: `None` is 0, an integer its last
/// 8 bits, anything else is written to standard error and is 1.
fn exit_code(py: Python<'_>, error: &PyErr) -> i32 {
    let Ok(code) = error.value(py).getattr(intern!(py, "code")) else {
        return 1;
    };
    if code.is_none() {
        return 0;
    }
    if code.is_instance_of::<pyo3::types::PyInt>() {
        return code
            .extract::<i64>()
            .map_or(255, |code| (code & 0xff) as i32);
    }
    let written = code.str().and_then(|text| {
        py.import(intern!(py, "sys"))?
            .getattr(intern!(py, "stderr"))?
            .call_method1(intern!(py, "write"), (format!("{text}\n"),))
    });
    drop(written);
    1
}

/// Ends what the script left: threads that are no daemons, exit functions, buffers of its own, its namespace. Errors have nobody to go to.
fn clean_up(py: Python<'_>, run: &Run) {
    let glue = Glue::get(py);
    if !run.threads().is_empty() && run.exit().is_none() {
        let _ = ffi::call0(glue.join_threads.bind(py));
    }
    if run.exit().is_none() && run.objects.lock().exit_functions.is_some() {
        let _ = ffi::call0(glue.call_exit_functions.bind(py));
    }
    for slot in [Slot::Stdout, Slot::Stderr] {
        if let Some(stream) = run.slot(py, slot) {
            let flush = stream.bind(py).getattr(intern!(py, "flush"));
            let _ = flush.and_then(|flush| ffi::call0(&flush));
        }
    }
    stop_tracing(py, glue);
    // Functions of threads that go on still need their globals.
    if run.threads().is_empty()
        && let Some(module) = run.module(py)
    {
        empty(&module.dict());
    }
    run::empty_folder(py, run, empty);
    if run.purity.has_state() {
        let _ = glue
            .function(py, "collect_young")
            .and_then(|collect| ffi::call0(&collect));
    }
    run.release_objects(py);
}

/// Empties a namespace. What ends with it may still print: in this run, and with the functions and classes that its
/// finalisers use.
fn empty(namespace: &Bound<'_, PyDict>) {
    let finalised = defines_finaliser(namespace);
    release_values(namespace);
    if finalised {
        collect_garbage(namespace.py());
    }
    clear(namespace);
    if finalised {
        collect_garbage(namespace.py());
    }
}

/// Returns whether a class of the namespace has a `__del__`: only then is it worth looking for garbage, which takes
/// milliseconds.
fn defines_finaliser(namespace: &Bound<'_, PyDict>) -> bool {
    let py = namespace.py();
    namespace.values().iter().any(|value| {
        value.is_instance_of::<PyType>()
            && value
                .getattr(intern!(py, "__dict__"))
                .and_then(|attributes| attributes.contains(intern!(py, "__del__")))
                .unwrap_or(false)
    })
}

/// Releases what functions and classes are used on, last made first.
fn release_values(namespace: &Bound<'_, PyDict>) {
    for name in namespace.keys().iter().rev() {
        if let Ok(Some(value)) = namespace.get_item(&name)
            && !is_used_by_finalisers(&value)
        {
            let _ = namespace.del_item(&name);
        }
    }
}

fn is_used_by_finalisers(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyModule>()
        || value.is_instance_of::<PyFunction>()
        || value.is_instance_of::<PyCFunction>()
        || value.is_instance_of::<PyType>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
}

fn collect_garbage(py: Python<'_>) {
    let collect = py
        .import(intern!(py, "gc"))
        .and_then(|gc| gc.getattr(intern!(py, "collect")));
    let _ = collect.and_then(|collect| ffi::call0(&collect));
}

/// Drops all that is left in a namespace.
fn clear(namespace: &Bound<'_, PyDict>) {
    if cfg!(Py_3_10) {
        namespace.clear();
        return;
    }
    // Python 3.9 looks the builtins up in a function's globals, and not in the function.
    let builtins = intern!(namespace.py(), "__builtins__");
    let kept = namespace.copy();
    namespace.clear();
    let _ = namespace.set_item(
        builtins,
        Glue::get(namespace.py()).builtins.bind(namespace.py()),
    );
    drop(kept);
}

/// Takes back `sys.settrace` and `sys.setprofile`, which belong to the thread and would meet the next run.
fn stop_tracing(py: Python<'_>, glue: &Glue) {
    for (get, set) in [
        (&glue.gettrace, "settrace"),
        (&glue.getprofile, "setprofile"),
    ] {
        let is_set = get.bind(py).call0().is_ok_and(|hook| !hook.is_none());
        if is_set && let Ok(sys) = py.import(intern!(py, "sys")) {
            let _ = sys.call_method1(set, (py.None(),));
        }
    }
}

/// Returns the error of a run during which we panicked.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> ExecutorError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned());
    ExecutorError::Internal { detail: text }
}
