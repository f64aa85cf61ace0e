//! `GET /automation/executions/:id/events`: a run as it happens, as server-sent events.
//!
//! What a run reports has its number as the event's id, so that `Last-Event-ID` resumes behind it, from the storage.
//! `status`, `result` and `end` are derived from the row; `end` is the last one, and who has it is told so by 204.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;

use automation_core::{Automation, Event, ExecutionId, Update, Watch};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde::Serialize;

use super::Shared;
use super::parameters::{self, PathResult, refused};
use crate::client::client;
use crate::connections::Work;
use crate::dto::{EndDto, EventDto, ResultDto, StatusDto};
use crate::error::{ApiResult, shortened};
use crate::serve::Connection;
use crate::streams::{OpenStream, StreamLimits};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// nginx would collect events until a buffer is full.
const UNBUFFERED: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-accel-buffering"),
    HeaderValue::from_static("no"),
);
/// The id of the last event.
const END: &str = "end";

pub(super) async fn events(
    State(shared): State<Shared>,
    id: PathResult,
    request: Request,
) -> ApiResult<Response> {
    let id = parameters::execution_id(id)?;
    let Some(seq) = resumes_behind(request.headers())? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let trusted = &shared.config.trusted_proxies;
    let client = client(request.extensions(), request.headers(), trusted);
    let open = shared.streams.enter(client)?;
    let connection = request.extensions().get::<Connection>().cloned();
    let limits = shared.streams.limits;
    let told = Told::new(&shared.automation, id, seq, open, connection, limits).await?;
    let heartbeat = KeepAlive::new().interval(limits.heartbeat);
    let events = Sse::new(told.stream()).keep_alive(heartbeat);
    Ok(([UNBUFFERED], events).into_response())
}

/// Returns the number of the last event that the client has, 0 for none; `None` when it has the end.
fn resumes_behind(headers: &HeaderMap) -> ApiResult<Option<u32>> {
    let Some(last) = headers.get(LAST_EVENT_ID) else {
        return Ok(Some(0));
    };
    let last = last.to_str().unwrap_or_default();
    if last == END {
        return Ok(None);
    }
    let expected = || format!("is {:?}, an id of this stream is expected", shortened(last));
    let number = last
        .parse()
        .map_err(|_| refused("/last-event-id", expected()));
    number.map(Some)
}

/// One client's view of a run.
struct Told {
    watch: Watch,
    /// What is to be told next.
    next: VecDeque<sse::Event>,
    is_over: bool,
    /// Ends when the stream has to.
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    _open: OpenStream,
    _work: Option<Work>,
}

impl Told {
    async fn new(
        automation: &Automation,
        id: ExecutionId,
        seq: u32,
        open: OpenStream,
        connection: Option<Connection>,
        limits: StreamLimits,
    ) -> ApiResult<Self> {
        let work = connection.as_ref().map(Connection::work);
        let stop = async move {
            let too_old = tokio::time::sleep(limits.time_max);
            match connection {
                None => too_old.await,
                Some(connection) => tokio::select! {
                    () = too_old => {}
                    () = connection.stops() => {}
                },
            }
        };
        Ok(Self {
            watch: automation.watch(id).await?.with_status().after(seq),
            next: VecDeque::new(),
            is_over: false,
            stop: Box::pin(stop),
            _open: open,
            _work: work,
        })
    }

    /// Returns the events. Nothing is read ahead: a client that does not read holds what it has not read.
    fn stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
        unfold(self, |mut told| async {
            let event = told.next().await?;
            Some((Ok(event), told))
        })
    }

    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.next.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let update = tokio::select! {
                update = self.watch.next() => update,
                () = &mut self.stop => return None,
            };
            match update {
                Ok(Some(update)) => self.tell(update),
                Ok(None) => self.is_over = true,
                // The client comes back and goes on behind what it has.
                Err(error) => {
                    tracing::warn!(%error, "a stream of events broke off");
                    return None;
                }
            }
        }
    }

    fn tell(&mut self, update: Update) {
        match update {
            Update::Event(event) => self.next.push_back(reported(event)),
            Update::Status(execution) => {
                let status = event("status", &StatusDto::from(&*execution));
                self.next.push_back(status);
            }
            Update::Ended(execution) => {
                self.is_over = true;
                let end = event("end", &EndDto::from(&*execution)).id(END);
                let status = event("status", &StatusDto::from(&*execution));
                let result = event("result", &ResultDto::from(*execution));
                self.next.extend([status, result, end]);
            }
            other => tracing::warn!(?other, "an update has no form for clients"),
        }
    }
}

fn reported(reported: Event) -> sse::Event {
    let id = reported.seq.to_string();
    event(reported.kind.as_str(), &EventDto::from(reported)).id(id)
}

fn event(name: &str, data: &impl Serialize) -> sse::Event {
    let data =
        serde_json::to_string(data).expect("events have only texts, numbers and JSON values");
    sse::Event::default().event(name).data(data)
}
