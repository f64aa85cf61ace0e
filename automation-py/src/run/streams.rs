//! Which stream `sys.stdout` and its like are on a thread: the run's, what its script has put in its place, or the
//! host's own.

use std::os::fd::RawFd;
use std::sync::{Arc, OnceLock};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::host::{host_value, set_host_value};
use super::output::{Output, OutputBytes, write_text};
use super::{Run, Slot, current, with_current};

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Stream {
    pub(super) const ALL: [Self; 3] = [Self::Stdin, Self::Stdout, Self::Stderr];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    pub(super) const fn slot(self) -> Slot {
        match self {
            Self::Stdin => Slot::Stdin,
            Self::Stdout => Slot::Stdout,
            Self::Stderr => Slot::Stderr,
        }
    }
}

/// Returns what `sys.stdout` and its like are on this thread.
pub(super) fn visible_stream(py: Python<'_>, stream: Stream) -> PyResult<Bound<'_, PyAny>> {
    let Some(run) = current() else {
        return Ok(host_value(py, stream.slot()));
    };
    match run.slot(py, stream.slot()) {
        Some(object) => Ok(object.into_bound(py)),
        None => run_stream(py, &run, stream),
    }
}

/// Returns a run's own stream, whatever the script has put in its place.
pub(super) fn run_stream<'py>(
    py: Python<'py>,
    run: &Arc<Run>,
    stream: Stream,
) -> PyResult<Bound<'py, PyAny>> {
    if stream != Stream::Stdin {
        return Ok(Output::shared(py, stream)?.clone().into_any());
    }
    let stdin = empty_input(py, run.descriptor(stream)?)?;
    run.set_slot(Slot::Stdin, stdin.clone().unbind());
    Ok(stdin)
}

/// Makes a stream that has a number, for children and `select`, and does not close it.
fn empty_input(py: Python<'_>, number: RawFd) -> PyResult<Bound<'_, PyAny>> {
    let io = py.import(intern!(py, "io"))?;
    let raw = io.call_method1(intern!(py, "FileIO"), (number, "rb", false))?;
    raw.setattr(intern!(py, "name"), "<stdin>")?;
    let bytes = io.call_method1(intern!(py, "BufferedReader"), (raw,))?;
    io.call_method1(intern!(py, "TextIOWrapper"), (bytes, intern!(py, "utf-8")))
}

/// What is in `sys.__dict__`, where `print`, `input` and C code look: it stands for what `sys.stdout` is on the
/// calling thread at that moment.
#[pyclass(frozen, weakref, module = "automation._automation")]
pub(super) struct Redirect {
    pub(super) stream: Stream,
}

impl Redirect {
    /// Returns whether the text was taken by the thread's run itself.
    fn write_to_run(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let overridden =
            with_current(|run| run.is_none_or(|run| run.objects.lock().is_set(self.stream.slot())));
        if overridden {
            return Ok(None);
        }
        write_text(py, self.stream, text)
    }
}

#[pymethods]
impl Redirect {
    fn write(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        if let Some(written) = self.write_to_run(py, text)? {
            return Ok(written.into_pyobject(py)?.into_any().unbind());
        }
        let target = visible_stream(py, self.stream)?;
        if target.is_none() {
            return Ok(py.None());
        }
        Ok(target.call_method1(intern!(py, "write"), (text,))?.unbind())
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let target = visible_stream(py, self.stream)?;
        if !target.is_none() && !target.is_instance_of::<Output>() {
            target.call_method0(intern!(py, "flush"))?;
        }
        Ok(())
    }

    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        visible_stream(py, self.stream)?.getattr(name)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(visible_stream(py, self.stream)?.try_iter()?.into_any())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(visible_stream(py, self.stream)?.repr()?.to_string())
    }
}

/// Puts the streams into `sys.__dict__` and makes them count as what they stand for.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    if INSTALLED.set(()).is_err() {
        return Ok(());
    }
    let sys = py.import("sys")?;
    for stream in Stream::ALL {
        set_host_value(stream.slot(), sys.getattr(stream.name())?.unbind());
        sys.setattr(stream.name(), Py::new(py, Redirect { stream })?)?;
    }
    let io = py.import("io")?;
    let text = io.getattr("TextIOBase")?;
    text.call_method1("register", (py.get_type::<Output>(),))?;
    text.call_method1("register", (py.get_type::<Redirect>(),))?;
    io.getattr("BufferedIOBase")?
        .call_method1("register", (py.get_type::<OutputBytes>(),))?;
    Ok(())
}
