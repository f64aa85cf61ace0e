//! What the tests of the router share: an engine whose scripts are functions, and a client without a socket.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "only code inside test functions may do so without saying"
)]

pub(crate) mod streaming;

use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::{CapturedText, Ending, Failure, FnExecutor, Invocation, Outcome};
use automation_core::{
    Automation, Concern, MemoryStorage, Reason, Script, ScriptRegistry, Storage,
};
use automation_http::{HttpConfig, router};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const JSON: &str = "application/json; charset=utf-8";
pub(crate) const FRONTEND: &str = "http://localhost:3000";

pub(crate) const DISK: &str = r#"# /// script
# [tool.automation]
# category = "Device Slow"
# description = "Disk cleanup and optimization"
# timeout_seconds = 120
# memory_mb = 256
# cpu_seconds = 2.5
# output_kib = 64
# children_max = 3
# deny = ["network", "native"]
# output_schema.required = ["space_freed_gb"]
# [tool.automation.parameters.min_free_space_gb]
# type = "number"
# default = 5
# minimum = 0
# [tool.automation.parameters.clear_temp]
# type = "boolean"
# default = true
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# ///
"#;

const FAILING: &str = r#"# /// script
# [tool.automation]
# category = "VPN Issue"
# description = "Fails"
# ///
"#;

pub(crate) fn scripts() -> ScriptRegistry {
    let parse = |name: &str, source: &str| {
        Script::parse(name, source.as_bytes()).expect("the script is valid")
    };
    ScriptRegistry::from_scripts([
        parse("disk_cleanup.py", DISK),
        parse("vpn_restart.py", FAILING),
        parse("slow.py", ""),
        parse("cancelled.py", ""),
        parse("leaks.py", "# leaks\n"),
    ])
}

/// Runs functions that print, fail, or take half a second.
pub(crate) fn executor() -> FnExecutor {
    FnExecutor::new(|invocation: Invocation| async move {
        match invocation.script.name() {
            "vpn_restart.py" => {
                let mut outcome = Outcome::new(Ending::Failed(Failure::new(
                    Reason::ExitCode,
                    "exited with code 3",
                )));
                outcome.exit_code = Some(3);
                outcome.output.stderr = CapturedText::new("no such service\n");
                outcome
            }
            "slow.py" => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Outcome::new(Ending::Completed)
            }
            "cancelled.py" => Outcome::new(Ending::Cancelled),
            "leaks.py" => {
                let mut outcome = Outcome::new(Ending::Completed);
                outcome.concern = Some(Concern::Contaminated);
                outcome
            }
            _ => {
                let mut outcome = Outcome::new(Ending::Completed);
                outcome.exit_code = Some(0);
                let result =
                    json!({"actions_performed": ["CLEANED: temp files"], "space_freed_gb": 2.5});
                outcome.output.stdout = CapturedText::new(format!("cleaning\n{result}\n"));
                outcome.usage.cpu_us = Some(1500);
                outcome.usage.memory_peak_bytes = Some(4096);
                outcome.usage.children = Some(2);
                outcome.usage.threads = Some(1);
                outcome.queue = Duration::from_micros(1500);
                outcome
            }
        }
    })
}

pub(crate) fn config() -> HttpConfig {
    HttpConfig::new(FRONTEND.parse().unwrap()).with_rate_limit(None)
}

pub(crate) fn automation(storage: Arc<dyn Storage>) -> Automation {
    Automation::builder()
        .scripts(scripts())
        .executor(executor())
        .shared_storage(storage)
        .build()
        .unwrap()
}

/// A router, and the engine behind it.
pub(crate) struct App {
    pub(crate) router: Router,
    pub(crate) automation: Automation,
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: HttpConfig) -> Self {
        Self::over(Arc::new(MemoryStorage::default()), config)
    }

    pub(crate) fn over(storage: Arc<dyn Storage>, config: HttpConfig) -> Self {
        let automation = automation(storage);
        Self {
            router: router(automation.clone(), config),
            automation,
        }
    }

    /// Over an executor of the test's own.
    pub(crate) fn running(executor: FnExecutor, config: HttpConfig) -> Self {
        let builder = Automation::builder().scripts(scripts()).executor(executor);
        let automation = builder.executions_max(2).build().unwrap();
        Self {
            router: router(automation.clone(), config),
            automation,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = request("POST", path).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Runs the documented ticket.
    pub(crate) async fn execute(&self, ticket_id: &str) -> Answer {
        self.post("/api/automation/execute", &ticket(ticket_id, "Device Slow"))
            .await
    }
}

pub(crate) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:3003")
}

/// The document's request.
pub(crate) fn ticket(ticket_id: &str, category: &str) -> Value {
    json!({
        "ticket_id": ticket_id,
        "ticket": {
            "id": ticket_id, "user_id": "user-uuid", "issue_text": "My computer is running very slow",
            "category": "device_slow", "priority": "medium"
        },
        "classification": {"category": category, "priority": "medium", "automation_possible": true, "confidence": 0.92}
    })
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns `data` of an answer that is not an error.
    pub(crate) fn data(&self) -> Value {
        self.data_of(StatusCode::OK)
    }

    /// Returns `data` of an answer with a status.
    pub(crate) fn data_of(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["success"], true, "{self:?}");
        assert!(body["message"].is_string(), "{self:?}");
        body["data"].clone()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"]
            .as_str()
            .expect("a message is a text")
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Checks that this is an error with the one body that every error has, and returns the body.
    pub(crate) fn error(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!(
            (self.status.as_u16(), body["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
        assert_eq!(body["success"], false);
        assert_eq!(body["status"], status);
        for field in ["error", "message", "type", "title", "detail", "request_id"] {
            assert!(
                body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {body}"
            );
        }
        assert!(body["errors"].is_array(), "{body}");
        assert_eq!(self.header("content-type"), Some(JSON));
        assert_eq!(self.header("x-request-id"), body["request_id"].as_str());
        body
    }

    pub(crate) fn pointers(&self) -> Vec<String> {
        let body = self.json();
        let errors = body["errors"].as_array().expect("errors is a list");
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect()
    }
}
