//! What is found out about a script without executing it.

use automation_core::script::{Diagnostic, Severity};
use automation_core::{Executor, Script};

use pyo3::types::PyAnyMethods;

use crate::support::executor;

fn inspect(source: &str) -> Vec<Diagnostic> {
    let script = Script::parse("scripts/probe.py", source.as_bytes()).unwrap();
    executor().inspect(&script).unwrap().diagnostics
}

fn messages(source: &str) -> Vec<String> {
    inspect(source).iter().map(ToString::to_string).collect()
}

/// Code can stand in many places besides the statements of a module.
#[test]
fn nothing_of_a_script_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let act = format!("open({mark:?}, 'w')");
    let source = format!(
        "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\n{act}\nimport no_such_module\n\
         @{act}\nclass Kind(metaclass={act}):\n    {act}\n    field: {act} = {act}\n\
         def run(ctx, *, user: \"{{{act}}}\" = {act}, days: {act} = 1) -> {act}:\n    pass\n\
         raise SystemExit({act})\nif __name__ == '__main__':\n    {act}\n"
    );
    let found = inspect(&source);
    assert!(!found.is_empty(), "the annotations are none");
    assert!(!mark.exists());
}

#[test]
fn a_syntax_error_has_its_place_in_characters() {
    let found = messages("x = 1\nif x = 2:\n    pass\n").concat();
    assert!(found.starts_with("probe.py:2:"), "{found}");
    assert!(found.contains(": SyntaxError: invalid syntax"), "{found}");
    assert_eq!(
        messages("def f():\n  a\n b\n"),
        ["probe.py:3:3: IndentationError: unindent does not match any outer indentation level"]
    );
    let found = messages("if 1:\n\ta = 1\n        b = 2\n").concat();
    assert!(
        found.contains(": TabError: inconsistent use of tabs"),
        "{found}"
    );
    let found = messages("ä = 'öü'; ß = = 1\n").concat();
    assert!(found.starts_with("probe.py:1:15: SyntaxError"), "{found}");
    let found = messages("def f():\n    pass\nreturn 1\n").concat();
    assert_eq!(
        found,
        "probe.py:3:1: SyntaxError: 'return' outside function"
    );
}

#[test]
fn the_embedded_version_has_to_fit() {
    let block = |wanted: &str| format!("# /// script\n# requires-python = \"{wanted}\"\n# ///\n");
    assert_eq!(inspect(&block(">=3.9")), []);
    assert_eq!(inspect(&block("~=3.9, !=3.8.*")), []);
    let found = messages(&block("==3.4.*")).concat();
    assert!(
        found.starts_with("probe.py: requires-python is "),
        "{found}"
    );
    let found = messages(&block(">=3.x")).concat();
    assert!(found.contains("expected a version specifier"), "{found}");
    let found = messages(&block(">=3.99")).concat();
    assert!(
        found.starts_with("probe.py: requires-python is \">=3.99\", and Python 3."),
        "{found}"
    );
}

/// Installs a package of our own, since a bare interpreter has none; returns whether it has a library that knows
/// the grammar of requirements, without which only names are looked at.
fn install_probe(folder: &std::path::Path) -> bool {
    let info = folder.join("probe_dist-1.2.dist-info");
    std::fs::create_dir(&info).unwrap();
    let metadata = "Metadata-Version: 2.1\nName: probe-dist\nVersion: 1.2\n";
    std::fs::write(info.join("METADATA"), metadata).unwrap();
    drop(executor());
    pyo3::Python::attach(|py| {
        let path = py.import("sys").unwrap().getattr("path").unwrap();
        path.call_method1("append", (folder.to_str().unwrap(),))
            .unwrap();
        [
            "packaging.requirements",
            "pip._vendor.packaging.requirements",
        ]
        .into_iter()
        .any(|library| {
            let util = py.import("importlib.util").unwrap();
            let spec = util.call_method1("find_spec", (library,));
            spec.is_ok_and(|spec| !spec.is_none())
        })
    })
}

#[test]
fn packages_that_are_absent_are_named_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let knows_versions = install_probe(folder.path());
    let block = |wanted: &str| format!("# /// script\n# dependencies = [{wanted}]\n# ///\n");
    assert_eq!(inspect(&block("\"probe-dist\", \"Probe_Dist>=1\"")), []);
    let elsewhere = block("\"absent-package; sys_platform == 'win32'\"");
    assert_eq!(inspect(&elsewhere), []);
    let found = messages(&block("\"absent-package>=2\", \"probe-dist>=9999\""));
    assert!(
        found[0].starts_with("probe.py: absent-package>=2 is not installed: /"),
        "{found:?}"
    );
    assert!(
        found[0].ends_with(" -m pip install 'absent-package>=2'"),
        "{found:?}"
    );
    if knows_versions {
        let version = "probe.py: probe-dist>=9999 is needed and 1.2 is installed";
        assert!(found[1].starts_with(version), "{found:?}");
    } else {
        assert_eq!(found.len(), 1, "only names are looked at: {found:?}");
    }
}

#[test]
fn the_entry_has_to_be_there() {
    let block = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\n";
    let guard = "if __name__ == '__main__':\n    run(None)\n";
    let run = "def run(ctx):\n    pass\n";
    assert_eq!(inspect(&format!("{block}{run}{guard}")), []);
    let found = inspect(&format!("{block}{run}"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
    let found = inspect(&format!("{block}{guard}"));
    assert_eq!(found[0].severity, Severity::Error);
    assert!(
        found[0]
            .message
            .contains("expected a function `def run(ctx")
    );
}
