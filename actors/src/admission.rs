//! How many runs are on the way at once: of each namespace, and of the node.
//!
//! The first [`OWN_PLACES`] of a namespace are its own, whatever the others do; beyond them it takes from the node's, which all
//! share. So namespaces whose stores hang may keep every shared place for minutes, and nobody else is kept from running. What a
//! restart policy starts waits for its place, and leaves half of a namespace's to what is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contd_types::NamespaceId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::locks::PerNamespace;

/// Runs of a namespace that need no shared place: what a person types at once.
pub(crate) const OWN_PLACES: usize = 4;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The namespace has so many on the way.
    Namespace { limit: usize },
    /// All shared places of the node, so many, are taken, and the namespace's own.
    Node { limit: usize },
}

/// A semaphore whose size may change.
#[derive(Debug)]
struct Places {
    semaphore: Arc<Semaphore>,
    size: AtomicUsize,
}

impl Places {
    fn new(size: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(size)), size: AtomicUsize::new(size) }
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }

    /// Changes how many there are. Those taken stay; where there are too many, they go as they come back.
    fn resize(&self, size: usize) {
        let before = self.size.swap(size, Ordering::Relaxed);
        self.semaphore.add_permits(size.saturating_sub(before));
        if let Ok(surplus @ 1..) = u32::try_from(before.saturating_sub(size)) {
            let semaphore = Arc::clone(&self.semaphore);
            actix_rt::spawn(async move {
                if let Ok(permits) = semaphore.acquire_many_owned(surplus).await {
                    permits.forget();
                }
            });
        }
    }
}

/// The places of one namespace.
#[derive(Debug)]
struct Namespace {
    runs: Places,
    restarts: Places,
    own: Places,
}

impl Namespace {
    fn new(limits: &Limits) -> Self {
        let runs = limits.runs_in_flight_per_namespace;
        Self { runs: Places::new(runs), restarts: Places::new(restarts_of(runs)), own: Places::new(OWN_PLACES) }
    }

    fn resize(&self, limits: &Limits) {
        self.runs.resize(limits.runs_in_flight_per_namespace);
        self.restarts.resize(restarts_of(limits.runs_in_flight_per_namespace));
    }
}

fn restarts_of(runs: usize) -> usize {
    (runs / 2).max(1)
}

/// The places of a node and of its namespaces.
#[derive(Debug)]
pub(crate) struct Admission {
    shared: Places,
    namespaces: PerNamespace<Namespace>,
    on_the_way: Arc<AtomicUsize>,
}

/// One run on the way; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct RunPlace {
    _of_namespace: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    /// The namespace is not forgotten before.
    _namespace: Arc<Namespace>,
    on_the_way: Arc<AtomicUsize>,
}

impl Drop for RunPlace {
    fn drop(&mut self) {
        self.on_the_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let shared = Places::new(limits.runs_in_flight);
        Self { shared, namespaces: PerNamespace::default(), on_the_way: Arc::default() }
    }

    /// Takes a place for a run, if there is one now.
    pub(crate) fn try_run(&self, namespace: &NamespaceId, limits: &Limits) -> Result<RunPlace, NoPlace> {
        let namespace = self.namespaces.of(namespace, || Namespace::new(limits));
        let of_namespace =
            namespace.runs.try_take().ok_or_else(|| NoPlace::Namespace { limit: namespace.runs.size() })?;
        let of_all = namespace.own.try_take().or_else(|| self.shared.try_take());
        let of_all = of_all.ok_or_else(|| NoPlace::Node { limit: self.shared.size() })?;
        Ok(self.taken(of_namespace, of_all, namespace))
    }

    /// Waits for a place for a restart; `None` when the node ends. After a boot, hundreds may want one at once.
    pub(crate) async fn restart(&self, namespace: &NamespaceId, limits: &Limits) -> Option<RunPlace> {
        let namespace = self.namespaces.of(namespace, || Namespace::new(limits));
        let of_namespace = Arc::clone(&namespace.restarts.semaphore).acquire_owned().await.ok()?;
        let of_all = tokio::select! {
            biased;
            own = Arc::clone(&namespace.own.semaphore).acquire_owned() => own.ok()?,
            shared = Arc::clone(&self.shared.semaphore).acquire_owned() => shared.ok()?,
        };
        Some(self.taken(of_namespace, of_all, namespace))
    }

