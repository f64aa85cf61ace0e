//! Which audit event is which effect, and on what. Knows nothing of runs.

use std::path::PathBuf;
use std::sync::OnceLock;

use automation_core::Effect;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};

/// The longest target that is told, in bytes.
const TARGET_BYTES_MAX: usize = 512;

/// Where the interpreter's own libraries and installed packages are.
static LIBRARIES: OnceLock<Vec<String>> = OnceLock::new();

/// Learns where the interpreter's own libraries are.
pub(super) fn find_libraries(py: Python<'_>) -> PyResult<()> {
    let sys = py.import("sys")?;
    let mut prefixes = Vec::new();
    for name in ["prefix", "base_prefix", "exec_prefix", "base_exec_prefix"] {
        prefixes.push(format!("{}/", sys.getattr(name)?.extract::<String>()?));
    }
    LIBRARIES.get_or_init(|| prefixes);
    Ok(())
}

/// Returns what an event does to the world, and to what.
pub(super) fn effect(
    family: &str,
    event: &str,
    arguments: &Bound<'_, PyTuple>,
) -> Option<(Effect, String)> {
    let at = |place| arguments.get_item(place).ok();
    match family {
        "os" => file_or_child(event, arguments),
        "open" => Some((Effect::Write, written_file(arguments)?)),
        "shutil" => Some((Effect::Write, text(&at(destination(event)?)?))),
        "sqlite3" if event == "connect" => {
            let file = text(&at(0)?);
            (file != ":memory:").then_some((Effect::Write, file))
        }
        "subprocess" => Some((Effect::Subprocess, command_line(&at(1)?))),
        "socket" => Some((Effect::Network, peer(event, arguments)?)),
        "ctypes" => Some((Effect::Native, foreign_code(event, arguments)?)),
        "import" => Some((Effect::Native, foreign_module(arguments)?)),
        _ => None,
    }
}

fn file_or_child(event: &str, arguments: &Bound<'_, PyTuple>) -> Option<(Effect, String)> {
    let at = |place| arguments.get_item(place).ok();
    match event {
        "remove" | "rmdir" | "mkdir" | "truncate" | "chmod" | "chown" | "utime" | "setxattr"
        | "removexattr" => Some((Effect::Write, text(&at(0)?))),
        "rename" | "link" | "symlink" => {
            let (from, to) = (text(&at(0)?), text(&at(1)?));
            (!is_cache(&to)).then(|| (Effect::Write, cut(format!("{from} -> {to}"))))
        }
        "system" => Some((Effect::Subprocess, text(&at(0)?))),
        "posix_spawn" => Some((Effect::Subprocess, command_line(&at(1)?))),
        "fork" | "forkpty" => Some((Effect::Subprocess, format!("os.{event}"))),
        _ => None,
    }
}

/// Returns the place of what a function of `shutil` changes.
fn destination(event: &str) -> Option<usize> {
    match event {
        "rmtree" | "chown" | "make_archive" => Some(0),
        "move" | "copytree" | "copyfile" | "unpack_archive" => Some(1),
        _ => None,
    }
}

/// Returns the file that an `open` may change.
fn written_file(arguments: &Bound<'_, PyTuple>) -> Option<String> {
    const WRITES: i32 =
        libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND;
    let mode: Option<String> = arguments.get_item(1).ok()?.extract().unwrap_or_default();
    let flags: i32 = arguments.get_item(2).ok()?.extract().unwrap_or_default();
    let writes = mode.is_some_and(|mode| mode.contains(['w', 'a', 'x', '+']));
    if !writes && flags & WRITES == 0 {
        return None;
    }
    let path = text(&arguments.get_item(0).ok()?);
    (path != "/dev/null" && !is_cache(&path)).then_some(path)
}

/// Whether a path is one at which the interpreter keeps compiled modules: importing one is no effect.
fn is_cache(path: &str) -> bool {
    path.rsplit_once('/')
        .is_some_and(|(folder, name)| folder.ends_with("__pycache__") && name.contains(".pyc"))
}

