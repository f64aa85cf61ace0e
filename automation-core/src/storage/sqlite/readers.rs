//! The connections that read: few, opened when needed, used where blocking is allowed.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::connection::open_reader;
use super::error::{BACKEND, Failure};
use super::place::Place;
use crate::storage::StorageError;

/// Connections at most: each holds a cache, and reads are short.
const READERS_MAX: usize = 4;
/// Prepared statements that a connection keeps: the reads have few forms.
const STATEMENTS_MAX: usize = 32;

/// A small pool.
#[derive(Debug)]
pub(super) struct Readers {
    place: Arc<Place>,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// Creates a pool without connections.
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self {
            place,
            places: Arc::new(Semaphore::new(READERS_MAX)),
            idle: Arc::default(),
        }
    }

    /// Reads on a connection of its own. Dropping the future leaves the read to itself.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StorageError> {
        let places = Arc::clone(&self.places);
        let place = places
            .acquire_owned()
            .await
            .map_err(|_| StorageError::Closed)?;
        let (idle, file) = (Arc::clone(&self.idle), Arc::clone(&self.place));
        let work = move || {
            file.check()?;
            let kept = idle.lock().pop();
            let mut connection = kept.map_or_else(|| open(file.path()), Ok)?;
            let answer = read(&mut connection)?;
            idle.lock().push(connection);
            drop(place);
            Ok::<_, Failure>(answer)
        };
        let answer = tokio::task::spawn_blocking(work).await;
        let answer = answer.map_err(|error| StorageError::Backend {
            backend: BACKEND,
            source: Box::new(error),
        })?;
        answer.map_err(|failure| self.place.told(failure))
    }

    /// Refuses further reads, waits for those before and closes the connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS_MAX).expect("the pool is small");
        // Nobody else takes all places, so this waits for the reads that run and for no more.
        let all = self.places.acquire_many(all).await;
        self.places.close();
        self.idle.lock().clear();
        drop(all);
    }
}

fn open(path: &std::path::Path) -> Result<Connection, Failure> {
    let connection = open_reader(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}
