//! Idempotency over two servers on one database.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use automation_core::executor::{Ending, FnExecutor, Outcome};
use automation_core::{Automation, ManualRequest, Script, ScriptRegistry};

use crate::cluster::shared;
use crate::rows::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_identical_requests_at_once_to_two_servers_one_executes() {
    let (database, runs) = (shared().empty(), Arc::new(AtomicUsize::new(0)));
    let mut servers = Vec::new();
    for _ in 0..2 {
        let count = Arc::clone(&runs);
        let executor = FnExecutor::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Outcome::new(Ending::Completed)
            }
        });
        let script = Script::parse("plain.py", b"").unwrap();
        let automation = Automation::builder()
            .scripts(ScriptRegistry::from_scripts([script]))
            .executor(executor)
            .storage(open(&database).await)
            .build()
            .unwrap();
        servers.push(automation);
    }
    let asked = (0..64).map(|n| {
        let automation = servers[n % 2].clone();
        let request = ManualRequest::new("plain.py").with_idempotency_key("once");
        tokio::spawn(async move { automation.manual(request).await })
    });
    let asked: Vec<_> = asked.collect();
    let mut ids = HashSet::new();
    for answer in asked {
        ids.insert(answer.await.unwrap().unwrap().id);
    }
    assert_eq!((ids.len(), runs.load(Ordering::SeqCst)), (1, 1));
}
