//! The logs of removed containers: how long they are kept, and how many.
//!
//! They are pruned at the start, from time to time, and as soon as they are too many. Beyond the bound the oldest goes of the
//! namespace that has most, so that nobody's many runs take away what little another one has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contd_logs::{KeptFile, RemovedLogs};
use contd_types::{NamespaceId, Timestamp};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::LogParts;
use crate::config::{NodeConfig, RemovedLogsRule};
use crate::error::one_line;

/// How often is looked what has become too old, at most and at least.
const PRUNE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long one namespace's directory may take; one that hangs is left out.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// The share of the file system that they may take.
const SHARE_OF_DISK: u64 = 10;

/// The count of them that one log actor keeps. Jobs that outlive their actor keep its own, and the next actor counts anew.
#[derive(Debug)]
pub(super) struct Removed {
    logs: RemovedLogs,
    /// How much there is, as far as that is known between two looks.
    bytes: AtomicU64,
    /// The bound at the last look.
    limit: AtomicU64,
    is_too_much: Notify,
}

impl Removed {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self {
            logs: RemovedLogs::new(&config.log_dir, config.log_notes()),
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(config.settings.removed_logs.map_or(0, |rule| rule.max_bytes)),
            is_too_much: Notify::new(),
        }
    }

    pub(super) fn logs(&self) -> &RemovedLogs {
        &self.logs
    }

    /// Counts what was put there.
    pub(super) fn grow(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit.load(Ordering::Relaxed) {
            self.is_too_much.notify_one();
        }
    }
}

/// Removes what is too old or too much, for as long as the actor lives. The rule may change meanwhile.
pub(super) async fn prune_for_ever(parts: Arc<LogParts>, removed: Arc<Removed>) {
    let mut last = None;
    loop {
        let rule = parts.shared.settings().removed_logs;
        // Where nothing is kept, one look removes what there was.
        if let Some(rule) = rule.filter(|rule| rule.keeps() || last != Some(*rule)) {
            prune(&parts, &removed, rule).await;
        }
        last = rule;
        let (least, most) = PRUNE_EVERY;
        let pause = rule.filter(|rule| rule.keeps()).map_or(most, |rule| (rule.keep_for / 4).clamp(least, most));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = removed.is_too_much.notified() => {}
        }
    }
}

async fn prune(parts: &LogParts, removed: &Arc<Removed>, rule: RemovedLogsRule) {
    let looker = Arc::clone(removed);
    let look = move || (looker.logs.namespaces(), looker.logs.disk_bytes());
    let (namespaces, disk) = match parts.looks.run("list the logs of removed containers", look).await {
        Ok((Ok(namespaces), disk)) => (namespaces, disk.unwrap_or(u64::MAX)),
        Ok((Err(failure), _)) => return warn!(error = one_line(&failure), "logs of removed containers not listed"),
        Err(lost) => return warn!(error = one_line(&lost), "logs of removed containers not listed"),
    };
    let mut kept = Vec::new();
    // A directory that no namespace can have has none of ours.
    for namespace in namespaces.into_iter().filter_map(|name| NamespaceId::new(name).ok()) {
        let (looker, pool) = (Arc::clone(removed), parts.pools.of(&namespace));
        let (name, look) = (namespace.to_string(), move || looker.logs.list(namespace.as_str()));
        match tokio::time::timeout(LOOK_TIMEOUT, pool.run("list the logs of removed containers", look)).await {
            Ok(Ok(Ok(files))) => kept.extend(files),
            Ok(Ok(Err(failure))) => debug!(ns = name, error = one_line(&failure), "its removed logs not listed"),
            Ok(Err(lost)) => debug!(ns = name, error = one_line(&lost), "its removed logs not listed"),
            Err(_elapsed) => debug!(ns = name, "its log directory hangs"),
        }
    }
    let limit = rule.max_bytes.min(disk / SHARE_OF_DISK);
    removed.limit.store(limit, Ordering::Relaxed);
    let all: u64 = kept.iter().map(|file| file.bytes).sum();
    let now = UNIX_EPOCH + Timestamp::saturating_since(parts.shared.clock.now(), Timestamp(0));
    let unwanted = choose(kept, now, rule.keep_for, limit);
    let freed: u64 = unwanted.iter().map(|file| file.bytes).sum();
    removed.bytes.store(all.saturating_sub(freed), Ordering::Relaxed);
    for file in unwanted {
        let Ok(namespace) = NamespaceId::new(file.namespace.as_str()) else { continue };
        let (remover, pool, name) = (Arc::clone(removed), parts.pools.of(&namespace), file.name.clone());
        let job = move || remover.logs.remove(&file);
        match tokio::time::timeout(LOOK_TIMEOUT, pool.run("remove a log of a removed container", job)).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(failure))) => warn!(?name, error = one_line(&failure), "log of a removed container not removed"),
            Ok(Err(lost)) => warn!(?name, error = one_line(&lost), "log of a removed container not removed"),
            Err(_elapsed) => debug!(?name, "its log directory hangs"),
        }
    }
}

