//! Where Python is the host's: what its own threads change while a script executes is never taken for the script's
//! doing. A program of its own, since the run must be alone to be looked at.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the embedded case")]
mod support;

use automation_core::executor::Ending;
use automation_py::PythonExecutor as Tested;
use pyo3::prelude::*;

use self::support::Case;

fn executor() -> Tested {
    Tested::builder().workers(1).build().unwrap()
}

const BEFORE: &std::ffi::CStr = cr#"
import atexit, concurrent.futures, json, sys, tempfile, threading, types, urllib.request
import json.decoder
settings = sys.modules['settings_probe'] = types.ModuleType('settings_probe')
settings.DEBUG = False
pool = concurrent.futures.ThreadPoolExecutor(1)
tempfile.tempdir = None
begun, changed = threading.Event(), threading.Event()
settings.begun, settings.changed, settings.pool = begun, changed, pool
class HostsOwn: pass
def hosts_own(): pass
def change():
    begun.wait(10)
    settings.DEBUG = True
    json.host_function, json.HostsOwn, json.host_object = hosts_own, HostsOwn, HostsOwn()
    changed.set()
threading.Thread(target=change).start()
"#;

const SCRIPT: &str = "
import json, settings_probe
def mine(): pass
json.mine, json.dumps = mine, lambda *_: 'patched'
settings_probe.begun.set()
assert settings_probe.changed.wait(10)
print(settings_probe.pool.submit(pow, 2, 3).result())
";

const AFTER: &std::ffi::CStr = cr#"
assert settings.DEBUG is True
assert (json.host_function, json.HostsOwn) == (hosts_own, HostsOwn), json.HostsOwn
assert isinstance(json.host_object, HostsOwn)
assert not hasattr(json, 'mine') and json.dumps(1) == '1'
assert pool.submit(pow, 2, 4).result() == 16
"#;

#[tokio::test]
async fn what_a_host_changes_meanwhile_stays() {
    Python::initialize();
    let namespace = Python::attach(|py| {
        let namespace = py.import("__main__").unwrap().dict();
        py.run(BEFORE, Some(&namespace), None).unwrap();
        namespace.unbind()
    });
    let outcome = Case::new(SCRIPT).run(&executor()).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(outcome.output.stdout.text, "8\n");
    Python::attach(|py| {
        if let Err(error) = py.run(AFTER, Some(namespace.bind(py)), None) {
            error.display(py);
            panic!("the host noticed");
        }
    });
}
