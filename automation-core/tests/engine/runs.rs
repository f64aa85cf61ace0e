//! What a run is, from the request to its row.

use std::sync::Arc;
use std::time::Duration;

use automation_core::executor::{Ending, Failure, FnExecutor, Invocation};
use automation_core::storage::{ExecutionQuery, RecordKind};
use automation_core::{
    Automation, AutomationBuilder, BuildError, Classification, ErrorKind, ExecuteRequest,
    ManualRequest, Page, Reason, Script, ScriptRegistry, StatsQuery, Status, TenantId, TestRequest,
    Ticket, Trigger,
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::support::*;

#[tokio::test]
async fn a_ticket_runs_the_script_of_its_category_and_is_recorded() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        assert_eq!(
            invocation.ticket,
            Some(Arc::new(json!({ "id": "T-1", "user_id": "jdoe" })))
        );
        assert_eq!(
            Value::Object(invocation.parameters),
            json!({ "min_free_space_gb": 5, "dry_run": false })
        );
        printing("cleaning\n{\"space_freed_gb\": 2.5}\n")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let execution = automation
        .execute(ticket_request().with_actor("ana"))
        .await
        .unwrap();
    assert_eq!(execution.status, Status::Completed);
    assert_eq!(execution.script_name, "disk.py");
    assert_eq!(execution.ticket_id, "T-1");
    assert_eq!(execution.trigger, Trigger::Ticket);
    assert_eq!(execution.actor.as_deref(), Some("ana"));
    assert_eq!(
        execution.parsed_output,
        Some(json!({ "space_freed_gb": 2.5 }))
    );
    assert_eq!(
        automation.get(execution.id).await.unwrap(),
        execution,
        "the answer is the row"
    );
    assert_eq!(
        automation.logs("T-1", Page::default()).await.unwrap().items,
        [execution]
    );
    let stats = automation.stats(StatsQuery::default()).await.unwrap();
    assert_eq!(
        (stats.all.total, stats.all.successful, stats.open),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn p2_the_row_says_running_before_the_scripts_first_byte() {
    let storage = memory();
    let seen = Arc::clone(&storage);
    let executor = FnExecutor::new(move |invocation: Invocation| {
        let seen = Arc::clone(&seen);
        async move {
            let row = seen
                .get(&TenantId::default(), invocation.execution_id)
                .await
                .unwrap();
            assert_eq!(row.status, Status::Running);
            printing("")
        }
    });
    let automation = builder(executor, &storage)
        .executions_max(1)
        .build()
        .unwrap();
    // One at once and others that wait: both ways to the executor.
    let runs = (0..3).map(|_| {
        let automation = automation.clone();
        tokio::spawn(async move {
            automation
                .manual(ManualRequest::new("plain.py"))
                .await
                .unwrap()
        })
    });
    for run in runs.collect::<Vec<_>>() {
        assert_eq!(run.await.unwrap().status, Status::Completed);
    }
}

#[tokio::test]
async fn a_script_that_needs_an_approval_does_not_run_without_one() {
    let source =
        b"# /// script\n# [tool.automation]\n# category = \"Danger\"\n# risk = \"high\"\n# ///\n";
    let script = Script::parse("danger.py", source).unwrap();
    let automation = Automation::builder()
        .scripts(ScriptRegistry::from_scripts([script]))
        .executor(counting(&Arc::default()))
        .build()
        .unwrap();
    let error = automation
        .manual(ManualRequest::new("danger.py"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.to_string().contains("danger.py") && error.to_string().contains("approval"),
        "{error}"
    );
}

#[tokio::test]
async fn a_script_that_exits_with_a_failure_gives_its_own_reason() {
    for (result, error) in [
        (
            json!({"error": {"code": "x", "message": "no such user"}}),
            "no such user (exit code 1)",
        ),
        (
            json!({"error": "no such user"}),
            "no such user (exit code 1)",
        ),
        (json!({"error": {"code": 7}}), "exit code 1"),
        (json!({"ok": false}), "exit code 1"),
    ] {
        let storage = memory();
        let executor = FnExecutor::new(move |_| {
            let mut outcome = printing(result.to_string());
            outcome.ending = Ending::Failed(Failure::new(Reason::ExitCode, "exit code 1"));
            async { outcome }
        });
        let automation = builder(executor, &storage).build().unwrap();
        let execution = automation
            .manual(ManualRequest::new("plain.py"))
            .await
            .unwrap();
        assert_eq!(execution.error.as_deref(), Some(error));
    }
}

#[tokio::test]
async fn values_beyond_the_json_profile_are_refused_at_the_door() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let ticket = Ticket::new("T-1").with("deep", deep.clone());
    let request = ExecuteRequest::new(ticket, Classification::new("Device Slow"));
    let error = automation.execute(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    assert!(
        error.problems()[0].pointer.starts_with("/ticket/deep/0"),
        "{error}"
    );
    let parameters = Map::from_iter([("min_free_space_gb".to_owned(), deep)]);
    let request = ManualRequest::new("disk.py").with_parameters(parameters);
    assert_eq!(
        automation.manual(request).await.unwrap_err().kind(),
        ErrorKind::InvalidParameters
    );
}

#[tokio::test]
async fn a_version_is_stored_with_its_source_when_it_is_first_executed() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    for _ in 0..2 {
        automation.execute(ticket_request()).await.unwrap();
    }
    let script = automation.script("disk.py").unwrap();
    let record = storage
        .record(
            &TenantId::default(),
            RecordKind::ScriptVersion,
            script.version(),
        )
        .await
        .unwrap();
    let record = record.unwrap();
    assert_eq!(record.value, json!({ "name": "disk.py", "source": DISK }));
    assert_eq!(record.revision, 1);
}

#[tokio::test]
async fn a_test_is_a_dry_run_that_does_not_count() {
    let storage = memory();
    let executor = FnExecutor::new(|invocation: Invocation| async move {
        assert!(invocation.host.dry_run());
        assert_eq!(invocation.parameters["dry_run"], true);
        printing("")
    });
    let automation = builder(executor, &storage).build().unwrap();
    let execution = automation.test(TestRequest::default()).await.unwrap();
    assert_eq!(
        (execution.script_name.as_str(), execution.trigger),
        ("disk.py", Trigger::Test)
    );
    assert!(execution.dry_run);
    assert_eq!(
        automation
            .stats(StatsQuery::default())
            .await
            .unwrap()
            .all
            .total,
        0
    );
    let request = ManualRequest::new("plain.py").with_dry_run(true);
    assert_eq!(
        automation.manual(request).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn bad_requests_name_the_thing() {
    let storage = memory();
    let automation = builder(counting(&Arc::default()), &storage)
        .build()
        .unwrap();
    let mut not_possible = Classification::new("Device Slow");
    not_possible.automation_possible = false;
    let run = async |ticket: &str, classification| {
        automation
            .execute(ExecuteRequest::new(Ticket::new(ticket), classification))
            .await
            .unwrap_err()
    };
    let parameters = Map::from_iter([("min_free_space_gb".to_owned(), json!("5"))]);
    let wrong = ManualRequest::new("disk.py").with_parameters(parameters);
    let errors = [
        (
            run("T-1", not_possible).await,
            ErrorKind::AutomationNotPossible,
            "T-1",
        ),
        (
            run("T-1", Classification::new("Coffee")).await,
            ErrorKind::NoScriptForCategory,
            "Coffee",
        ),
        (
            run(" ", Classification::new("Device Slow")).await,
            ErrorKind::InvalidRequest,
            "/ticket_id",
        ),
        (
            run("T-1", Classification::new("")).await,
            ErrorKind::InvalidRequest,
            "/classification/category",
        ),
        (
            automation
                .manual(ManualRequest::new("x.py"))
                .await
                .unwrap_err(),
            ErrorKind::ScriptNotFound,
            "x.py",
        ),
        (
            automation.manual(wrong).await.unwrap_err(),
            ErrorKind::InvalidParameters,
            "/min_free_space_gb",
        ),
        (
            automation.logs("T-9", Page::default()).await.unwrap_err(),
            ErrorKind::TicketNotFound,
            "T-9",
        ),
    ];
    for (error, kind, names) in errors {
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(names), "{error}");
    }
    assert!(all(&storage).await.is_empty());
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let (storage, release) = (memory(), Arc::new(Notify::new()));
    let automation = builder(holding(&release), &storage).build().unwrap();
    let other = automation.for_tenant(TenantId::new("other"));
    let caller = other.clone();
    let run = tokio::spawn(async move { caller.execute(ticket_request()).await });
    let everybody = ExecutionQuery::default();
    let id = until(async || {
        let rows = storage.list(&everybody, &Page::default()).await.unwrap();
        rows.items.first().map(|row| row.id)
    })
    .await;
    assert_eq!(
        automation.get(id).await.unwrap_err().kind(),
        ErrorKind::ExecutionNotFound
    );
    assert_eq!(
        automation.cancel(id, None).await.unwrap_err().kind(),
        ErrorKind::ExecutionNotFound
    );
    assert!(automation.watch(id).await.is_err());
    release.notify_one();
    let execution = run.await.unwrap().unwrap();
    assert_eq!(
        execution.status,
        Status::Completed,
        "nobody else's cancel reached it"
    );
    assert_eq!(
        automation
            .stats(StatsQuery::default())
            .await
            .unwrap()
            .all
            .total,
        0
    );
    assert_eq!(other.get(id).await.unwrap(), execution);
}

#[test]
fn configuration_errors_surface_in_build() {
    let executor = || counting(&Arc::default());
    let no_runtime = Automation::builder()
        .scripts(scripts())
        .executor(executor())
        .build();
    assert!(matches!(no_runtime, Err(BuildError::NoRuntime)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let build = |builder: AutomationBuilder| {
        builder
            .runtime(runtime.handle().clone())
            .build()
            .unwrap_err()
            .to_string()
    };
    assert_eq!(build(Automation::builder()), "scripts is missing");
    assert_eq!(
        build(Automation::builder().scripts(scripts())),
        "executor is missing"
    );
    let full = || {
        Automation::builder()
            .scripts(scripts())
            .executor(executor())
    };
    assert_eq!(
        build(full().executions_max(0)),
        "executions_max is 0, 1 to 100000 are allowed"
    );
    assert!(build(full().executions_max(usize::MAX)).ends_with("1 to 100000 are allowed"));
    assert!(build(full().lease(Duration::MAX)).ends_with("1 second to 24 hours are allowed"));
    assert_eq!(
        build(full().lease(Duration::ZERO)),
        "lease is 0ns, 1 second to 24 hours are allowed"
    );
}
