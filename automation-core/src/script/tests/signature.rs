//! What becomes of a script by what its `run` is annotated with.

use serde_json::{Map, Value, json};

use super::super::{Argument, Diagnostic, Inspection, Script, Signature};
use super::source;

/// Returns an argument with a schema; required where that has no default.
fn argument(name: &str, schema: Value) -> Argument {
    let Value::Object(schema) = schema else {
        panic!("{schema} is not an object")
    };
    Argument {
        name: name.to_owned(),
        line: 9,
        column: 14,
        required: !schema.contains_key("default"),
        schema: Ok(schema),
    }
}

fn signature(arguments: Vec<Argument>) -> Signature {
    Signature {
        line: 9,
        column: 1,
        arguments,
        open: false,
    }
}

fn admit(toml: &str, signature: Signature) -> Result<Script, Vec<Diagnostic>> {
    let script = Script::parse("x.py", source(toml).as_bytes()).unwrap();
    script.admit(Inspection {
        signature: Some(signature),
        ..Inspection::default()
    })
}

fn errors(toml: &str, signature: Signature) -> Vec<String> {
    let found = admit(toml, signature).unwrap_err();
    found.iter().map(ToString::to_string).collect()
}

fn warnings(toml: &str, signature: Signature) -> Vec<String> {
    let script = admit(toml, signature).unwrap();
    script.warnings().iter().map(ToString::to_string).collect()
}

const RUN: &str = "[tool.automation]\nentry = \"run\"";

#[test]
fn annotations_become_the_closed_schema_with_its_defaults() {
    let arguments = vec![
        argument("user", json!({ "type": "string" })),
        argument("days", json!({ "type": "integer", "default": 30 })),
        argument(
            "note",
            json!({ "type": ["string", "null"], "default": null }),
        ),
        argument("whatever", json!({ "default": [] })),
    ];
    let script = admit(RUN, signature(arguments)).unwrap();
    let parameters = script.parameters();
    assert_eq!(
        Value::Object(parameters.types()),
        json!({ "user": "string", "days": "integer", "note": "string or null", "whatever": "any" })
    );
    assert_eq!(parameters.schema()["required"], json!(["user"]));
    assert_eq!(parameters.schema()["additionalProperties"], json!(false));
    assert_eq!(
        parameters.schema()["properties"]["days"]["default"],
        json!(30)
    );
    let validate = |given: Value| match given {
        Value::Object(given) => parameters.validate(given),
        other => panic!("{other} is not an object"),
    };
    assert_eq!(
        Value::Object(validate(json!({ "user": "ana" })).unwrap()),
        json!({ "user": "ana", "days": 30, "note": null, "whatever": [] })
    );
    let problem = |given| validate(given).unwrap_err().remove(0).to_string();
    assert_eq!(problem(json!({})), "/user: missing, expected string");
    assert_eq!(
        problem(json!({ "user": "ana", "days": true })),
        "/days: expected integer, got true"
    );
    let unfit = problem(json!({ "user": "ana", "note": 5 }));
    assert!(
        [
            "/note: expected string or null, got 5",
            "/note: expected null or string, got 5"
        ]
        .contains(&&*unfit),
        "{unfit}"
    );
    assert!(problem(json!({ "user": "ana", "dayz": 1 })).contains("did you mean \"days\"?"));
}

#[test]
fn what_has_no_schema_and_what_does_not_fit_is_an_error_with_its_place() {
    let unmapped = Argument {
        schema: Err("annotation datetime, expected str".to_owned()),
        ..argument("when", json!({}))
    };
    let misfit = argument("user", json!({ "type": "string", "default": null }));
    let item = json!({ "type": "array", "items": { "type": "integer" }, "default": [1, "a"] });
    let found = errors(
        RUN,
        signature(vec![
            unmapped,
            misfit,
            argument("items", item),
            argument("__x__", json!({})),
        ]),
    );
    assert_eq!(
        found,
        [
            "x.py:9:14: argument when: annotation datetime, expected str",
            "x.py:9:14: argument user: default does not fit: expected string, got null",
            "x.py:9:14: argument items: default/1 does not fit: expected integer, got string \"a\"",
            "x.py:9:14: argument __x__: parameter __x__: names with __ at both ends belong to Python",
        ]
    );
}

#[test]
fn a_table_of_parameters_wins_and_has_to_agree() {
    let table = format!("{RUN}\n[tool.automation.parameters.user]\ntype = \"string\"\n");
    let undecipherable = || Argument {
        schema: Err("annotation User".to_owned()),
        ..argument("user", json!({ "default": null }))
    };
    let script = admit(&table, signature(vec![undecipherable()])).unwrap();
    assert_eq!(
        Value::Object(script.parameters().types()),
        json!({ "user": "string" })
    );
    assert_eq!(
        errors(&table, signature(vec![])),
        ["x.py:9:1: run does not take \"user\", which the metadata block declares as a parameter"]
    );
    let days = argument("days", json!({ "type": "integer" }));
    assert_eq!(
        errors(&table, signature(vec![undecipherable(), days])),
        [
            "x.py:9:14: argument days: has no default, and the metadata block does not declare it as a parameter"
        ]
    );
    let open = Signature {
        open: true,
        ..signature(vec![])
    };
    assert_eq!(warnings(&table, open), [""; 0]);
    let bare = argument("user", json!({ "type": "string" }));
    assert_eq!(
        warnings(&table, signature(vec![bare.clone()])),
        [
            "x.py:9:14: argument user: has no default, and the metadata block neither requires the parameter \
          nor has a default for it"
        ]
    );
    let required = format!("{table}required = true\n");
    assert_eq!(warnings(&required, signature(vec![bare])), [""; 0]);
}

/// A table without entries says that there are no parameters.
#[test]
fn an_empty_table_is_a_table() {
    let table = format!("{RUN}\n[tool.automation.parameters]\n");
    let optional = argument("days", json!({ "type": "integer", "default": 1 }));
    let script = admit(&table, signature(vec![optional])).unwrap();
    assert_eq!(script.parameters().types(), Map::new());
}

#[test]
fn a_category_needs_defaults() {
    let category = format!("{RUN}\ncategory = \"VPN Issue\"");
    let user = argument("user", json!({ "type": "string" }));
    assert_eq!(
        warnings(&category, signature(vec![user])),
        [
            "x.py:9:14: argument user: has no default, so runs for tickets of the category are refused: \
          they give no parameters"
        ]
    );
}