    /// Tells how many are on the way.
    pub(crate) fn on_the_way(&self) -> usize {
        self.on_the_way.load(Ordering::Relaxed)
    }

    /// Takes other limits over.
    pub(crate) fn resize(&self, limits: &Limits) {
        self.shared.resize(limits.runs_in_flight);
        self.namespaces.each(|namespace| namespace.resize(limits));
    }

    fn taken(
        &self,
        of_namespace: OwnedSemaphorePermit,
        of_all: OwnedSemaphorePermit,
        namespace: Arc<Namespace>,
    ) -> RunPlace {
        self.on_the_way.fetch_add(1, Ordering::Relaxed);
        let on_the_way = Arc::clone(&self.on_the_way);
        RunPlace { _of_namespace: of_namespace, _of_all: of_all, _namespace: namespace, on_the_way }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(name: &str) -> NamespaceId {
        NamespaceId::new(name).unwrap()
    }

    fn limits(of_namespace: usize, of_node: usize) -> Limits {
        Limits { runs_in_flight_per_namespace: of_namespace, runs_in_flight: of_node, ..Limits::default() }
    }

    #[actix::test]
    async fn namespaces_that_take_all_shared_places_leave_each_other_its_own() {
        let limits = limits(64, 128);
        let admission = Admission::new(&limits);
        let mut kept = Vec::new();
        for namespace in ["a", "b", "c"] {
            while let Ok(place) = admission.try_run(&ns(namespace), &limits) {
                kept.push(place);
            }
        }
        // Two namespaces have their 64, the third its own and what the others' own left of the shared.
        assert_eq!(kept.len(), 64 + 64 + OWN_PLACES + 2 * OWN_PLACES);
        assert_eq!(admission.on_the_way(), kept.len());
        assert_eq!(admission.try_run(&ns("a"), &limits).unwrap_err(), NoPlace::Namespace { limit: 64 });
        assert_eq!(admission.try_run(&ns("c"), &limits).unwrap_err(), NoPlace::Node { limit: 128 });
        let other: Vec<_> = (0..OWN_PLACES).map(|_| admission.try_run(&ns("d"), &limits).unwrap()).collect();
        assert!(admission.try_run(&ns("d"), &limits).is_err());
        drop((kept, other));
        assert_eq!(admission.on_the_way(), 0);
    }

    #[actix::test]
    async fn restarts_leave_half_of_the_places_and_wait_for_theirs() {
        let limits = limits(8, 128);
        let admission = Admission::new(&limits);
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(admission.restart(&ns("a"), &limits).await.unwrap());
        }
        let namespace = ns("a");
        let mut fifth = Box::pin(admission.restart(&namespace, &limits));
        assert!(futures_util::poll!(&mut fifth).is_pending());
        assert!(futures_util::poll!(Box::pin(admission.restart(&ns("b"), &limits))).is_ready());
        assert!(admission.try_run(&ns("a"), &limits).is_ok());
        kept.pop();
        assert!(futures_util::poll!(&mut fifth).is_ready());
    }

    #[actix::test]
    async fn other_limits_count_for_what_comes_and_for_what_is_there() {
        let admission = Admission::new(&limits(2, 128));
        let one = admission.try_run(&ns("a"), &limits(2, 128)).unwrap();
        let _two = admission.try_run(&ns("a"), &limits(2, 128)).unwrap();
        admission.resize(&limits(3, 128));
        let three = admission.try_run(&ns("a"), &limits(3, 128)).unwrap();
        admission.resize(&limits(2, 128));
        tokio::task::yield_now().await;
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(admission.try_run(&ns("a"), &limits(2, 128)).unwrap_err(), NoPlace::Namespace { limit: 2 });
        drop(three);
        assert!(admission.try_run(&ns("a"), &limits(2, 128)).is_ok());
    }
}
