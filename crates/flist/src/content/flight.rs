//! Single flight: of the threads that want one block, one gets it and the others wait for its result.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Plain;
use crate::hash::BlockKey;
use crate::store::StoreError;

/// How long a waiter believes in its leader: above the 30 s of a block fetch, with room for a slow disk.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What a flight ends with. A failure is shared too: whoever waited saw the same stores fail at the same time.
type Outcome = Result<Plain, Arc<StoreError>>;

/// The flights in the air, by block.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<BlockKey, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<FlightState>,
    landed: Condvar,
}

#[derive(Debug, Default)]
enum FlightState {
    #[default]
    InAir,
    Landed(Outcome),
    /// The leader panicked: a waiter flies itself.
    Lost,
}

impl Flights {
    /// Runs `get` for this block, unless another thread is at it: then waits for that one's outcome.
    ///
    /// `None` if the other thread has neither ended nor panicked within 60 s.
    pub(super) fn run(&self, key: BlockKey, get: impl Fn() -> Outcome) -> Option<Outcome> {
        loop {
            let (flight, leads) = self.board(key);
            if leads {
                // Clears the way even if `get` panics.
                let mut landing = Landing { flights: self, key, flight: &flight, outcome: None };
                let outcome = get();
                landing.outcome = Some(outcome.clone());
                return Some(outcome);
            }
            let state = lock(&flight.state);
            let in_air = |state: &mut FlightState| matches!(state, FlightState::InAir);
            let waited = flight.landed.wait_timeout_while(state, MAX_WAIT, in_air);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            match &*state {
                FlightState::Landed(outcome) => return Some(outcome.clone()),
                FlightState::Lost => {}
                FlightState::InAir => return None,
            }
        }
    }

    /// Joins the flight of this block, or starts it.
    fn board(&self, key: BlockKey) -> (Arc<Flight>, bool) {
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
struct Landing<'a> {
    flights: &'a Flights,
    key: BlockKey,
    flight: &'a Flight,
    outcome: Option<Outcome>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        // First out of the map, so that whoever comes now starts anew instead of joining what has ended.
        lock(&self.flights.0).remove(&self.key);
        *lock(&self.flight.state) = self.outcome.take().map_or(FlightState::Lost, FlightState::Landed);
        self.flight.landed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single assignment or map operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
