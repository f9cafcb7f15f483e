//! The view of the node: a map of published containers that everyone may read and only container actors write.
//!
//! Why a map beside the actors: inspect and list are answered on the caller's own thread, without a hop to the arbiter
//! of a namespace that may be busy. It is a copy for readers; no decision about a container's life is made from it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use contd_protocol::api::{MAX_LIST_PAGE, NamespaceSummary, Target};
use contd_types::{
    ApiError, ContainerId, ContainerInfo, ContainerName, ContainerRef, ContainerSummary, Entrypoint, ErrorKind,
    Explain, NamespaceId, StateName,
};
use tokio::sync::watch;

use crate::messages::{ContainerPage, ListContainers};

/// The most candidates that an ambiguous reference names.
const MAX_CANDIDATES: usize = 8;

/// The least digits of an id that are looked for in other namespaces: fewer fit too much.
const MIN_ID_DIGITS: usize = 6;

/// The most text of a page, so that it fits into one frame: labels may be as large as a spec.
const MAX_PAGE_BYTES: usize = contd_protocol::MAX_API_BODY_BYTES / 2;

/// Why a reference means no container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// None has this name, this id, or an id that begins so.
    #[error("find container {container} in namespace {namespace}: there is none")]
    NotFound { namespace: NamespaceId, container: ContainerRef },
    /// Several ids begin so.
    #[error("find container {container} in namespace {namespace}: several ids begin so")]
    Ambiguous { namespace: NamespaceId, container: ContainerRef, candidates: Vec<ContainerId> },
}

impl Explain for ResolveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. } => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { namespace, .. } => format!("list what there is: contd -n {namespace} ps -a"),
            Self::Ambiguous { candidates, .. } => {
                let ids: Vec<&str> = candidates.iter().map(ContainerId::as_str).collect();
                format!("give more digits; it may be {}", ids.join(", "))
            }
        })
    }
}

impl From<ResolveError> for ApiError {
    fn from(error: ResolveError) -> Self {
        Self::from_error(&error)
    }
}

/// How many containers are in which condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) containers: u32,
    pub(crate) running: u32,
    pub(crate) recovering: u32,
}

/// The published containers of a node.
#[derive(Debug, Default)]
pub(crate) struct View {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: BTreeMap<ContainerId, watch::Sender<Arc<ContainerInfo>>>,
    /// The containers of each name. It is the last one's; those before it are being removed, and had the name until then.
    names: BTreeMap<NamespaceId, HashMap<ContainerName, Vec<ContainerId>>>,
}

impl View {
    /// Shows a container as it is now; whoever watches it is woken.
    pub(crate) fn publish(&self, info: ContainerInfo) {
        let info = Arc::new(info);
        if let Some(entry) = self.read().by_id.get(&info.id) {
            entry.send_replace(info);
            return;
        }
        let mut tables = self.write();
        let names = tables.names.entry(info.namespace.clone()).or_default();
        let holders = names.entry(info.spec.name.clone()).or_default();
        let place = if info.state.name() == StateName::Deleting { 0 } else { holders.len() };
        holders.insert(place, info.id.clone());
        tables.by_id.insert(info.id.clone(), watch::Sender::new(info));
    }

    /// Forgets a container; whoever watches it sees the end. Fine when it is not there.
    pub(crate) fn remove(&self, id: &ContainerId) {
        let mut tables = self.write();
        let Some(entry) = tables.by_id.remove(id) else { return };
        let info = entry.borrow().clone();
        let Some(names) = tables.names.get_mut(&info.namespace) else { return };
        if let Some(holders) = names.get_mut(&info.spec.name) {
            holders.retain(|holder| holder != id);
            if holders.is_empty() {
                names.remove(&info.spec.name);
            }
        }
        if names.is_empty() {
            tables.names.remove(&info.namespace);
        }
    }

    /// Finds the container that is meant: exact name, exact id, the one id that begins so.
    pub(crate) fn resolve(&self, target: &Target) -> Result<ContainerId, ResolveError> {
        let tables = self.read();
        let Target { namespace, container } = target;
        let not_found = || ResolveError::NotFound { namespace: namespace.clone(), container: container.clone() };
        let names = tables.names.get(namespace).ok_or_else(not_found)?;
        let by_name = ContainerName::new(container.as_str()).ok().and_then(|name| names.get(&name)?.last().cloned());
        if let Some(id) = by_name {
            return Ok(id);
        }
        let mut candidates: Vec<ContainerId> =
            names.values().flatten().filter(|id| container.is_prefix_of(id)).take(MAX_CANDIDATES).cloned().collect();
        candidates.sort();
        match candidates.as_slice() {
            [] => Err(not_found()),
            [id] => Ok(id.clone()),
            _ => {
                Err(ResolveError::Ambiguous { namespace: namespace.clone(), container: container.clone(), candidates })
            }
        }
    }

