//! The one table of routes: the router is made from it, and so is all that has to know every route.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, on};

use super::{
    Shared, events, execute, executions, health, logs, manual, metrics, output, python_check,
    release, retry, scripts, stats, test, validate,
};

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// `{name}` stands for one segment.
    pub(crate) path: &'static str,
    /// Whether its requests count against their client's rate limit.
    pub(super) is_limited: bool,
    pub(super) handler: MethodRouter<Shared>,
}

/// Returns every route. Paths of the same shape stand together, since they share a line of the router.
pub(crate) fn table() -> Vec<Route> {
    vec![
        post("/api/automation/execute", execute::execute).limited(),
        post("/api/automation/manual", manual::manual).limited(),
        post("/api/automation/test", test::test).limited(),
        get("/api/automation/executions", executions::list),
        get("/api/automation/executions/{id}", executions::get),
        post("/api/automation/executions/{id}/cancel", executions::cancel),
        post("/api/automation/executions/{id}/retry", retry::retry).limited(),
        get("/api/automation/executions/{id}/output", output::output),
        get("/api/automation/executions/{id}/events", events::events),
        get("/api/automation/logs/{ticket_id}", logs::logs),
        get("/api/automation/stats", stats::stats),
        get("/api/automation/scripts", scripts::scripts),
        get("/api/automation/scripts/{name}", scripts::script),
        post("/api/automation/scripts/{name}/release", release::release).limited(),
        post("/api/automation/scripts/validate", validate::validate).limited(),
        get("/api/automation/python/check", python_check::python_check),
        get("/api/health", health::health),
        get("/health", health::health),
        get("/health/live", health::live),
        get("/health/ready", health::ready),
        get("/metrics", metrics::metrics),
    ]
}

fn get<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route::new(Method::GET, path, handler)
}

fn post<H: Handler<T, Shared>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route::new(Method::POST, path, handler)
}

impl Route {
    fn new<H: Handler<T, Shared>, T: 'static>(
        method: Method,
        path: &'static str,
        handler: H,
    ) -> Self {
        let filter = method
            .clone()
            .try_into()
            .expect("every method of the table is a common one");
        Self {
            method,
            path,
            is_limited: false,
            handler: on(filter, handler),
        }
    }

    /// Counts its requests against their client's rate limit: they cost a run, or as much.
    const fn limited(mut self) -> Self {
        self.is_limited = true;
        self
    }
}
