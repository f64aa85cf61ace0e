//! Declared parameters: faults of authors, faults of callers, defaults and secrets.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::ParameterSchema;
use super::{errors, parse, warnings};
use crate::limits::PROBLEMS_MAX;

const DISK: &str = r#"
[tool.automation.parameters.min_free_space_gb]
type = "number"
default = 5
minimum = 0
maximum = 1000
[tool.automation.parameters.clear_temp]
type = "boolean"
default = true
[tool.automation.parameters.count]
type = "integer"
minimum = 1
[tool.automation.parameters.user]
type = "string"
pattern = "^[a-z][a-z0-9]*$"
minLength = 2
maxLength = 8
required = true
[tool.automation.parameters.mode]
type = "string"
enum = ["fast", "slow"]
default = "fast"
[tool.automation.parameters.hosts]
type = "array"
items = { type = "string", pattern = "^[a-z]+$" }
maxItems = 2
[tool.automation.parameters.extra]
type = "object"
[tool.automation.parameters.password]
type = "string"
secret = true
minLength = 8
pattern = "^[a-z0-9-]+$"
"#;

fn schema(toml: &str) -> ParameterSchema {
    parse(toml).unwrap().parameters().clone()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

/// Returns what is wrong with an object that has a `user` unless it brings one.
fn problems(parameters: Value) -> Vec<String> {
    let mut parameters = object(parameters);
    parameters.entry("user").or_insert("ana".into());
    schema(DISK)
        .validate(parameters)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn declared(lines: &str) -> Vec<String> {
    errors(&format!("[tool.automation.parameters.x]\n{lines}"))
}

#[test]
fn defaults_are_filled_in_and_given_values_stay() {
    let filled = schema(DISK)
        .validate(object(
            json!({"user": "ana", "clear_temp": false, "count": 1.0, "extra": {"a": [null]}}),
        ))
        .unwrap();
    assert_eq!(
        Value::Object(filled),
        json!({"user": "ana", "clear_temp": false, "count": 1.0, "extra": {"a": [null]}, "min_free_space_gb": 5, "mode": "fast"})
    );
}

#[test]
fn nothing_is_coerced_and_each_misfit_is_named_with_its_place() {
    for (parameters, expected) in [
        (
            json!({"min_free_space_gb": "5"}),
            "/min_free_space_gb: expected number, got string \"5\"",
        ),
        (
            json!({"min_free_space_gb": true}),
            "/min_free_space_gb: expected number, got true",
        ),
        (
            json!({"min_free_space_gb": null}),
            "/min_free_space_gb: expected number, got null",
        ),
        (
            json!({"min_free_space_gb": [5]}),
            "/min_free_space_gb: expected number, got an array",
        ),
        (
            json!({"min_free_space_gb": -0.5}),
            "/min_free_space_gb: expected at least 0, got -0.5",
        ),
        (
            json!({"min_free_space_gb": 1e300}),
            "/min_free_space_gb: expected at most 1000, got 1e+300",
        ),
        (
            json!({"clear_temp": 1}),
            "/clear_temp: expected boolean, got 1",
        ),
        (
            json!({"clear_temp": "true"}),
            "/clear_temp: expected boolean, got string \"true\"",
        ),
        (json!({"count": true}), "/count: expected integer, got true"),
        (json!({"count": 1.5}), "/count: expected integer, got 1.5"),
        (
            json!({"user": "-rf"}),
            "/user: expected a string that matches ^[a-z][a-z0-9]*$, got string \"-rf\"",
        ),
        (
            json!({"user": "ana\n"}),
            "/user: expected a string that matches ^[a-z][a-z0-9]*$, got string \"ana\\n\"",
        ),
        (
            json!({"user": "a"}),
            "/user: expected at least 2 characters, got 1",
        ),
        (
            json!({"user": "abcdefghi"}),
            "/user: expected at most 8 characters, got 9",
        ),
        (
            json!({"mode": "Fast"}),
            "/mode: expected one of \"fast\", \"slow\", got string \"Fast\"",
        ),
        (
            json!({"hosts": ["a", "B"]}),
            "/hosts/1: expected a string that matches ^[a-z]+$, got string \"B\"",
        ),
        (
            json!({"hosts": ["a", "b", "c"]}),
            "/hosts: expected at most 2 items, got 3",
        ),
        (
            json!({"extra": []}),
            "/extra: expected object, got an array",
        ),
        (
            json!({"clear_tmp": true}),
            "/clear_tmp: unknown parameter, did you mean \"clear_temp\"?",
        ),
        (
            json!({"a/b~c": 1}),
            "/a~1b~0c: unknown parameter, expected one of clear_temp, count, extra, hosts, min_free_space_gb, mode, password, user",
        ),
    ] {
        assert_eq!(problems(parameters), [expected]);
    }
}

#[test]
fn a_required_parameter_is_missed_at_its_own_place() {
    let found = schema(DISK).validate(Map::new()).unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "/user: missing, expected string");
}

#[test]
fn names_that_mean_something_to_python_or_javascript_are_unknown() {
    for name in [
        "__class__",
        "__proto__",
        "constructor",
        "a\0",
        "a\nb",
        "",
        "ctx",
        "$ref",
    ] {
        let found = problems(json!({name: 1}));
        assert_eq!(found.len(), 1, "{name:?}");
        assert!(found[0].contains("unknown parameter"), "{found:?}");
    }
}

#[test]
fn a_script_without_parameters_takes_none() {
    let found = ParameterSchema::default()
        .validate(object(json!({"a": 1})))
        .unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "/a: unknown parameter, the script takes none"
    );
    assert!(
        ParameterSchema::default()
            .validate(Map::new())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn all_problems_come_at_once_and_their_number_is_bounded() {
    let found = problems(json!({"count": 0, "mode": 1, "nope": 1, "user": 3}));
    let places: Vec<_> = found.iter().map(|p| p.split(':').next().unwrap()).collect();
    // A number is not a mode for two reasons: its type, and that it is none of the choices.
    assert_eq!(places, ["/count", "/mode", "/mode", "/nope", "/user"]);

    let many = (0..10_000).map(|i| (format!("p{i}"), json!(1))).collect();
    let found = problems(Value::Object(many));
    assert_eq!(found.len(), PROBLEMS_MAX + 1);
    assert_eq!(found[PROBLEMS_MAX], "9950 more problems");
}

#[test]
fn values_in_messages_are_short_and_without_control_characters() {
    let found = problems(json!({"min_free_space_gb": "\u{1b}[31m".repeat(10_000)}));
    assert!(
        found[0].len() < 400 && !found[0].contains('\u{1b}'),
        "{found:?}"
    );
}

#[test]
fn the_schema_is_shown_whole() {
    let schema = schema(DISK);
    let shown = schema.schema();
    assert_eq!(
        shown["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(shown["additionalProperties"], false);
    assert_eq!(shown["required"], json!(["user"]));
    assert_eq!(
        shown["properties"]["min_free_space_gb"],
        json!({"type": "number", "default": 5, "minimum": 0, "maximum": 1000})
    );
    assert_eq!(shown["properties"]["password"]["writeOnly"], true);
    assert_eq!(shown["properties"]["password"].get("secret"), None);
    assert_eq!(
        Value::Object(schema.types()),
        json!({"min_free_space_gb": "number", "clear_temp": "boolean", "count": "integer", "user": "string", "mode": "string",
               "hosts": "array", "extra": "object", "password": "string"})
    );
    assert_eq!(
        Value::Object(schema.defaults()),
        json!({"min_free_space_gb": 5, "clear_temp": true, "mode": "fast"})
    );
    assert!(schema.has("user") && !schema.has("User"));
}

#[test]
fn secrets_are_masked_found_and_never_worded() {
    let schema = schema(DISK);
    let given = object(json!({"user": "ana", "password": "hunter2-hunter2"}));
    let filled = schema.validate(given).unwrap();
    assert_eq!(
        schema.secrets(&filled).collect::<Vec<_>>(),
        ["hunter2-hunter2"]
    );
    let masked = schema.mask(&filled);
    assert_eq!(masked["password"], "***");
    assert_eq!(masked["user"], "ana");
    assert_eq!(masked.len(), filled.len());
    assert!(!format!("{schema:?} {masked:?}").contains("hunter2"));

    for (wrong, expected) in [
        (
            json!("hunter2"),
            "/password: expected at least 8 characters",
        ),
        (
            json!("HUNTER2-HUNTER2"),
            "/password: expected a string that matches ^[a-z0-9-]+$",
        ),
        (json!({"x": "hunter2"}), "/password: expected string"),
        (json!(["hunter2"]), "/password: expected string"),
        (json!(4711), "/password: expected string"),
    ] {
        assert_eq!(problems(json!({"password": wrong})), [expected]);
        assert_eq!(
            schema.mask(&object(json!({"password": wrong})))["password"],
            "***"
        );
    }
}

#[test]
fn names_of_parameters_are_checked() {
    for name in [
        "\"a b\"",
        "\"\"",
        "1a",
        "a-b",
        "\"ä\"",
        "\"a\\u0000\"",
        &"a".repeat(65),
    ] {
        let found = errors(&format!(
            "[tool.automation.parameters]\n{name}.type = \"string\""
        ));
        assert!(found[0].contains("is not a parameter's name"), "{found:?}");
    }
    assert_eq!(
        errors("[tool.automation.parameters]\n__class__.type = \"string\""),
        ["x.py:4:3: parameter __class__: names with __ at both ends belong to Python"]
    );
    assert_eq!(
        errors("[tool.automation]\nentry = \"run\"\nparameters.ctx.type = \"string\""),
        ["x.py:5:14: parameter ctx: `run` gets its context under this name"]
    );
    let longest = "a".repeat(64);
    for name in ["ctx", "_a", "A1", "class", "__a", &longest] {
        assert!(
            schema(&format!(
                "[tool.automation.parameters]\n{name}.type = \"string\""
            ))
            .has(name)
        );
    }
}

#[test]
fn wrong_declarations_say_what_is_expected() {
    for (lines, expected) in [
        (
            "default = 3",
            vec![
                "3:31: parameter x: type is missing, expected one of string, number, integer, boolean, array, object",
            ],
        ),
        (
            "type = \"strin\"",
            vec![
                "4:10: parameter x: type is \"strin\", expected one of string, number, integer, boolean, array, object",
            ],
        ),
        (
            "type = [\"string\", \"null\"]",
            vec![
                "4:10: parameter x: type is an array, expected one of string, number, integer, boolean, array, object",
            ],
        ),
        (
            "type = \"number\"\nminimun = 3",
            vec!["5:3: parameter x: unknown key \"minimun\", did you mean \"minimum\"?"],
        ),
        (
            "type = \"string\"\n\"$ref\" = \"http://example.org\"",
            vec![
                "5:3: parameter x: unknown key \"$ref\", expected one of type, description, enum, minimum, maximum, minLength, maxLength, pattern, maxItems, items, secret, required, default",
            ],
        ),
        (
            "type = \"boolean\"\nminimum = 3",
            vec![
                "5:13: parameter x: minimum has no effect on type boolean, it is for number and integer",
            ],
        ),
        (
            "type = \"number\"\nitems = { type = \"string\" }",
            vec!["5:11: parameter x: items has no effect on type number, it is for array"],
        ),
        (
            "type = \"number\"\nminimum = 3\nmaximum = 2",
            vec!["6:13: parameter x: maximum is 2, expected at least minimum, which is 3"],
        ),
        (
            "type = \"string\"\nminLength = 3\nmaxLength = 2",
            vec!["6:15: parameter x: maxLength is 2, expected at least minLength, which is 3"],
        ),
        (
            "type = \"string\"\nmaxLength = -1",
            vec!["5:15: parameter x: maxLength is -1, expected a whole number from 0"],
        ),
        (
            "type = \"string\"\nsecret = \"yes\"",
            vec!["5:12: parameter x: secret is \"yes\", expected true or false"],
        ),
        (
            "type = \"string\"\npattern = \"(?=a)b\"\ndefault = \"c\"",
            vec![
                "5:13: parameter x: pattern is \"(?=a)b\", expected a regular expression, without look-around and back-references",
            ],
        ),
        (
            "type = \"string\"\nenum = []",
            vec![
                "5:10: parameter x: enum is an empty array, expected a list of at least one JSON value",
            ],
        ),
        (
            "type = \"string\"\nenum = [\"a\", 3]",
            vec!["5:10: parameter x: enum does not fit: expected string, got 3"],
        ),
        (
            "type = \"array\"\nitems = { type = \"string\", secret = true }",
            vec![
                "5:30: parameter x, items: unknown key \"secret\", expected one of type, description, enum, minimum, maximum, minLength, maxLength, pattern, maxItems, items",
            ],
        ),
        (
            "type = \"array\"\nitems = {}",
            vec![
                "5:11: parameter x, items: type is missing, expected one of string, number, integer, boolean, array, object",
            ],
        ),
    ] {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|error| format!("x.py:{error}"))
            .collect();
        assert_eq!(declared(lines), expected, "{lines}");
    }
    assert_eq!(
        errors("[tool.automation.parameters]\nx = \"string\""),
        ["x.py:4:7: parameter x: expected a table, for instance { type = \"string\" }"]
    );
}

#[test]
fn a_default_has_to_fit() {
    for (lines, expected) in [
        (
            "type = \"number\"\ndefault = \"5\"",
            "5:13: parameter x: default does not fit: expected number, got string \"5\"",
        ),
        (
            "type = \"integer\"\ndefault = true",
            "5:13: parameter x: default does not fit: expected integer, got true",
        ),
        (
            "type = \"number\"\nminimum = 3\ndefault = 1",
            "6:13: parameter x: default does not fit: expected at least 3, got 1",
        ),
        (
            "type = \"array\"\nitems = { type = \"string\" }\ndefault = [\"a\", 3]",
            "6:13: parameter x: default/1 does not fit: expected string, got 3",
        ),
        (
            "type = \"number\"\ndefault = nan",
            "5:13: parameter x: default is nan, expected a JSON value (no date, no inf or nan, no U+0000, integers within 2^53 - 1)",
        ),
        (
            "type = \"integer\"\ndefault = 9007199254740992",
            "5:13: parameter x: default is 9007199254740992, expected a JSON value (no date, no inf or nan, no U+0000, integers within 2^53 - 1)",
        ),
        (
            "type = \"string\"\ndefault = 1979-05-27",
            "5:13: parameter x: default is 1979-05-27, expected a JSON value (no date, no inf or nan, no U+0000, integers within 2^53 - 1)",
        ),
        (
            "type = \"number\"\ndefault = 1\nrequired = true",
            "6:14: parameter x: required = true and a default exclude each other",
        ),
    ] {
        assert_eq!(declared(lines), [format!("x.py:{expected}")], "{lines}");
    }
    for (lines, expected) in [
        ("type = \"integer\"\ndefault = 1.0", json!(1.0)),
        ("type = \"integer\"\ndefault = 0x10", json!(16)),
        (
            "type = \"integer\"\ndefault = -9_007_199_254_740_991",
            json!(-9_007_199_254_740_991_i64),
        ),
        (
            "type = \"object\"\ndefault = { a = [1, { b = true }] }",
            json!({"a": [1, {"b": true}]}),
        ),
    ] {
        let schema = schema(&format!("[tool.automation.parameters.x]\n{lines}"));
        assert_eq!(schema.validate(Map::new()).unwrap()["x"], expected);
    }
}

#[test]
fn a_secret_is_a_string_without_default_and_enum() {
    let found =
        declared("type = \"string\"\nsecret = true\ndefault = \"hunter2\"\nenum = [\"hunter2\"]");
    assert_eq!(
        found,
        [
            "x.py:6:13: parameter x: a secret can't have a default: schemas are shown to everyone",
            "x.py:7:10: parameter x: a secret can't have an enum: schemas are shown to everyone",
        ]
    );
    assert_eq!(
        declared("type = \"number\"\nsecret = true"),
        ["x.py:5:12: parameter x: only a string can be secret"]
    );
    let found = declared("type = \"string\"\nsecret = true\ndefault = 1979-05-27");
    assert!(!found.join("").contains("1979"), "{found:?}");
}

#[test]
fn doubtful_declarations_are_warnings() {
    assert_eq!(
        warnings("[tool.automation.parameters.x]\ntype = \"string\"\npattern = \"[a-z]+\""),
        [
            "x.py:5:13: parameter x: pattern may match a part of the text: start it with ^ and end it with $ to mean all of it"
        ]
    );
    assert_eq!(
        warnings(
            "[tool.automation]\ncategory = \"A\"\nparameters.x = { type = \"string\", required = true }"
        ),
        [
            "x.py:5:48: parameter x: runs for tickets of the category are refused, since they give no parameters"
        ]
    );
}

#[test]
fn a_hostile_text_does_not_stall_a_pattern() {
    let schema = schema("[tool.automation.parameters.x]\ntype = \"string\"\npattern = \"^(a+)+$\"");
    let start = std::time::Instant::now();
    let text = "a".repeat(100_000) + "b";
    assert!(schema.validate(object(json!({"x": text}))).is_err());
    assert!(start.elapsed() < std::time::Duration::from_secs(2));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5_i64..2000).prop_map(Value::from),
        (-2.0_f64..2000.0).prop_map(Value::from),
        prop_oneof!["[a-z]{1,10}", "fast|slow", any::<String>()].prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z/~]{1,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_parameters() -> impl Strategy<Value = Map<String, Value>> {
    let known = proptest::sample::select(vec![
        "min_free_space_gb",
        "clear_temp",
        "count",
        "user",
        "mode",
        "hosts",
        "extra",
        "password",
    ]);
    let name = prop_oneof![6 => known.prop_map(str::to_owned), 1 => any::<String>()];
    proptest::collection::btree_map(name, any_json(), 0..8)
        .prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn parameters_are_either_filled_or_faulted_at_real_places(parameters in any_parameters()) {
        let schema = schema(DISK);
        match schema.validate(parameters.clone()) {
            Ok(filled) => {
                for (name, value) in &parameters {
                    prop_assert_eq!(&filled[name], value, "a given value changed");
                }
                for (name, default) in schema.defaults() {
                    prop_assert!(parameters.contains_key(&name) || filled[&name] == default);
                }
                let names: Vec<_> = filled.keys().collect();
                prop_assert!(names.iter().all(|name| schema.has(name)));
                prop_assert!(filled.contains_key("user"));
                prop_assert_eq!(schema.validate(filled.clone()).unwrap(), filled, "not a fixed point");
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                let document = Value::Object(parameters);
                for problem in problems {
                    let missing = problem.detail.starts_with("missing") && problem.pointer == "/user";
                    prop_assert!(missing || document.pointer(&problem.pointer).is_some(), "{problem}");
                }
            }
        }
    }

    #[test]
    fn no_secret_is_ever_shown(secret in "[A-Z]{3}[a-zA-Z0-9 ]{9,40}", shape in 0..4) {
        let value = match shape {
            0 => json!(secret),
            1 => json!([secret]),
            2 => json!({"a": secret}),
            _ => json!({&*secret: 1}),
        };
        let schema = schema(DISK);
        let given = object(json!({"user": "ana", "password": value}));
        let masked = format!("{:?}", schema.mask(&given));
        prop_assert!(!masked.contains(&secret));
        let found = format!("{:?}", schema.validate(given).unwrap_err());
        prop_assert!(!found.contains(&secret));
    }
}
