//! Scripts that define `run(ctx, **parameters)`.

use automation_core::Reason;
use automation_core::executor::{Ending, Outcome};
use serde_json::{Value, json};

use crate::support::{Case, executor, failure};

async fn run(body: &str, parameters: Value) -> Outcome {
    let source = format!("# /// script\n# [tool.automation]\n# entry = \"run\"\n# ///\n{body}");
    Case::new(&source).with(parameters).run(&executor()).await
}

#[tokio::test]
async fn the_return_value_is_the_result() {
    let body = "import dataclasses, sys\n@dataclasses.dataclass\nclass Item:\n    name: 'str'\n\
                def run(ctx, user, limit=5):\n    print(__name__, sys.argv[1])\n\
                \x20   return {'user': user, 'limit': limit, 'id': ctx.execution_id is not None, 'seq': (1, 2.5, None)}\n\
                if __name__ == '__main__':\n    print('by hand')\n";
    let outcome = run(body, json!({ "user": "ana" })).await;
    assert_eq!(outcome.ending, Ending::Completed, "{outcome:?}");
    assert_eq!(
        outcome.output.returned,
        Some(json!({ "user": "ana", "limit": 5, "id": true, "seq": [1, 2.5, null] }))
    );
    assert_eq!(
        outcome.output.stdout.text,
        "__automation__ {\"user\":\"ana\"}\n"
    );
    assert_eq!(outcome.exit_code, Some(0));
}

#[tokio::test]
async fn what_json_does_not_have_is_refused_with_its_place() {
    for (expression, problem) in [
        ("{1, 2}", "the result: type set, which JSON does not have"),
        (
            "{'a': [0, b'x']}",
            "the result at /a/1: type bytes, which JSON does not have",
        ),
        (
            "{'a/~': {1: 2}}",
            "the result at /a~1~0: a key of type int, expected str",
        ),
        ("float('nan')", "the result: NaN or Infinity (not JSON)"),
        (
            "[float('inf')]",
            "the result at /0: NaN or Infinity (not JSON)",
        ),
        (
            "2**53",
            "the result: integer beyond ±9007199254740991 (send it as a string)",
        ),
        ("'\\ud800'", "the result: lone surrogate"),
        ("'a\\0'", "the result: character U+0000"),
        ("x", "the result: nested deeper than 32 levels"),
        ("[0] * 10001", "the result: more than 10000 values and keys"),
        ("'x' * 300000", "the result: longer than 262144 bytes"),
    ] {
        let body = format!("def run(ctx):\n    x = []\n    x.append(x)\n    return {expression}\n");
        let outcome = run(&body, json!({})).await;
        assert_eq!(
            failure(&outcome),
            (Reason::InvalidOutput, problem),
            "{expression}"
        );
        assert_eq!(outcome.output.returned, None);
    }
}

#[tokio::test]
async fn failures_are_those_of_any_script() {
    let outcome = run("def run(ctx):\n    raise ValueError('x')\n", json!({})).await;
    assert_eq!(failure(&outcome), (Reason::Exception, "ValueError: x"));
    assert!(outcome.output.stderr.text.contains("line 6, in run\n"));
    let outcome = run("import sys\ndef run(ctx):\n    sys.exit(3)\n", json!({})).await;
    assert_eq!(failure(&outcome), (Reason::ExitCode, "exit code 3"));
    let outcome = run("def run(ctx):\n    pass\n", json!({ "a": 1 })).await;
    assert_eq!(
        failure(&outcome).1,
        "TypeError: run() got an unexpected keyword argument 'a'"
    );
    let outcome = run("x = 1\n", json!({})).await;
    assert_eq!(
        failure(&outcome).1,
        "NameError: the script has entry = \"run\" and defines no function run"
    );
}

/// Lists that hold one list often are small in Python and endless as JSON.
#[tokio::test]
async fn a_result_is_read_within_the_limits_of_json() {
    let shared = "def run(ctx):\n    value = 'x' * 10\n    for _ in range(8): value = [value] * 1000\n    return value\n";
    let long = "def run(ctx):\n    return ['x' * 200000] * 5000\n";
    for (body, problem) in [(shared, "more than 10000 values"), (long, "262144 bytes")] {
        let outcome = run(body, json!({})).await;
        let (reason, message) = failure(&outcome);
        assert_eq!(reason, Reason::InvalidOutput);
        assert!(message.contains(problem), "{message}");
        assert!(outcome.duration < std::time::Duration::from_secs(2));
    }
}
