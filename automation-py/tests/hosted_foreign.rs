//! Where the host has a package of its own that is named like ours.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers fail like a test"
)]

#[path = "executor/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the embedded case")]
mod support;

use automation_core::Executor as _;
use automation_py::PythonExecutor as Tested;
use pyo3::prelude::*;

use self::support::Case;

fn executor() -> Tested {
    let builder = Tested::builder();
    builder
        .grace(std::time::Duration::from_millis(300))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_hosts_own_package_stays_and_health_says_so() {
    Python::initialize();
    Python::attach(|py| {
        let source = cr"
import sys, types
package = sys.modules['automation'] = types.ModuleType('automation')
package.owner = 'host'
";
        py.run(source, None, None).unwrap();
    });
    let executor = executor();
    let warning = executor.health().await.details["warning"].clone();
    assert_eq!(
        warning,
        "scripts have no automation.ctx: another package automation was imported before"
    );
    let source = "import automation\nprint(automation.owner, hasattr(automation, 'ctx'))\n";
    let outcome = Case::new(source).run(&executor).await;
    assert_eq!(outcome.output.stdout.text, "host False\n", "{outcome:?}");
}