/// Returns whom an event of `socket` reaches.
fn peer(event: &str, arguments: &Bound<'_, PyTuple>) -> Option<String> {
    match event {
        "connect" | "sendto" | "sendmsg" | "bind" => address(&arguments.get_item(1).ok()?),
        "getaddrinfo" => {
            let (host, port) = (arguments.get_item(0).ok()?, arguments.get_item(1).ok()?);
            (!host.is_none()).then(|| host_and_port(&host, &port))
        }
        "gethostbyname" | "gethostbyaddr" => Some(text(&arguments.get_item(0).ok()?)),
        _ => None,
    }
}

fn address(address: &Bound<'_, PyAny>) -> Option<String> {
    match address.cast::<PyTuple>() {
        Ok(parts) if parts.len() >= 2 => Some(host_and_port(
            &parts.get_item(0).ok()?,
            &parts.get_item(1).ok()?,
        )),
        _ => (!address.is_none()).then(|| text(address)),
    }
}

fn host_and_port(host: &Bound<'_, PyAny>, port: &Bound<'_, PyAny>) -> String {
    let host = text(host);
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    if port.is_none() {
        host
    } else {
        cut(format!("{host}:{}", text(port)))
    }
}

/// Returns what of foreign code is loaded, looked up or called without a look.
fn foreign_code(event: &str, arguments: &Bound<'_, PyTuple>) -> Option<String> {
    let at = |place| arguments.get_item(place).ok();
    match event {
        // What `import ctypes` does itself: the library of the process.
        "dlopen" => at(0).filter(|name| !name.is_none()).map(|name| text(&name)),
        "dlsym" => at(1).map(|name| text(&name)),
        "dlsym/handle" => at(1).map(|name| text(&name)),
        "call_function" | "string_at" | "wstring_at" | "PyObj_FromPtr" => {
            Some(format!("ctypes.{event}"))
        }
        _ => None,
    }
}

/// Returns the file of an extension module from a place where none is installed.
fn foreign_module(arguments: &Bound<'_, PyTuple>) -> Option<String> {
    let path: String = arguments.get_item(1).ok()?.extract().ok()?;
    let installed = LIBRARIES
        .get()?
        .iter()
        .any(|library| path.starts_with(library));
    (!installed).then_some(path)
}

/// Returns a program's arguments in one line.
pub(super) fn command_line(arguments: &Bound<'_, PyAny>) -> String {
    let items = if arguments.is_instance_of::<PyList>() || arguments.is_instance_of::<PyTuple>() {
        arguments.try_iter().ok()
    } else {
        None
    };
    let Some(items) = items else {
        return text(arguments);
    };
    let words: Vec<String> = items
        .take(TARGET_BYTES_MAX)
        .filter_map(Result::ok)
        .map(|item| text(&item))
        .collect();
    cut(words.join(" "))
}

/// Returns what is written for a path, a name or a number, without calling a script's code where that can be helped.
fn text(item: &Bound<'_, PyAny>) -> String {
    let whole = if let Ok(text) = item.cast::<PyString>() {
        text.to_string_lossy().into_owned()
    } else if let Ok(bytes) = item.cast::<PyBytes>() {
        String::from_utf8_lossy(bytes.as_bytes()).into_owned()
    } else if let Ok(number) = item.cast_exact::<PyInt>() {
        number.to_string()
    } else if let Ok(path) = item.extract::<PathBuf>() {
        path.to_string_lossy().into_owned()
    } else {
        let kind = item.get_type();
        kind.name()
            .map_or_else(|_| "?".to_owned(), |name| format!("<{name}>"))
    };
    cut(whole)
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TARGET_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::is_cache;

    #[test]
    fn only_compiled_modules_are_caches() {
        for (path, expected) in [
            ("/lib/__pycache__/json.cpython-311.pyc.139645", true),
            ("/lib/__pycache__/json.cpython-311.pyc", true),
            ("/lib/__pycache__/notes.txt", false),
            ("/lib/json.pyc", false),
            ("json.pyc", false),
        ] {
            assert_eq!(is_cache(path), expected, "{path}");
        }
    }
}