/// Chooses what is to go: what is too old, then, as long as there is too much, the oldest of the namespace that has most.
fn choose(kept: Vec<KeptFile>, now: SystemTime, keep_for: Duration, limit: u64) -> Vec<KeptFile> {
    let is_old =
        |file: &KeptFile| now.duration_since(file.since).is_ok_and(|age| age >= keep_for) || keep_for.is_zero();
    let (mut unwanted, rest): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_old);
    let mut by_namespace: BTreeMap<String, Vec<KeptFile>> = BTreeMap::new();
    for file in rest {
        by_namespace.entry(file.namespace.clone()).or_default().push(file);
    }
    for files in by_namespace.values_mut() {
        // The oldest last. Of one log, the rotated files go first: longer names of the same moment.
        files.sort_by(|one, other| other.since.cmp(&one.since).then_with(|| one.name.cmp(&other.name)));
    }
    let mut sums: BTreeMap<String, u64> = by_namespace
        .iter()
        .map(|(namespace, files)| (namespace.clone(), files.iter().map(|file| file.bytes).sum()))
        .collect();
    while sums.values().sum::<u64>() > limit {
        let Some(most) = sums.iter().max_by_key(|(_, bytes)| **bytes).map(|(namespace, _)| namespace.clone()) else {
            break;
        };
        let Some(file) = by_namespace.get_mut(&most).and_then(Vec::pop) else { break };
        if let Some(sum) = sums.get_mut(&most) {
            *sum = sum.saturating_sub(file.bytes);
        }
        unwanted.push(file);
    }
    unwanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(namespace: &str, name: &str, since: u64, bytes: u64) -> KeptFile {
        let since = UNIX_EPOCH + Duration::from_secs(since);
        KeptFile { namespace: namespace.into(), name: name.into(), owner: "x".into(), since, bytes }
    }

    fn names(files: Vec<KeptFile>) -> Vec<String> {
        files.into_iter().map(|file| format!("{}/{}", file.namespace, file.name.display())).collect()
    }

    #[test]
    fn what_is_too_old_goes_and_with_zero_everything() {
        let all = || vec![file("a", "old", 10, 1), file("a", "new", 95, 1), file("b", "future", 200, 1)];
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(names(choose(all(), now, Duration::from_secs(50), u64::MAX)), ["a/old"]);
        assert_eq!(names(choose(all(), now, Duration::ZERO, u64::MAX)).len(), 3);
    }

    #[test]
    fn beyond_the_bound_the_oldest_goes_of_the_namespace_that_has_most() {
        let mut all = vec![file("small", "x.log", 1, 5)];
        all.extend((0..10).map(|n| file("big", &format!("{n}.log"), 50 + n, 10)));
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let gone = names(choose(all, now, Duration::from_secs(1000), 75));
        assert_eq!(gone, ["big/0.log", "big/1.log", "big/2.log"]);
    }

    #[test]
    fn many_namespaces_have_one_bound_together() {
        let all: Vec<_> = (0..100).map(|n| file(&format!("t{n}"), "x.log", n, 10)).collect();
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(choose(all, now, Duration::from_secs(1000), 200).len(), 80);
    }

    #[test]
    fn of_one_log_the_rotated_files_go_first() {
        let all = vec![file("a", "x.log", 1, 10), file("a", "x.log.2", 1, 10), file("a", "x.log.1", 1, 10)];
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(names(choose(all, now, Duration::from_secs(1000), 10)), ["a/x.log.2", "a/x.log.1"]);
    }
}
