//! What `run` takes is read from its annotations.

use automation_core::executor::{Inspection, Signature};
use automation_core::{Executor, Script, ScriptRegistry};
use serde_json::{Map, Value, json};

use crate::support::executor;

const HEAD: &str = "# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\nfrom typing import *\n\
                    import typing as t\nfrom typing import Any, Dict, List, Literal, Optional, Union\n\
                    if __name__ == '__main__': run(None)\n";

fn inspect(rest: &str) -> Inspection {
    let script = Script::parse("probe.py", format!("{HEAD}{rest}").as_bytes()).unwrap();
    executor().inspect(&script).unwrap()
}

fn signature(parameters: &str) -> Signature {
    let inspection = inspect(&format!("def run(ctx{parameters}):\n    pass\n"));
    assert_eq!(inspection.diagnostics, [], "{parameters}");
    inspection.signature.unwrap()
}

/// Returns the schema of one argument with this annotation and default.
fn schema(annotation: &str) -> Result<Value, String> {
    let mut signature = signature(&format!(", *, a{annotation}"));
    signature.arguments.remove(0).schema.map(Value::Object)
}

#[test]
fn annotations_become_json_schema() {
    for (annotation, expected) in [
        ("", json!({})),
        (": Any", json!({})),
        (": t.Any = None", json!({ "default": null })),
        (": str", json!({ "type": "string" })),
        (": 'str' = 'x'", json!({ "type": "string", "default": "x" })),
        (": int = -30", json!({ "type": "integer", "default": -30 })),
        (": float = 0.5", json!({ "type": "number", "default": 0.5 })),
        (
            ": bool = True",
            json!({ "type": "boolean", "default": true }),
        ),
        (": list = []", json!({ "type": "array", "default": [] })),
        (
            ": list[str] = ['a']",
            json!({ "type": "array", "items": { "type": "string" }, "default": ["a"] }),
        ),
        (
            ": List[List[int]]",
            json!({ "type": "array", "items": { "type": "array", "items": { "type": "integer" } } }),
        ),
        (": dict", json!({ "type": "object" })),
        (": t.Dict[str, Any]", json!({ "type": "object" })),
        (
            ": dict[str, bool] = {'a': True}",
            json!({ "type": "object", "additionalProperties": { "type": "boolean" }, "default": { "a": true } }),
        ),
        (
            ": Literal['a', 'b'] = 'a'",
            json!({ "type": "string", "enum": ["a", "b"], "default": "a" }),
        ),
        (
            ": t.Literal[1, True, None]",
            json!({ "type": ["integer", "boolean", "null"], "enum": [1, true, null] }),
        ),
        (
            ": Optional[str] = None",
            json!({ "type": ["string", "null"], "default": null }),
        ),
        (
            ": str | None = None",
            json!({ "type": ["string", "null"], "default": null }),
        ),
        (
            ": None | int | str",
            json!({ "type": ["null", "integer", "string"] }),
        ),
        (
            ": Union[int, list[int]]",
            json!({ "type": ["integer", "array"], "items": { "type": "integer" } }),
        ),
        (
            ": Optional[Literal['a']] = None",
            json!({ "type": ["string", "null"], "enum": ["a", null], "default": null }),
        ),
        (": 'Optional[int]'", json!({ "type": ["integer", "null"] })),
    ] {
        assert_eq!(schema(annotation), Ok(expected), "{annotation}");
    }
}

#[test]
fn what_json_does_not_know_says_what_is_expected() {
    for (annotation, begin) in [
        (
            ": datetime",
            "annotation datetime is not known, expected str, int,",
        ),
        (
            ": tuple[int, int]",
            "annotation tuple[int, int] is not known",
        ),
        (": bytes", "annotation bytes is not known"),
        (
            ": 'str or int['",
            "an annotation in quotes that is no annotation",
        ),
        (": dict[int, str]", "the keys of a dict, expected str"),
        (": Literal[1.5]", "a Literal, expected texts"),
        (
            ": list[int] | list[str]",
            "a union whose members can't be told apart",
        ),
        (
            ": str = X",
            "X is no JSON literal, expected a text, a number",
        ),
        (": Any = (1, 2)", "(1, 2) is no JSON literal"),
        (": Any = b'x'", "b'x' is no JSON literal"),
        (": Any = 1 + 1", "1 + 1 is no JSON literal"),
        (": Any = 1e999", "default: NaN or Infinity"),
        (": int = 9007199254740992", "default: integer beyond"),
    ] {
        let problem = schema(annotation).unwrap_err();
        assert!(problem.starts_with(begin), "{annotation}: {problem}");
    }
}

