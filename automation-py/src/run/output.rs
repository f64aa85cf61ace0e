//! What scripts write to: the text streams behind `sys.stdout` and `sys.stderr`, and the byte streams under them.

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::host::host_value;
use super::streams::Stream;
use super::{current, emit, free_of_charge, is_forked, with_current};

/// Writes text to the thread's run; `None` when it has none. Lone surrogates are written as escapes, so that
/// `print` never fails on what a file name or a broken input holds.
pub(super) fn write_text(
    py: Python<'_>,
    stream: Stream,
    text: &Bound<'_, PyAny>,
) -> PyResult<Option<usize>> {
    let Ok(text) = text.cast::<PyString>() else {
        return Err(PyTypeError::new_err(format!(
            "write() argument must be str, not {}",
            text.get_type().name()?
        )));
    };
    let written = free_of_charge(py, || match text.to_str() {
        Ok(text) => Ok(write_bytes(py, stream, text.as_bytes())),
        Err(_) => {
            let encode = intern!(py, "encode");
            let bytes = text.call_method1(encode, ("utf-8", "backslashreplace"))?;
            Ok(write_bytes(py, stream, bytes.cast::<PyBytes>()?.as_bytes()))
        }
    })?;
    if written {
        Ok(Some(text.len()?))
    } else {
        Ok(None)
    }
}

/// Writes bytes to the thread's run; `false` when it has none.
fn write_bytes(py: Python<'_>, stream: Stream, bytes: &[u8]) -> bool {
    let events = with_current(|run| match (run, stream) {
        (None, _) => None,
        (Some(run), Stream::Stdout) => Some(run.write_stdout(bytes)),
        (Some(run), _) => Some(run.write_stderr(bytes)),
    });
    match events {
        None => false,
        Some(events) if events.is_empty() => true,
        Some(events) => {
            if let Some(run) = current() {
                emit(py, &run, events);
            }
            true
        }
    }
}

/// A text stream of the run of the calling thread, whichever that is: a handler that one run leaves behind
/// writes to the run that uses it next. On the host's threads it is the host's stream.
#[pyclass(frozen, weakref, module = "automation._automation")]
pub(super) struct Output {
    stream: Stream,
    buffer: Py<OutputBytes>,
}

impl Output {
    fn new(py: Python<'_>, stream: Stream) -> PyResult<Py<Self>> {
        let buffer = Py::new(py, OutputBytes { stream })?;
        let output = Self { stream, buffer };
        Py::new(py, output)
    }

    /// Returns the one object that is `sys.stdout` or `sys.stderr` in every run, and `sys.__stdout__` or
    /// `sys.__stderr__`.
    pub(super) fn shared(py: Python<'_>, stream: Stream) -> PyResult<&Bound<'_, Self>> {
        static SHARED: [PyOnceLock<Py<Output>>; 3] = [const { PyOnceLock::new() }; 3];
        let output = SHARED[stream as usize].get_or_try_init(py, || Self::new(py, stream))?;
        Ok(output.bind(py))
    }
}

#[pymethods]
impl Output {
    fn write(&self, py: Python<'_>, text: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match write_text(py, self.stream, text)? {
            Some(written) => Ok(written.into_pyobject(py)?.into_any().unbind()),
            None => host_call(py, self.stream, "write", (text,)),
        }
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, &line?)?;
        }
        Ok(())
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        if with_current(|run| run.is_none()) {
            host_call(py, self.stream, "flush", ())?;
        }
        Ok(())
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        descriptor(py, self.stream)
    }

    #[staticmethod]
    fn isatty() -> bool {
        false
    }

    #[staticmethod]
    fn readable() -> bool {
        false
    }

    #[staticmethod]
    fn writable() -> bool {
        true
    }

    #[staticmethod]
    fn seekable() -> bool {
        false
    }

    /// Closing one's standard output is closing nothing: a traceback may still have to be written.
    #[staticmethod]
    fn close() {}

    #[staticmethod]
    #[pyo3(signature = (**_settings))]
    fn reconfigure(_settings: Option<&Bound<'_, PyDict>>) {}

    fn detach(&self, py: Python<'_>) -> Py<OutputBytes> {
        self.buffer.clone_ref(py)
    }

    #[getter]
    fn buffer(&self, py: Python<'_>) -> Py<OutputBytes> {
        self.buffer.clone_ref(py)
    }

    #[getter]
    fn name(&self) -> String {
        format!("<{}>", self.stream.name())
    }

    #[classattr]
    fn encoding() -> &'static str {
        "utf-8"
    }

    #[classattr]
    fn errors() -> &'static str {
        "backslashreplace"
    }

    #[classattr]
    fn mode() -> &'static str {
        "w"
    }

    #[classattr]
    fn newlines() -> Option<String> {
        None
    }

    #[classattr]
    fn closed() -> bool {
        false
    }

    #[classattr]
    fn line_buffering() -> bool {
        false
    }

    #[classattr]
    fn write_through() -> bool {
        true
    }

    #[staticmethod]
    #[pyo3(signature = (*_arguments))]
    fn read(py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(unsupported(py, "not readable"))
    }

    #[staticmethod]
    #[pyo3(signature = (*_arguments))]
    fn readline(py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(unsupported(py, "not readable"))
    }

    #[staticmethod]
    #[pyo3(signature = (*_arguments))]
    fn seek(py: Python<'_>, _arguments: &Bound<'_, PyTuple>) -> PyResult<()> {
        Err(unsupported(py, "not seekable"))
    }

    #[staticmethod]
    fn tell(py: Python<'_>) -> PyResult<()> {
        Err(unsupported(py, "not seekable"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_arguments))]
    fn __exit__(&self, _arguments: &Bound<'_, PyTuple>) {}

    fn __repr__(&self) -> String {
        format!("<{} of the run, encoding='utf-8'>", self.stream.name())
    }
}

