//! The connections of a store: kept for reuse, dropped after a fault, at most four at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::failure::{Fault, ZdbFailure};
use super::wire::Connection;
use crate::clock::Deadline;

/// The most connections at once. A 0-db answers on one thread; four connections keep it and the network busy, with one block
/// each. A thousand nodes that start together make four thousand connections, which a 0-db can hold.
const MAX_CONNECTIONS: usize = 4;

/// Lends each connection to one reader.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that are not lent, the last used at the end.
    kept: Vec<Connection>,
    /// The number of connections that are lent or being made.
    lent: usize,
}

/// The right to use one connection.
pub(super) enum Lease<'a> {
    /// A connection used before, which may be broken.
    Kept(Lent<'a>),
    /// A connection that is still to be made.
    New(Slot<'a>),
}

/// The right to one of the four connections; returned when dropped.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
}

/// A lent connection.
pub(super) struct Lent<'a> {
    connection: Connection,
    slot: Slot<'a>,
}

impl Pool {
    /// Waits for a connection, a kept one if possible.
    pub(super) fn lease(&self, deadline: Deadline) -> Result<Lease<'_>, Fault> {
        let mut state = self.wait(deadline)?;
        state.lent += 1;
        let slot = Slot { pool: self };
        Ok(match state.kept.pop() {
            Some(connection) => Lease::Kept(Lent { connection, slot }),
            None => Lease::New(slot),
        })
    }

    /// Waits for the right to make a new connection.
    pub(super) fn lease_new(&self, deadline: Deadline) -> Result<Lease<'_>, Fault> {
        let mut state = self.wait(deadline)?;
        state.lent += 1;
        // Another reader may have returned a connection; the total must not exceed four.
        while state.kept.len() + state.lent > MAX_CONNECTIONS && state.kept.pop().is_some() {}
        Ok(Lease::New(Slot { pool: self }))
    }

    /// Closes the connections that are not lent.
    pub(super) fn forget_kept(&self) {
        self.lock().kept.clear();
    }

    fn wait(&self, deadline: Deadline) -> Result<MutexGuard<'_, State>, Fault> {
        let full = |state: &mut State| state.lent >= MAX_CONNECTIONS;
        let waited = self.freed.wait_timeout_while(self.lock(), deadline.remaining(), full);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() { Err(Fault::Failure(ZdbFailure::Busy)) } else { Ok(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.pool.lock().lent -= 1;
        self.pool.freed.notify_one();
    }
}

impl<'a> Lease<'a> {
    /// Makes the connection, if it is a new one.
    pub(super) fn connect(self, make: impl FnOnce() -> Result<Connection, Fault>) -> Result<Lent<'a>, Fault> {
        match self {
            Self::Kept(lent) => Ok(lent),
            Self::New(slot) => Ok(Lent { connection: make()?, slot }),
        }
    }
}

impl Lent<'_> {
    /// Runs a step on the connection, and keeps it if it can be used again.
    pub(super) fn run<T>(self, step: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let Self { mut connection, slot } = self;
        let outcome = step(&mut connection);
        if matches!(outcome, Ok(_) | Err(Fault::Answer(_))) {
            // Return it while the slot is still held: otherwise a fifth connection could be made in between.
            slot.pool.lock().kept.push(connection);
        }
        outcome
    }
}