    /// Finds the other namespaces that have a container of this name or id; none where its own has it.
    pub(crate) fn elsewhere(&self, target: &Target) -> Vec<(NamespaceId, StateName)> {
        if !matches!(self.resolve(target), Err(ResolveError::NotFound { .. })) {
            return Vec::new();
        }
        let tables = self.read();
        let is_meant = |info: &ContainerInfo| {
            let is_id = target.container.as_str().len() >= MIN_ID_DIGITS && target.container.is_prefix_of(&info.id);
            is_id || info.spec.name.as_str() == target.container.as_str()
        };
        let found: BTreeMap<NamespaceId, StateName> = tables
            .by_id
            .values()
            .map(|entry| entry.borrow().clone())
            .filter(|info| is_meant(info))
            .map(|info| (info.namespace.clone(), info.state.name()))
            .collect();
        found.into_iter().collect()
    }

    /// Tells whether a name is that of another container, because this one is being removed and the name was given again.
    pub(crate) fn is_name_of_another(&self, namespace: &NamespaceId, name: &ContainerName, id: &ContainerId) -> bool {
        let tables = self.read();
        let holder = tables.names.get(namespace).and_then(|names| names.get(name)?.last());
        holder.is_some_and(|holder| holder != id)
    }

    /// Returns a container as it is shown now.
    pub(crate) fn get(&self, id: &ContainerId) -> Option<Arc<ContainerInfo>> {
        self.read().by_id.get(id).map(|entry| entry.borrow().clone())
    }

    /// Watches a container; the channel closes when it is gone.
    pub(crate) fn watch(&self, id: &ContainerId) -> Option<watch::Receiver<Arc<ContainerInfo>>> {
        self.read().by_id.get(id).map(watch::Sender::subscribe)
    }

