//! Chooses the stores for a block by the first byte of its id, and goes on to the next one until a copy verifies.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::http::ATTEMPT_TIMEOUT;
use super::{BlockStore, RoutePolicy, StoreError, connect};
use crate::block;
use crate::clock::Deadline;
use crate::hash::{BlockId, BlockRef};
use crate::metadata::Route;

/// The longest that fetching one block may take over all stores and attempts. A reader is waiting in the kernel.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How often each store is asked for one block while its failures look transient.
const MAX_ROUNDS: u32 = 3;

/// The pause before the second round; it doubles for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long a store that did not answer is asked last and only once per block, so that readers do not queue up on it.
const REST: Duration = Duration::from_secs(2);

/// The values of `id[0]` that a store serves, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u8,
    pub(crate) end: u8,
}

impl Range {
    pub(crate) fn covers(self, id: &BlockId) -> bool {
        id.as_bytes().first().is_some_and(|first| (self.start..=self.end).contains(first))
    }
}

/// The stores of one flist. `Send + Sync`; share it between readers, it keeps the connections.
#[derive(Debug)]
pub struct Routes {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    range: Range,
    store: Result<Box<dyn BlockStore>, Unusable>,
    /// Until when the store is asked last, since it did not answer.
    resting: Mutex<Option<Deadline>>,
}

/// A route that cannot be used. Kept, since another route may cover the same blocks.
struct Unusable {
    url: String,
    policy: RoutePolicy,
}

impl std::fmt::Debug for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unusable({})", crate::url::redact(&self.url))
    }
}

impl Routes {
    /// Prepares the stores that the routes of a flist name. Connects to nothing yet and creates nothing.
    ///
    /// A route that cannot be used is skipped as long as there is another.
    ///
    /// # Errors
    /// The first route's fault, if there are routes and none of them can be used.
    pub fn connect(routes: &[Route], policy: &RoutePolicy) -> Result<Self, StoreError> {
        let mut entries = Vec::with_capacity(routes.len());
        let mut first_fault = None;
        for route in routes {
            let store = connect(&route.url, policy).map_err(|fault| {
                tracing::warn!(fault = %fault, "a route of the flist cannot be used");
                first_fault.get_or_insert(fault);
                Unusable { url: route.url.clone(), policy: policy.clone() }
            });
            let range = Range { start: route.start, end: route.end };
            entries.push(Entry { range, store, resting: Mutex::new(None) });
        }
        match first_fault {
            Some(fault) if entries.iter().all(|entry| entry.store.is_err()) => Err(fault),
            _ => Ok(Self { entries }),
        }
    }

    /// Uses stores that were made elsewhere: for tests, and for schemes of other crates.
    #[must_use]
    pub fn from_stores(stores: Vec<(u8, u8, Box<dyn BlockStore>)>) -> Self {
        let entry =
            |(start, end, store)| Entry { range: Range { start, end }, store: Ok(store), resting: Mutex::new(None) };
        Self { entries: stores.into_iter().map(entry).collect() }
    }

    /// Fetches one block from any store that covers it, and opens it: both hashes are checked.
    ///
    /// Tries every matching store; those whose failure looks transient up to three times. Takes at most 30 s.
    ///
    /// # Errors
    /// [`StoreError::NoRoute`], or [`StoreError::Exhausted`] with the most telling failure.
    pub fn fetch(&self, block: &BlockRef) -> Result<Vec<u8>, StoreError> {
        let mut pending = self.entries.iter().filter(|entry| entry.range.covers(&block.id)).collect::<Vec<_>>();
        if pending.is_empty() {
            return Err(StoreError::NoRoute { id: block.id });
        }
        // The stable sort keeps the flist's order among equals.
        pending.sort_by_key(|entry| entry.is_resting());
        let rounds = if pending.iter().all(|entry| entry.is_resting()) { 1 } else { MAX_ROUNDS };
        let last_start = Deadline::after(BLOCK_TIMEOUT.saturating_sub(ATTEMPT_TIMEOUT));
        let (stores, mut attempts, mut failure) = (pending.len(), 0, None);
        for round in 0..rounds {
            if round > 0 {
                thread::sleep(FIRST_PAUSE * 2_u32.pow(round - 1));
            }
            let mut again = Vec::new();
            for entry in pending {
                if last_start.has_passed() {
                    break;
                }
                attempts += 1;
                match entry.attempt(block) {
                    Ok(plain) => return Ok(plain),
                    Err(fault) => {
                        tracing::debug!(fault = %fault, round, "a store did not give the block");
                        if fault.is_transient() {
                            again.push(entry);
                        }
                        failure = more_telling(failure, fault);
                    }
                }
            }
            pending = again;
            if pending.is_empty() {
                break;
            }
        }
        let source = Box::new(failure.unwrap_or(StoreError::NoRoute { id: block.id }));
        Err(StoreError::Exhausted { id: block.id, attempts, stores, source })
    }
}

impl Entry {
    fn attempt(&self, block: &BlockRef) -> Result<Vec<u8>, StoreError> {
        let store = match &self.store {
            Ok(store) => store,
            // Made again for its error, which cannot be copied; errors hold no credentials, so nothing else is kept.
            Err(unusable) => &connect(&unusable.url, &unusable.policy)?,
        };
        let answer = store.get(&block.id);
        let silent = answer.as_ref().is_err_and(StoreError::is_transient);
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = silent.then(|| Deadline::after(REST));
        block::open(answer?, block).map_err(|source| StoreError::Verify { store: store.name().to_owned(), source })
    }

    fn is_resting(&self) -> bool {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.is_some_and(|until| !until.has_passed())
    }
}

/// Keeps the failure that says most: damage before silence before absence.
fn more_telling(known: Option<StoreError>, new: StoreError) -> Option<StoreError> {
    let rank = |error: &StoreError| match error {
        StoreError::Verify { .. } | StoreError::TooLarge { .. } => 3,
        StoreError::NotFound { .. } => 1,
        StoreError::UnsupportedScheme { .. } | StoreError::NotAllowed { .. } | StoreError::BadUrl { .. } => 0,
        _ => 2,
    };
    match known {
        Some(known) if rank(&known) > rank(&new) => Some(known),
        _ => Some(new),
    }
}
