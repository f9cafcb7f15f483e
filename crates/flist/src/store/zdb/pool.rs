//! The few connections of a store: kept for reuse, thrown away after a fault, never more than four at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::failure::{Fault, ZdbFailure};
use super::wire::Connection;
use crate::clock::Deadline;

/// Connections at once. A 0-db answers from one thread; four keep it and the line busy (a block each under way), and
/// a thousand nodes that start together are then four thousand connections, which it can hold.
const MAX_CONNECTIONS: usize = 4;

/// Lends connections to one reader each.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that are not lent, the one used last at the end.
    kept: Vec<Connection>,
    /// Connections that are lent or being made.
    lent: usize,
}

/// The right to one connection.
pub(super) enum Lease<'a> {
    /// One that was used before, and may have died meanwhile.
    Kept(Lent<'a>),
    /// One that is still to be made.
    New(Slot<'a>),
}

/// The place of one connection among the four; given back when dropped.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
}

/// A lent connection.
pub(super) struct Lent<'a> {
    connection: Connection,
    slot: Slot<'a>,
}

impl Pool {
    /// Waits for a connection, a kept one if there is any.
    pub(super) fn lease(&self, deadline: Deadline) -> Result<Lease<'_>, Fault> {
        let mut state = self.wait(deadline)?;
        state.lent += 1;
        let slot = Slot { pool: self };
        Ok(match state.kept.pop() {
            Some(connection) => Lease::Kept(Lent { connection, slot }),
            None => Lease::New(slot),
        })
    }

    /// Waits for the right to make a new one.
    pub(super) fn lease_new(&self, deadline: Deadline) -> Result<Lease<'_>, Fault> {
        let mut state = self.wait(deadline)?;
        state.lent += 1;
        // Another reader may have given one back; together they may not be more than four.
        while state.kept.len() + state.lent > MAX_CONNECTIONS && state.kept.pop().is_some() {}
        Ok(Lease::New(Slot { pool: self }))
    }

    /// Closes those that are not lent.
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
    /// Makes the connection, unless it is there.
    pub(super) fn connect(self, make: impl FnOnce() -> Result<Connection, Fault>) -> Result<Lent<'a>, Fault> {
        match self {
            Self::Kept(lent) => Ok(lent),
            Self::New(slot) => Ok(Lent { connection: make()?, slot }),
        }
    }
}

impl Lent<'_> {
    /// Uses it, and keeps it if it is still in step afterwards.
    pub(super) fn run<T>(self, step: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let Self { mut connection, slot } = self;
        let outcome = step(&mut connection);
        if matches!(outcome, Ok(_) | Err(Fault::Answer(_))) {
            // While the slot is still taken: nobody may make a fifth in between.
            slot.pool.lock().kept.push(connection);
        }
        outcome
    }
}
