//! Which connections are open: how many each address has, and which of them do nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Network;
use crate::serve::ConnectionLimits;

/// Counts the connections of each address.
#[derive(Debug)]
pub(crate) struct ByAddress {
    counts: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
    exempt: Vec<Network>,
}

impl ByAddress {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            counts: Mutex::default(),
            max: limits.per_address_max,
            exempt: limits.trusted_proxies,
        }
    }

    /// Counts a connection until the answer is dropped; `None` when its address has too many.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_default();
        let exempt =
            address.is_loopback() || self.exempt.iter().any(|network| network.contains(address));
        if *count >= self.max && !exempt {
            return None;
        }
        *count += 1;
        Some(Counted {
            by_address: Arc::clone(self),
            address,
        })
    }
}

/// One counted connection.
#[derive(Debug)]
pub(crate) struct Counted {
    by_address: Arc<ByAddress>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.by_address.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The connections that have no request in work, in the order in which they became so. When there is no place
/// for a new connection the first of them is closed: whoever opens many and says nothing gives way to whoever
/// has something to ask.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Arc<Notify>>,
}

impl Idle {
    /// Closes the connection that has done nothing for the longest time, if there is one.
    pub(crate) fn close_first(&self) {
        if let Some((_, close)) = self.0.lock().waiting.pop_first() {
            close.notify_one();
        }
    }

    fn join(&self, close: &Arc<Notify>) -> u64 {
        let mut line = self.0.lock();
        line.next += 1;
        let number = line.next;
        line.waiting.insert(number, Arc::clone(close));
        number
    }

    fn leave(&self, number: u64) {
        self.0.lock().waiting.remove(&number);
    }
}

/// One connection's place among the idle ones.
#[derive(Debug)]
pub(crate) struct Idler {
    idle: Arc<Idle>,
    close: Arc<Notify>,
    place: Mutex<PlaceInLine>,
}

#[derive(Debug)]
struct PlaceInLine {
    /// Requests and answers that are in work.
    works: usize,
    /// `None` while any is.
    number: Option<u64>,
}

impl Idler {
    /// Takes the last place of the line.
    pub(crate) fn new(idle: &Arc<Idle>) -> Self {
        let close = Arc::new(Notify::new());
        let number = Some(idle.join(&close));
        Self {
            idle: Arc::clone(idle),
            close,
            place: Mutex::new(PlaceInLine { works: 0, number }),
        }
    }

    /// Leaves the line while `request` is in work, and takes its last place afterwards.
    pub(crate) async fn busy_while<T>(&self, request: impl Future<Output = T>) -> T {
        self.begin();
        let answer = request.await;
        self.end();
        answer
    }

    /// Keeps the connection out of the line until the answer is dropped.
    pub(crate) fn work(self: &Arc<Self>) -> Work {
        self.begin();
        Work(Arc::clone(self))
    }

    /// Waits until the connection is to be closed. One that got a request after it was picked stays open, and
    /// the next in line is picked instead.
    pub(crate) async fn closed(&self) {
        self.close.notified().await;
        while self.place.lock().number.is_none() {
            self.idle.close_first();
            self.close.notified().await;
        }
    }

    fn begin(&self) {
        let mut place = self.place.lock();
        place.works += 1;
        if let Some(number) = place.number.take() {
            self.idle.leave(number);
        }
    }

    fn end(&self) {
        let mut place = self.place.lock();
        place.works -= 1;
        if place.works == 0 {
            place.number = Some(self.idle.join(&self.close));
        }
    }
}

/// An answer that is still being given.
#[derive(Debug)]
pub(crate) struct Work(Arc<Idler>);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        if let Some(number) = self.place.get_mut().number.take() {
            self.idle.leave(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use std::time::Duration;

    use super::{ByAddress, Idle, Idler};
    use crate::serve::ConnectionLimits;

    async fn is_closed(idler: &Idler) -> bool {
        tokio::time::timeout(Duration::ZERO, idler.closed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn the_longest_idle_connection_gives_way_and_a_busy_one_never() {
        let idle = Arc::new(Idle::default());
        let [first, second, third] = [(); 3].map(|()| Idler::new(&idle));
        first
            .busy_while(async {
                idle.close_first();
                assert!(is_closed(&second).await && !is_closed(&first).await);
            })
            .await;
        drop(second);
        idle.close_first();
        assert!(
            is_closed(&third).await && !is_closed(&first).await,
            "the first was busy last"
        );
        drop(third);
        idle.close_first();
        assert!(is_closed(&first).await);
        drop(first);
        idle.close_first();
        assert!(idle.0.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn a_connection_that_was_picked_and_then_asks_stays_open() {
        let idle = Arc::new(Idle::default());
        let [first, second] = [(); 2].map(|()| Idler::new(&idle));
        idle.close_first();
        first
            .busy_while(async {
                assert!(!is_closed(&first).await);
                assert!(is_closed(&second).await, "the next one gives way");
            })
            .await;
        assert!(!is_closed(&first).await);
    }

    #[tokio::test]
    async fn a_connection_is_busy_as_long_as_its_answer_is_given() {
        let idle = Arc::new(Idle::default());
        let first = Arc::new(Idler::new(&idle));
        let answer = first.busy_while(async { first.work() }).await;
        assert!(idle.0.lock().waiting.is_empty());
        drop(answer);
        idle.close_first();
        assert!(is_closed(&first).await);
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let proxy = "10.0.0.1".parse().unwrap();
        let limits = ConnectionLimits {
            per_address_max: 2,
            trusted_proxies: vec![proxy],
            ..ConnectionLimits::default()
        };
        let counts = Arc::new(ByAddress::new(limits));
        let client = "192.0.2.1".parse().unwrap();
        let held = [counts.enter(client), counts.enter(client)];
        assert!(held.iter().all(Option::is_some));
        assert!(counts.enter(client).is_none());
        assert!(counts.enter("192.0.2.2".parse().unwrap()).is_some());
        drop(held);
        assert!(counts.enter(client).is_some());
        for exempt in ["127.0.0.1", "::1", "10.0.0.1", "::ffff:127.0.0.1"] {
            let held: Vec<_> = (0..5)
                .map(|_| counts.enter(exempt.parse().unwrap()))
                .collect();
            assert!(held.iter().all(Option::is_some), "{exempt}");
        }
        assert!(
            counts.counts.lock().is_empty(),
            "nothing is remembered of those who left"
        );
    }
}