    /// Returns one page, in the order of the ids.
    pub(crate) fn list(&self, query: &ListContainers) -> ContainerPage {
        let limit = match query.limit {
            0 => MAX_LIST_PAGE,
            given => given.min(MAX_LIST_PAGE),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let begin = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.read();
        let wanted = |info: &ContainerInfo| query.namespace.as_ref().is_none_or(|one| *one == info.namespace);
        let mut containers: Vec<ContainerSummary> = Vec::new();
        let mut bytes = 0usize;
        for entry in tables.by_id.range::<ContainerId, _>((begin, Bound::Unbounded)).map(|(_, entry)| entry.borrow()) {
            if !wanted(&entry) {
                continue;
            }
            bytes = bytes.saturating_add(text_bytes(&entry));
            // One always fits.
            if containers.len() == limit || (bytes > MAX_PAGE_BYTES && !containers.is_empty()) {
                return ContainerPage { containers, has_more: true };
            }
            containers.push(ContainerSummary::from(&**entry));
        }
        ContainerPage { containers, has_more: false }
    }

    /// Lists the namespaces that have containers.
    pub(crate) fn namespaces(&self) -> Vec<NamespaceSummary> {
        let mut found: BTreeMap<NamespaceId, NamespaceSummary> = BTreeMap::new();
        for entry in self.read().by_id.values().map(|entry| entry.borrow().clone()) {
            let one = found.entry(entry.namespace.clone()).or_insert_with(|| NamespaceSummary {
                namespace: entry.namespace.clone(),
                containers: 0,
                running: 0,
            });
            one.containers += 1;
            one.running += u32::from(entry.state.name() == StateName::Running);
        }
        found.into_values().collect()
    }

    /// Lists the containers that live, or may: those whose state [`may_have_shim`](contd_types::State::may_have_shim).
    pub(crate) fn living(&self) -> Vec<Arc<ContainerInfo>> {
        let tables = self.read();
        let all = tables.by_id.values().map(|entry| Arc::clone(&entry.borrow()));
        all.filter(|info| info.state.may_have_shim()).collect()
    }

    /// Counts.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census::default();
        for entry in self.read().by_id.values() {
            let state = entry.borrow().state.name();
            census.containers += 1;
            census.running += u32::from(state == StateName::Running);
            census.recovering += u32::from(state == StateName::Recovering);
        }
        census
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        // No code that can panic runs under the lock; a poisoned table is still whole.
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much of a page a container's own texts take.
fn text_bytes(info: &ContainerInfo) -> usize {
    const PER_TEXT: usize = size_of::<u64>();
    let labels = info.spec.labels.iter().map(|(key, value)| key.len() + value.len() + 2 * PER_TEXT);
    let tags = info.spec.tags.iter().map(|tag| tag.len() + PER_TEXT);
    let command = info.spec.entrypoint.as_ref().map_or(0, Entrypoint::text_bytes);
    info.spec.flist.len() + labels.sum::<usize>() + tags.sum::<usize>() + command
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerSpec, State, Timestamp};

    fn info(namespace: &str, name: &str, byte: u8) -> ContainerInfo {
        let (id, namespace) = (ContainerId::from_random([byte; 16]), NamespaceId::new(namespace).unwrap());
        let spec = ContainerSpec::new(ContainerName::new(name).unwrap(), "/x.fl");
        ContainerInfo::new(id, namespace, spec, State::Creating, Timestamp(1))
    }

    fn target(namespace: &str, container: &str) -> Target {
        Target { namespace: NamespaceId::new(namespace).unwrap(), container: ContainerRef::new(container).unwrap() }
    }

    #[test]
    fn a_name_wins_over_the_beginning_of_an_id() {
        let view = View::default();
        view.publish(info("a", "11", 0x22));
        view.publish(info("a", "other", 0x11));
        assert_eq!(view.resolve(&target("a", "11")), Ok(ContainerId::from_random([0x22; 16])));
        assert_eq!(view.resolve(&target("a", "1111")), Ok(ContainerId::from_random([0x11; 16])));
    }

    #[test]
    fn an_ambiguous_beginning_names_its_candidates() {
        let view = View::default();
        let mut near = info("a", "near", 0x11);
        near.id = ContainerId::new("11".repeat(15) + "22").unwrap();
        view.publish(near);
        view.publish(info("a", "far", 0x11));
        let error = view.resolve(&target("a", "111")).unwrap_err();
        let hint = error.hint().unwrap();
        assert!(hint.contains(&"11".repeat(16)) && hint.contains(&("11".repeat(15) + "22")), "got {hint}");
    }

    #[test]
    fn a_reference_never_crosses_its_namespace() {
        let view = View::default();
        view.publish(info("a", "web", 1));
        assert!(matches!(view.resolve(&target("b", "web")), Err(ResolveError::NotFound { .. })));
    }

    #[test]
    fn what_is_not_found_is_looked_for_elsewhere_by_name_and_id() {
        let view = View::default();
        view.publish(info("a", "web", 0x11));
        view.publish(info("c", "web", 0x22));
        let namespace = |name: &str| NamespaceId::new(name).unwrap();
        let both = [(namespace("a"), StateName::Creating), (namespace("c"), StateName::Creating)];
        assert_eq!(view.elsewhere(&target("b", "web")), both);
        assert_eq!(view.elsewhere(&target("b", "22222222")), both[1..]);
        // Its own namespace has it, digits that say little, nobody has it.
        for nothing in [target("a", "web"), target("b", "22222"), target("b", "job"), target("a", "we")] {
            assert_eq!(view.elsewhere(&nothing), [], "{nothing:?}");
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let view = View::default();
        for byte in 1..=7 {
            view.publish(info(if byte % 2 == 0 { "even" } else { "odd" }, &format!("c{byte}"), byte));
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = view.list(&ListContainers { namespace: None, after: after.clone(), limit: 3 });
            seen.extend(page.containers.iter().map(|one| one.id.clone()));
            after = seen.last().cloned();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(seen, (1..=7u8).map(|byte| ContainerId::from_random([byte; 16])).collect::<Vec<_>>());
        // Pages of large texts are shorter, so that each fits into a frame.
        let mut large = info("odd", "large", 8);
        large.spec.labels = (0..4).map(|key| (key.to_string(), "x".repeat(60_000))).collect();
        let mut larger = large.clone();
        view.publish(large);
        for byte in 9..13 {
            (larger.id, larger.spec.name) =
                (ContainerId::from_random([byte; 16]), ContainerName::new(format!("c{byte}")).unwrap());
            view.publish(larger.clone());
        }
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = view.list(&ListContainers { namespace: None, after: after.clone(), limit: 0 });
            assert!(contd_protocol::encode(&page.containers).is_ok(), "a page does not fit");
            seen += page.containers.len();
            after = page.containers.last().map(|one| one.id.clone());
            if !page.has_more {
                break;
            }
        }
        assert_eq!(seen, 12);
        let even = NamespaceId::new("even").unwrap();
        let page = view.list(&ListContainers { namespace: Some(even), after: None, limit: 3 });
        assert_eq!((page.containers.len(), page.has_more), (3, false));
    }

    #[test]
    fn a_name_is_that_of_the_container_that_stays_while_another_is_being_removed() {
        let view = View::default();
        let (mut old, new) = (info("a", "web", 1), info("a", "web", 2));
        view.publish(old.clone());
        old.state = State::Lingering { reason: "busy".into() };
        view.publish(old.clone());
        assert_eq!(view.resolve(&target("a", "web")), Ok(old.id.clone()), "nobody else has the name");
        view.publish(new.clone());
        assert_eq!(view.resolve(&target("a", "web")), Ok(new.id.clone()));
        assert_eq!(view.resolve(&target("a", &old.id.as_str()[..4])), Ok(old.id.clone()));
        assert!(view.is_name_of_another(&old.namespace, &old.spec.name, &old.id));
        view.remove(&new.id);
        assert_eq!(view.resolve(&target("a", "web")), Ok(old.id.clone()));
        // After a restart they may be found in any order.
        let view = View::default();
        view.publish(new.clone());
        view.publish(old);
        assert_eq!(view.resolve(&target("a", "web")), Ok(new.id));
    }

    #[test]
    fn a_removed_container_leaves_no_name_and_ends_its_watchers() {
        let view = View::default();
        let shown = info("a", "web", 1);
        view.publish(shown.clone());
        let watcher = view.watch(&shown.id).unwrap();
        view.remove(&shown.id);
        assert!(view.resolve(&target("a", "web")).is_err());
        assert!(watcher.has_changed().is_err(), "the watcher still waits");
        assert!(view.namespaces().is_empty());
    }
}