/// The byte stream under an [`Output`]. Nothing is buffered, so text and bytes keep their order.
#[pyclass(frozen, weakref, module = "automation._automation")]
pub(super) struct OutputBytes {
    stream: Stream,
}

#[pymethods]
impl OutputBytes {
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let bytes = match data.cast::<PyBytes>() {
            Ok(bytes) => bytes.clone(),
            Err(_) => py
                .import(intern!(py, "builtins"))?
                .call_method1(intern!(py, "memoryview"), (data,))?
                .call_method0(intern!(py, "tobytes"))?
                .cast_into::<PyBytes>()?,
        };
        if write_bytes(py, self.stream, bytes.as_bytes()) {
            let written = bytes.as_bytes().len();
            return Ok(written.into_pyobject(py)?.into_any().unbind());
        }
        let host = host_value(py, self.stream.slot());
        let buffer = host.getattr(intern!(py, "buffer"))?;
        Ok(buffer
            .call_method1(intern!(py, "write"), (bytes,))?
            .unbind())
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, &line?)?;
        }
        Ok(())
    }

    #[staticmethod]
    fn flush() {}

    /// See [`Output::close`].
    #[staticmethod]
    fn close() {}

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        descriptor(py, self.stream)
    }

    #[staticmethod]
    fn isatty() -> bool {
        false
    }

    #[staticmethod]
    fn readable() -> bool {
        false
    }

    #[staticmethod]
    fn writable() -> bool {
        true
    }

    #[staticmethod]
    fn seekable() -> bool {
        false
    }

    #[classattr]
    fn closed() -> bool {
        false
    }

    #[classattr]
    fn mode() -> &'static str {
        "wb"
    }

    #[getter]
    fn name(&self) -> String {
        format!("<{}>", self.stream.name())
    }
}

/// Returns the number of the descriptor that what is written to reaches the same place as what is printed.
fn descriptor(py: Python<'_>, stream: Stream) -> PyResult<i32> {
    match current() {
        None => host_call(py, stream, "fileno", ())?.extract(py),
        Some(_) if is_forked() => Ok(stream as i32),
        Some(run) => Ok(run.descriptor(stream)?),
    }
}

/// Calls a method of the host's stream, if it has one.
fn host_call<'py>(
    py: Python<'py>,
    stream: Stream,
    method: &str,
    arguments: impl pyo3::call::PyCallArgs<'py>,
) -> PyResult<Py<PyAny>> {
    let host = host_value(py, stream.slot());
    if host.is_none() {
        return Ok(py.None());
    }
    Ok(host.call_method1(method, arguments)?.unbind())
}

/// Returns an `io.UnsupportedOperation`.
fn unsupported(py: Python<'_>, what: &'static str) -> PyErr {
    let kind = py
        .import(intern!(py, "io"))
        .and_then(|io| io.getattr(intern!(py, "UnsupportedOperation")));
    match kind.and_then(|kind| kind.call1((what,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
