//! Deduplicates loads (single flight): one thread loads a block, and the others that want it wait for its result.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Plain;
use crate::hash::BlockKey;
use crate::store::StoreError;

/// The longest wait for the loading thread: above the 30 s of a block fetch, with room for a slow disk.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The result of a load. A failure is shared too: the waiting threads would ask the same stores at the same time.
type Outcome = Result<Plain, Arc<StoreError>>;

/// The loads in progress, by block.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<BlockKey, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<FlightState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
enum FlightState {
    #[default]
    Running,
    Ended(Outcome),
    /// The loading thread panicked: a waiting thread loads the block itself.
    Lost,
}

impl Flights {
    /// Loads this block with `get`; if another thread is loading it, waits for that thread's result.
    ///
    /// `None` if the other thread has neither ended nor panicked within 60 s.
    pub(super) fn run(&self, key: BlockKey, get: impl Fn() -> Outcome) -> Option<Outcome> {
        loop {
            let (flight, leads) = self.join(key);
            if leads {
                // Ends the flight even if `get` panics.
                let mut finish = Finish { flights: self, key, flight: &flight, outcome: None };
                let outcome = get();
                finish.outcome = Some(outcome.clone());
                return Some(outcome);
            }
            let state = lock(&flight.state);
            let is_running = |state: &mut FlightState| matches!(state, FlightState::Running);
            let waited = flight.ended.wait_timeout_while(state, MAX_WAIT, is_running);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            match &*state {
                FlightState::Ended(outcome) => return Some(outcome.clone()),
                FlightState::Lost => {}
                FlightState::Running => return None,
            }
        }
    }

    /// Joins the flight of this block, or starts one.
    fn join(&self, key: BlockKey) -> (Arc<Flight>, bool) {
        let mut flights = lock(&self.0);
        match flights.get(&key) {
            Some(flight) => (Arc::clone(flight), false),
            None => {
                let flight = Arc::new(Flight::default());
                flights.insert(key, Arc::clone(&flight));
                (flight, true)
            }
        }
    }
}

/// Ends a flight when dropped.
struct Finish<'a> {
    flights: &'a Flights,
    key: BlockKey,
    flight: &'a Flight,
    outcome: Option<Outcome>,
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        // Remove it from the map first: a thread that comes now must start a new flight, not join the ended one.
        lock(&self.flights.0).remove(&self.key);
        *lock(&self.flight.state) = self.outcome.take().map_or(FlightState::Lost, FlightState::Ended);
        self.flight.ended.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single assignment or map operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
