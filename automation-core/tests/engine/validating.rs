//! Sources that nobody vouches for: looked at where that harms nobody first, and few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use automation_core::executor::{
    CancelToken, Executor, ExecutorCapabilities, ExecutorError, ExecutorHealth, FnExecutor,
    Inspection, Invocation, LimitPolicy, Outcome,
};
use automation_core::limits::{VALIDATION_WAIT_MAX, VALIDATIONS_MAX};
use automation_core::script::Diagnostic;
use automation_core::{Automation, ErrorKind, ManualRequest, Script};
use parking_lot::{Mutex, MutexGuard};

use crate::support::*;

/// What an executor was asked to look at.
#[derive(Debug, Default)]
struct Looks {
    inspected: AtomicUsize,
    /// Held by a test while nothing may be looked at.
    may_look: Mutex<()>,
}

/// An executor that objects to the source `bomb`.
#[derive(Debug)]
struct Looking {
    inner: FnExecutor,
    looks: Arc<Looks>,
}

impl Looking {
    fn new(looks: &Arc<Looks>) -> Self {
        Self {
            inner: counting(&Arc::default()),
            looks: Arc::clone(looks),
        }
    }
}

#[async_trait]
impl Executor for Looking {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }

    async fn execute(
        &self,
        invocation: Invocation,
        cancel: CancelToken,
    ) -> Result<Outcome, ExecutorError> {
        self.inner.execute(invocation, cancel).await
    }

    fn inspect(&self, script: &Script) -> Result<Inspection, ExecutorError> {
        self.looks.inspected.fetch_add(1, Ordering::SeqCst);
        drop(self.looks.may_look.lock());
        self.inner.inspect(script)
    }

    fn probe(&self, script: &Script) -> Result<Option<Diagnostic>, ExecutorError> {
        let is_bomb = &**script.source() == "bomb";
        Ok(is_bomb.then(|| Diagnostic::error(script.name(), "it explodes")))
    }

    async fn health(&self) -> ExecutorHealth {
        self.inner.health().await
    }

    async fn shutdown(&self, grace: Duration) -> Result<(), ExecutorError> {
        self.inner.shutdown(grace).await
    }
}

fn looking(looks: &Arc<Looks>) -> Automation {
    let automation = Automation::builder()
        .scripts(scripts())
        .executor(Looking::new(looks))
        .isolated_executor(Looking::new(&Arc::default()))
        .build()
        .unwrap();
    looks.inspected.store(0, Ordering::SeqCst);
    automation
}

#[tokio::test]
async fn a_source_that_would_crash_the_process_is_not_inspected_in_it() {
    let looks = Arc::default();
    let automation = looking(&looks);
    let found = automation.validate("x.py", "bomb").await.unwrap();
    assert!(!found.is_valid());
    assert_eq!(found.diagnostics[0].to_string(), "x.py: it explodes");
    assert_eq!(looks.inspected.load(Ordering::SeqCst), 0);
    assert!(
        automation
            .validate("x.py", "pass")
            .await
            .unwrap()
            .is_valid()
    );
    assert_eq!(looks.inspected.load(Ordering::SeqCst), 1);
}

#[expect(
    clippy::await_holding_lock,
    reason = "the others wait for it on threads of their own"
)]
#[tokio::test]
async fn few_sources_are_looked_at_at_once_and_the_others_wait_for_a_bounded_time() {
    let looks: Arc<Looks> = Arc::default();
    let automation = looking(&looks);
    let held: MutexGuard<'_, ()> = looks.may_look.lock();
    let validate = || {
        let automation = automation.clone();
        tokio::spawn(async move { automation.validate("x.py", "pass").await })
    };
    let first: Vec<_> = (0..VALIDATIONS_MAX).map(|_| validate()).collect();
    let looked_at = || looks.inspected.load(Ordering::SeqCst);
    until(async || (looked_at() == VALIDATIONS_MAX).then_some(())).await;
    tokio::time::pause();
    let refused = validate();
    tokio::task::yield_now().await;
    tokio::time::advance(VALIDATION_WAIT_MAX / 2).await;
    let patient = validate();
    tokio::task::yield_now().await;
    // Timers are exact to the millisecond, rounded up.
    tokio::time::advance(VALIDATION_WAIT_MAX / 2 + Duration::from_millis(2)).await;
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
    assert!(error.retry_after().is_some());
    assert_eq!(looked_at(), VALIDATIONS_MAX, "the others wait");
    drop(held);
    for one in first.into_iter().chain([patient]) {
        assert!(one.await.unwrap().unwrap().is_valid());
    }
}

#[tokio::test]
async fn the_builders_policy_is_what_a_run_is_handed() {
    let seen = Arc::new(Mutex::new(None));
    let executor = FnExecutor::new({
        let seen = Arc::clone(&seen);
        move |invocation| {
            *seen.lock() = Some((invocation.limits, invocation.host.deadline()));
            async { printing("{}") }
        }
    });
    let mut policy = LimitPolicy::default();
    policy.defaults.memory_bytes = 64 << 20;
    policy.ceilings.timeout = Some(Duration::from_secs(30));
    let automation = builder(executor, &memory()).limits(policy).build().unwrap();
    let before = std::time::Instant::now();
    automation
        .manual(ManualRequest::new("disk.py"))
        .await
        .unwrap();
    let (limits, deadline) = seen.lock().take().unwrap();
    assert_eq!(
        (limits.timeout.as_secs(), limits.memory_bytes),
        (30, 64 << 20)
    );
    assert_eq!(
        limits,
        automation.limits(&automation.script("disk.py").unwrap())
    );
    assert!(
        deadline.unwrap() < before + Duration::from_secs(59),
        "its host says the same"
    );

    policy.ceilings.timeout = Some(Duration::ZERO);
    let refused = builder(counting(&Arc::default()), &memory()).limits(policy);
    let error = refused.build().unwrap_err().to_string();
    assert!(error.starts_with("limits is 0ns, "), "{error}");
}
