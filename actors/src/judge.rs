//! Callers with limited rights: the boundary to the rules that say what they may have, and how many containers each has.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use contd_rootfs::Grant;
use contd_types::{ApiError, Caller, ContainerSpec, ErrorKind, NamespaceId};

/// Judges what a caller with limited rights asks for, by the rules as they are now. Asked before a container is admitted, and
/// again before each start: rules may have changed since.
pub trait Judge: Send + Sync + Debug {
    /// Says what of the host a container may have.
    ///
    /// # Errors
    /// `PermissionDenied` with what no rule allows, and what to ask the operator for.
    fn judge(&self, caller: &Caller, namespace: &NamespaceId, spec: &ContainerSpec) -> Result<Judgement, ApiError>;
}

/// The rights that a rule gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// How the rule is called, for the audit.
    pub rule: String,
    /// The parts of the host that are opened for the container.
    pub grant: Arc<Grant>,
    /// The most containers that the caller may have, over all namespaces.
    pub max_containers: Option<usize>,
}

/// Refuses every caller with limited rights: for a node without rules.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRules;

impl Judge for NoRules {
    fn judge(&self, caller: &Caller, _: &NamespaceId, spec: &ContainerSpec) -> Result<Judgement, ApiError> {
        let message = format!("run container {}: this node has no rule for uid {}", spec.name, caller.uid);
        Err(ApiError::new(ErrorKind::PermissionDenied, message).with_hint("ask the operator for an [[access]] rule"))
    }
}

/// How many containers each caller with limited rights has.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<u32, usize>>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// Takes a place; `None` when the caller has `max` already.
    pub(crate) fn try_take(self: &Arc<Self>, uid: u32, max: Option<usize>) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(uid).or_default();
        if max.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.uid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_places_and_gets_them_back() {
        let places = Arc::new(Places::default());
        let first = places.try_take(1, Some(1)).unwrap();
        assert!(places.try_take(1, Some(1)).is_none());
        let _other = places.try_take(2, Some(1)).unwrap();
        let _recovered = places.try_take(1, None).unwrap();
        drop(first);
        assert!(places.try_take(1, Some(1)).is_none(), "the recovered one counts");
        assert!(places.try_take(1, Some(2)).is_some());
    }
}
