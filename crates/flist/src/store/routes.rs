//! Selects the stores for a block by the first byte of its id, and asks one after the other until a copy verifies.

use std::collections::HashMap;
use std::sync::Arc;

use super::backoff::{MAX_ATTEMPTS, wait_before_retry};
use super::health::{Admission, Health};
use super::{ATTEMPT_TIMEOUT, BLOCK_TIMEOUT, BlockStore, RoutePolicy, StoreError, connect};
use crate::block;
use crate::clock::Deadline;
use crate::hash::{BlockId, BlockRef};
use crate::metadata::Route;

/// The values of `id[0]` that a store covers, both ends included.
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

/// The stores of one flist. Share it between readers, because it keeps the connections.
#[derive(Debug)]
pub struct Routes {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    range: Range,
    source: Arc<Source>,
}

/// A store and its health. Routes with the same URL share one, with its connections.
#[derive(Debug)]
struct Source {
    store: Result<Box<dyn BlockStore>, Unusable>,
    health: Health,
}

/// A route that cannot be used. Kept, because another route may cover the same blocks.
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
    /// Prepares the stores of a flist's routes. Does not connect or create anything yet.
    ///
    /// A route that cannot be used is skipped, as long as another one can.
    ///
    /// # Errors
    /// The fault of the first route, if there are routes and none of them can be used.
    pub fn connect(routes: &[Route], policy: &RoutePolicy) -> Result<Self, StoreError> {
        let (mut entries, mut sources) = (Vec::with_capacity(routes.len()), HashMap::new());
        let mut first_fault = None;
        for route in routes {
            let source = sources.entry(route.url.as_str()).or_insert_with(|| {
                let store = connect(&route.url, policy).map_err(|fault| {
                    tracing::warn!(fault = %fault, "route of flist not usable");
                    first_fault.get_or_insert(fault);
                    Unusable { url: route.url.clone(), policy: policy.clone() }
                });
                Arc::new(Source { store, health: Health::default() })
            });
            entries.push(Entry { range: Range { start: route.start, end: route.end }, source: Arc::clone(source) });
        }
        match first_fault {
            Some(fault) if entries.iter().all(|entry| entry.source.store.is_err()) => Err(fault),
            _ => Ok(Self { entries }),
        }
    }

    /// Uses the given stores, for tests and for schemes of other crates.
    #[must_use]
    pub fn from_stores(stores: Vec<(u8, u8, Box<dyn BlockStore>)>) -> Self {
        let entry = |(start, end, store)| {
            let source = Arc::new(Source { store: Ok(store), health: Health::default() });
            Entry { range: Range { start, end }, source }
        };
        Self { entries: stores.into_iter().map(entry).collect() }
    }

    /// Fetches one block from any store that covers it, and opens it; both hashes are checked.
    ///
    /// Tries every matching store in the order of the routes; transient failures are retried, up to three attempts. A store
    /// that failed three times in a row is not asked for a while; if it is the only one, the fetch fails at once. Takes at most
    /// 30 s.
    ///
    /// # Errors
    /// [`StoreError::NoRoute`], or [`StoreError::Exhausted`] with the most informative failure.
    pub fn fetch(&self, block: &BlockRef) -> Result<Vec<u8>, StoreError> {
        let covering = self.entries.iter().filter(|entry| entry.range.covers(&block.id));
        let mut pending = covering.map(|entry| &*entry.source).collect::<Vec<_>>();
        if pending.is_empty() {
            return Err(StoreError::NoRoute { id: block.id });
        }
        let deadline = Deadline::after(BLOCK_TIMEOUT);
        let (stores, mut attempts, mut failure) = (pending.len(), 0, None);
        for round in 0..MAX_ATTEMPTS {
            if round > 0 {
                wait_before_retry(round, deadline);
            }
            let mut again = Vec::new();
            for source in pending {
                if deadline.has_passed() {
                    break;
                }
                // A reader admitted in the first round keeps its retries, so that a short outage is no error for it.
                let admission = if round == 0 { source.health.admit() } else { Admission::Open };
                attempts += u32::from(!matches!(admission, Admission::Paused { .. }));
                match source.attempt(block, &admission, deadline) {
                    Ok(plain) => return Ok(plain),
                    Err(fault) => {
                        tracing::debug!(fault = %fault, round, "block not fetched from store");
                        if source.is_worth_asking_again(&fault, &admission) {
                            again.push(source);
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

impl Source {
    fn attempt(&self, block: &BlockRef, admission: &Admission, deadline: Deadline) -> Result<Vec<u8>, StoreError> {
        let store = match &self.store {
            Ok(store) => store,
            // Connects again to get the error, which cannot be cloned. Errors hold no credentials, so this keeps none either.
            Err(unusable) => &connect(&unusable.url, &unusable.policy)?,
        };
        if let Admission::Paused { failures, reason } = admission {
            let (store, reason) = (store.name().to_owned(), reason.clone());
            return Err(StoreError::Paused { store, id: block.id, failures: *failures, reason });
        }
        let answer = store.get_within(&block.id, ATTEMPT_TIMEOUT.min(deadline.remaining()));
        match &answer {
            Err(fault) if fault.is_transient() => self.health.failed(admission, reason(fault)),
            _ => self.health.answered(),
        }
        block::open(answer?, block).map_err(|source| StoreError::Verify { store: store.name().to_owned(), source })
    }

    /// Tells whether to retry. A store that hangs and is already paused would only delay the reader.
    fn is_worth_asking_again(&self, fault: &StoreError, admission: &Admission) -> bool {
        let hangs = fault.is_timeout() && self.health.is_paused();
        fault.is_transient() && *admission == Admission::Open && !hangs
    }
}

/// Returns a failure without the names of the store and the block, for errors about other blocks.
fn reason(fault: &StoreError) -> String {
    match std::error::Error::source(fault) {
        Some(source) => source.to_string(),
        None => match fault {
            StoreError::Status { status, .. } => format!("status {status}"),
            StoreError::Answer { answer, .. } => format!("{answer:?}"),
            _ => "no answer".to_owned(),
        },
    }
}

/// Returns the more informative failure: a damaged block before a silent store before a missing block.
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
