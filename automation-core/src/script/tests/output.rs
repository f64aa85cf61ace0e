//! What a script may promise of its result, and every way in which the promise can be wrong.

use serde_json::{Value, json};

use super::super::{Misfit, OutputSchema};
use super::{errors, parse};

fn schema(toml: &str) -> OutputSchema {
    let toml = format!("[tool.automation.output_schema]\n{toml}");
    let script = parse(&toml).unwrap();
    script.output_schema().unwrap().clone()
}

fn misfit(schema: &OutputSchema, result: &Value) -> (String, String) {
    let Misfit { path, detail } = schema.misfit(result).unwrap();
    (path.join(" "), detail)
}

#[test]
fn a_script_without_one_promises_nothing() {
    assert!(
        parse("[tool.automation]")
            .unwrap()
            .output_schema()
            .is_none()
    );
    let anything = schema("");
    assert_eq!(
        anything.misfit(&json!({})),
        None,
        "an empty one asks for a result"
    );
}

#[test]
fn the_schema_is_shown_as_it_was_written() {
    let schema = schema(
        r#"type = "object"
required = ["freed"]
additionalProperties = false
properties.freed = { type = "number", minimum = 0, maximum = 1e3 }
properties."$ref" = { enum = ["a", 1, true] }
[[tool.automation.output_schema.anyOf]]
minProperties = 1"#,
    );
    let expected = json!({
        "type": "object",
        "required": ["freed"],
        "additionalProperties": false,
        "properties": {
            "freed": {"type": "number", "minimum": 0, "maximum": 1000.0},
            "$ref": {"enum": ["a", 1, true]},
        },
        "anyOf": [{"minProperties": 1}],
    });
    assert_eq!(*schema.schema(), expected);
}

#[test]
fn a_misfit_says_where_and_what_is_expected_and_no_value() {
    let schema = schema(
        r#"properties.list.items = { type = "integer", maximum = 9 }
properties."a/b~".pattern = "^x+$"
properties.kind.enum = ["low", "high"]
properties.open = false
additionalProperties = { type = "string", maxLength = 3 }"#,
    );
    let fits = json!({"list": [1, 2.0], "a/b~": "xx", "kind": "low", "other": "abc"});
    assert_eq!(schema.misfit(&fits), None);
    let cases = [
        (json!({"list": [1, "sesame"]}), "list 1", "expected integer"),
        (json!({"list": [10]}), "list 0", "expected at most 9"),
        (
            json!({"a/b~": "sesame"}),
            "a/b~",
            "expected a string that matches ^x+$",
        ),
        (
            json!({"kind": "sesame"}),
            "kind",
            "expected one of \"low\", \"high\"",
        ),
        (
            json!({"other": "sesame"}),
            "other",
            "expected at most 3 characters",
        ),
    ];
    for (result, place, detail) in cases {
        assert_eq!(
            misfit(&schema, &result),
            (place.to_owned(), detail.to_owned()),
            "{result}"
        );
    }
    let (place, detail) = misfit(&schema, &json!({"open": "sesame"}));
    assert_eq!(place, "open");
    assert!(!detail.contains("sesame"), "{detail}");
}

#[test]
fn what_is_wrong_is_reported_with_its_place() {
    let cases = [
        (
            "[tool.automation]\noutput_schema = 1",
            "4:19: [tool.automation]: output_schema is 1, expected a table",
        ),
        (
            "[tool.automation.output_schema]\nproperties.x.typ = \"string\"",
            "4:16: output_schema: unknown key \"typ\", did you mean \"type\"?",
        ),
        (
            "[tool.automation.output_schema]\nallOf = [{ \"$ref\" = \"#\" }]",
            "4:14: output_schema: unknown key \"$ref\", an output schema has no references and no dialect but draft \
             2020-12",
        ),
        (
            "[tool.automation.output_schema]\ntype = \"object\"\nproperties.x.type = \"strin\"",
            "5:23: output_schema/properties/x/type: no JSON Schema (draft 2020-12): ",
        ),
        (
            "[tool.automation.output_schema]\nanyOf = [{ minLength = 1 }, { minLength = -1 }]",
            "4:45: output_schema/anyOf/1/minLength: no JSON Schema (draft 2020-12): ",
        ),
        (
            "[tool.automation.output_schema]\nproperties.x.pattern = \"(?=x)\"",
            "4:26: output_schema/properties/x/pattern: no JSON Schema (draft 2020-12): ",
        ),
        (
            "[tool.automation.output_schema]\ntype = \"object\"\nproperties.x.const = 2026-01-01",
            "4:3: output_schema: expected a JSON value",
        ),
    ];
    for (toml, expected) in cases {
        let found = errors(toml);
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
        assert!(
            found[0].starts_with(&format!("x.py:{expected}")),
            "{}",
            found[0]
        );
    }
}

#[test]
fn a_schema_deeper_than_the_profile_is_refused() {
    let deep = "not = { ".repeat(33) + &"}".repeat(33);
    let found = errors(&format!("[tool.automation.output_schema]\n{deep}"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("output_schema: "), "{}", found[0]);
}
