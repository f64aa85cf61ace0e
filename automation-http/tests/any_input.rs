//! Whatever comes in, the answer is one of ours: the one error body, never a panic and never a run.

mod support;

use axum::body::Body;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{App, request};

/// JSON that is nearly a request.
fn nearly() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~]{0,10}".prop_map(Value::from),
        Just(json!({"category": "Device Slow", "automation_possible": true})),
        Just(json!("disk_cleanup.py")),
    ];
    let name = prop_oneof![
        Just("ticket_id".to_owned()),
        Just("ticket".to_owned()),
        Just("id".to_owned()),
        Just("classification".to_owned()),
        Just("script_name".to_owned()),
        Just("parameters".to_owned()),
        "[a-z_]{0,8}",
    ];
    leaf.prop_recursive(3, 20, 5, move |inner| {
        prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|map| json!(map))
    })
}

fn answers(path: &'static str, body: Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime starts").block_on(async {
        let answer = App::new().post_text(path, body).await;
        match answer.status.as_u16() {
            200 => assert!(answer.data().is_object()),
            status @ (400 | 404 | 413 | 422) => {
                let code = answer.json()["code"]
                    .as_str()
                    .expect("a code is a text")
                    .to_owned();
                answer.error(status, &code);
            }
            other => unreachable!("{other}: {answer:?}"),
        }
    });
}

const PATHS: [&str; 3] = [
    "/api/automation/execute",
    "/api/automation/manual",
    "/api/automation/test",
];

proptest! {
    #[test]
    fn any_bytes_are_answered(path in prop::sample::select(&PATHS), body: Vec<u8>) {
        answers(path, body);
    }

    #[test]
    fn anything_like_a_request_is_answered(path in prop::sample::select(&PATHS), body in nearly()) {
        answers(path, body.to_string().into_bytes());
    }

    #[test]
    fn any_path_is_answered(path in "/[!-~]{0,40}") {
        let Ok(request) = request("GET", &path).body(Body::empty()) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async { App::new().send(request).await });
        prop_assert!(answer.status.as_u16() < 500, "{:?}", answer);
        if answer.status.is_client_error() {
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            answer.error(answer.status.as_u16(), &code);
        }
    }
}