#[test]
fn the_arguments_have_names_places_and_defaults() {
    let signature = signature(", ü, b=1, *, c: str, d: int = 2, **more");
    let arguments: Vec<_> = signature
        .arguments
        .iter()
        .map(|argument| (&*argument.name, argument.column, argument.required))
        .collect();
    assert_eq!(
        arguments,
        [
            ("ü", 14, true),
            ("b", 17, false),
            ("c", 25, true),
            ("d", 33, false)
        ]
    );
    assert!(signature.open);
    assert_eq!((signature.line, signature.column), (9, 1));
}

#[test]
fn a_signature_that_can_not_be_called_is_an_error_with_its_place() {
    for (run, found) in [
        (
            "def run():\n    pass\n",
            "probe.py:9:1: run takes no context, expected `def run(ctx, ...)`",
        ),
        (
            "def run(*, ctx):\n    pass\n",
            "probe.py:9:1: run takes no context",
        ),
        (
            "def run(user: str):\n    pass\n",
            "probe.py:9:9: run takes no context",
        ),
        (
            "async def run(ctx):\n    pass\n",
            "probe.py:9:1: run is `async def`",
        ),
        (
            "def run(ctx, *names):\n    pass\n",
            "probe.py:9:15: argument *names: takes what is given by position",
        ),
        (
            "def run(ctx, ä, ß, /):\n    pass\n",
            "probe.py:9:14: argument ä: is positional only",
        ),
        (
            "class run: pass\n",
            "probe.py: entry is \"run\", expected a function",
        ),
    ] {
        let inspection = inspect(run);
        let all: Vec<_> = inspection
            .diagnostics
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(all[0].starts_with(found), "{run}: {all:?}");
        assert_eq!(inspection.signature, None);
    }
    assert!(inspect("def run(_):\n    pass\n").diagnostics.is_empty());
}

/// The whole way: the schema is that of the registry's script.
#[test]
fn the_registry_takes_the_schema_over() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!(
        "{HEAD}def run(ctx, *, user: str, days: int = 30, mode: Literal['a', 'b'] = 'a'):\n    pass\n"
    );
    std::fs::write(folder.path().join("probe.py"), &source).unwrap();
    let registry = ScriptRegistry::load(folder.path()).unwrap();
    let executor = executor();
    let refresh = || {
        let index = registry.refresh(|script| {
            Ok::<_, automation_core::script::RegistryError>(executor.inspect(script).unwrap())
        });
        index.unwrap()
    };
    let script = std::sync::Arc::clone(refresh().script("probe.py").unwrap());
    assert_eq!(
        Value::Object(script.parameters().types()),
        json!({ "user": "string", "days": "integer", "mode": "string" })
    );
    let given: Map<_, _> = [("user".to_owned(), json!("ana"))].into_iter().collect();
    assert_eq!(
        Value::Object(script.parameters().validate(given).unwrap()),
        json!({ "user": "ana", "days": 30, "mode": "a" })
    );
    assert!(std::sync::Arc::ptr_eq(
        &script,
        refresh().script("probe.py").unwrap()
    ));
    std::fs::write(
        folder.path().join("probe.py"),
        source.replace("days: int = 30", "days: int = '30'"),
    )
    .unwrap();
    let index = refresh();
    assert!(index.script("probe.py").is_none());
    let problem = index.invalid()[0].diagnostics[0].to_string();
    assert_eq!(
        problem,
        "probe.py:9:28: argument days: default does not fit: expected integer, got string \"30\""
    );
}
