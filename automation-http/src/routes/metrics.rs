//! `GET /metrics`: what the process counts and sees of itself, in Prometheus' text format.

use automation_core::metrics::{DURATION_BOUNDS_US, Metrics, ScriptMetrics};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};

use super::Shared;
use crate::exposition::{Exposition, Kind};

const TEXT: (HeaderName, HeaderValue) = (
    header::CONTENT_TYPE,
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
);

pub(super) async fn metrics(
    State(shared): State<Shared>,
) -> ([(HeaderName, HeaderValue); 1], String) {
    let metrics = shared.automation.metrics().await;
    let mut page = Exposition::default();
    ends(&mut page, &metrics);
    durations(&mut page, &metrics);
    sums(&mut page, &metrics);
    state(&mut page, &metrics);
    let streams = shared.streams.open();
    page.family(
        "automation_event_streams",
        Kind::Gauge,
        "Streams of events that are open.",
    );
    page.sample("", &[], streams);
    ([TEXT], page.text())
}

fn ends(page: &mut Exposition, metrics: &Metrics) {
    page.family(
        "automation_runs_total",
        Kind::Counter,
        "Runs that ended, tests among them.",
    );
    for (script, counts) in &metrics.scripts {
        for ends in &counts.ends {
            let reason = ends.reason.map_or("", automation_core::Reason::as_str);
            let labels = [
                ("script", script.as_str()),
                ("status", ends.status.as_str()),
                ("reason", reason),
            ];
            page.sample("", &labels, ends.runs);
        }
    }
}

fn durations(page: &mut Exposition, metrics: &Metrics) {
    page.family(
        "automation_run_duration_seconds",
        Kind::Histogram,
        "Length of runs that began.",
    );
    for (script, counts) in &metrics.scripts {
        let mut within = 0;
        let bounds = DURATION_BOUNDS_US.iter().map(|us| seconds(*us).to_string());
        let bounds = bounds.chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(counts.durations.counts) {
            within += count;
            page.sample("_bucket", &[("script", script), ("le", &bound)], within);
        }
        page.sample(
            "_sum",
            &[("script", script)],
            seconds(counts.durations.sum_us),
        );
        page.sample("_count", &[("script", script)], within);
    }
}

/// A metric of every script: its name, sort and help, and how it is read.
type Sum = (&'static str, Kind, &'static str, fn(&ScriptMetrics) -> f64);

const SUMS: [Sum; 4] = [
    (
        "automation_run_queue_seconds_total",
        Kind::Counter,
        "Time that runs waited for a worker.",
        |counts| seconds(counts.queue_us),
    ),
    (
        "automation_run_cpu_seconds_total",
        Kind::Counter,
        "Processor time of runs where it was measured.",
        |counts| seconds(counts.cpu_us),
    ),
    (
        "automation_run_output_bytes_total",
        Kind::Counter,
        "Bytes that runs wrote to both streams.",
        |counts| whole(counts.output_bytes),
    ),
    (
        "automation_run_memory_peak_bytes",
        Kind::Gauge,
        "Largest memory use of a run since the start.",
        |counts| whole(counts.memory_peak_bytes),
    ),
];

fn sums(page: &mut Exposition, metrics: &Metrics) {
    for (name, kind, help, read) in SUMS {
        page.family(name, kind, help);
        for (script, counts) in &metrics.scripts {
            page.sample("", &[("script", script)], read(counts));
        }
    }
}

fn state(page: &mut Exposition, metrics: &Metrics) {
    let health = &metrics.health;
    let oldest = metrics.oldest_run.map_or(0.0, |age| age.as_secs_f64());
    let threads = health.executor.quarantined_threads;
    for (name, help, value) in [
        (
            "automation_ready",
            "Whether runs can be accepted and executed.",
            f64::from(health.is_ready()),
        ),
        (
            "automation_running",
            "Runs that are dispatched.",
            count(health.running),
        ),
        (
            "automation_queued",
            "Runs that wait to be dispatched.",
            count(health.queued),
        ),
        (
            "automation_oldest_run_seconds",
            "Time since the oldest run in hand was accepted, 0 without one.",
            oldest,
        ),
        (
            "automation_spooled_ends",
            "Ends that the storage has not taken yet.",
            count(health.spooled),
        ),
        (
            "automation_workers",
            "Worker threads.",
            count(health.executor.workers),
        ),
        (
            "automation_workers_busy",
            "Worker threads that execute a script.",
            count(health.executor.busy),
        ),
        (
            "automation_abandoned_threads",
            "Threads whose script could not be stopped.",
            count(threads),
        ),
        (
            "automation_quarantined_versions",
            "Script versions that are kept out of the process.",
            count(health.quarantined.len()),
        ),
    ] {
        page.family(name, Kind::Gauge, help);
        page.sample("", &[], value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
const fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
const fn whole(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
const fn count(number: usize) -> f64 {
    number as f64
}
