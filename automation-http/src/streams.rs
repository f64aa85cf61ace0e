//! How many streams of events are open: in all, and of each client. What is streamed is `routes::events`' business.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{ApiError, ApiResult};

/// When a client that was refused a stream may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How many streams of events may be open at once. Each holds a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamLimits {
    /// In all. Default 512, half of the connections.
    pub streams_max: usize,
    /// Of one client. Default 32.
    pub per_client_max: usize,
    /// How long one may be open; its client goes on with another, behind what it has. Default 30 minutes.
    pub time_max: Duration,
    /// How often a stream without news shows that it is alive: proxies close silent ones. Default 15 seconds.
    pub heartbeat: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            streams_max: 512,
            per_client_max: 32,
            time_max: Duration::from_secs(30 * 60),
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// The streams that are open.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) limits: StreamLimits,
    open: Mutex<HashMap<IpAddr, usize>>,
}

impl Streams {
    pub(crate) fn new(limits: StreamLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    /// Returns how many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().values().sum()
    }

    /// Counts a stream until the answer is dropped.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> ApiResult<OpenStream> {
        let mut open = self.open.lock();
        let (all, own) = (open.values().sum::<usize>(), open.get(&client).copied());
        let own = own.unwrap_or_default();
        if own >= self.limits.per_client_max {
            let detail = format!("this client has {own} streams of events open");
            return Err(ApiError::overloaded(detail, RETRY_AFTER));
        }
        if all >= self.limits.streams_max {
            let detail = format!("{all} streams of events are open");
            return Err(ApiError::overloaded(detail, RETRY_AFTER));
        }
        open.insert(client, own + 1);
        Ok(OpenStream {
            streams: Arc::clone(self),
            client,
        })
    }
}

/// One stream that is open.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: Arc<Streams>,
    client: IpAddr,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}
