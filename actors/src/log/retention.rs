//! How long the logs of removed containers are kept, and how much all logs may take together.
//!
//! They are pruned at the start, from time to time, and as soon as they are too many. Beyond a bound the oldest file goes of the
//! namespace that has most, so that nobody's many runs take away what little another one has: first the logs of removed
//! containers, then rotated files, which their container's event says. A file that is written is never removed; while they alone
//! take too much, the shims of the largest are asked to begin the next file, and then these are rotated ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contd_logs::{LogDisk, Part, StoredFile, StoredLogs};
use contd_types::{ContainerEvent, ContainerId, ContainerName, EventKind, NamespaceId, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::LogParts;
use crate::config::{LogRetention, NodeConfig};
use crate::error::one_line;

/// How often is looked what has become too old, at most and at least.
const PRUNE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long one namespace's directory may take; one that hangs is left out.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// The share of the file system that the logs of removed containers may take.
const SHARE_OF_DISK: u64 = 10;
/// The share of a file system in memory that all logs may take, unless the configuration says how much.
const SHARE_OF_MEMORY: u64 = 4;
/// How often the free space is looked at where there is a budget: one system call.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// The share of the budget by which the file system fills before the logs are looked at again.
const SHARE_OF_BUDGET: u64 = 16;
/// How often a shim is asked to rotate the same file.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// A smaller file is not rotated before its time.
const LEAST_ROTATED_BYTES: u64 = 64 * 1024;

/// The knowledge of one log actor about the files. Jobs that outlive their actor keep its own, and the next actor counts anew.
#[derive(Debug)]
pub(super) struct Retention {
    logs: StoredLogs,
    /// The bytes of the logs of removed containers, as far as that is known between two looks.
    removed_bytes: AtomicU64,
    /// The bound of these at the last look.
    removed_limit: AtomicU64,
    /// There is a reason to look now.
    look: Notify,
}

impl Retention {
    pub(super) fn new(config: &NodeConfig) -> Self {
        Self {
            logs: StoredLogs::new(&config.log_dir, config.log_notes()),
            removed_bytes: AtomicU64::new(0),
            removed_limit: AtomicU64::new(config.settings.log_retention.map_or(0, |rule| rule.removed_max_bytes)),
            look: Notify::new(),
        }
    }

    pub(super) fn logs(&self) -> &StoredLogs {
        &self.logs
    }

    /// Counts what was put to the logs of removed containers.
    pub(super) fn grow(&self, bytes: u64) {
        let before = self.removed_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.removed_limit.load(Ordering::Relaxed) {
            self.look.notify_one();
        }
    }
}

/// The state from one look to the next.
#[derive(Debug, Default)]
struct Pruner {
    rule: Option<LogRetention>,
    /// The budget, and what the file system had taken.
    budget: Option<(u64, u64)>,
    /// Files, by inode and size, whose shims were asked to begin the next one, and when: nothing is gained by asking again soon.
    asked: HashMap<(u64, u64), Instant>,
    /// Held by each shim's answer that is still to come.
    answers: Arc<()>,
    /// Whether all logs took too much although nothing can be removed, and that was said.
    is_over: bool,
}

/// Removes what is too old or too much, for as long as the actor lives. The rule may change meanwhile.
pub(super) async fn prune_for_ever(parts: Arc<LogParts>, retention: Arc<Retention>) {
    let mut pruner = Pruner::default();
    loop {
        let rule = parts.shared.settings().log_retention;
        if let Some(rule) = rule {
            // Where nothing is kept, one look removes what there was.
            let has_removed = rule.keeps() || pruner.rule != Some(rule);
            pruner.prune(&parts, &retention, rule, has_removed).await;
        }
        pruner.rule = rule;
        let (least, most) = PRUNE_EVERY;
        let pause = rule.filter(|rule| rule.keeps()).map_or(most, |rule| (rule.keep_for / 4).clamp(least, most));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = retention.look.notified() => {}
            () = grown(&parts, &retention, pruner.budget) => {}
        }
    }
}

/// Waits until the file system has filled by a share of the budget since the last look; for ever without a budget.
async fn grown(parts: &LogParts, retention: &Arc<Retention>, budget: Option<(u64, u64)>) {
    let Some((budget, mut least)) = budget else { return std::future::pending().await };
    loop {
        tokio::time::sleep(SPACE_EVERY).await;
        let looker = Arc::clone(retention);
        let Ok(Ok(disk)) = parts.looks.run("look at the space for logs", move || looker.logs.disk()).await else {
            continue;
        };
        if disk.taken_bytes.saturating_sub(least) > budget / SHARE_OF_BUDGET {
            return;
        }
        least = least.min(disk.taken_bytes);
    }
}

/// Returns what all logs may take together; `None` where that is not bounded.
fn budget(rule: LogRetention, disk: &LogDisk) -> Option<u64> {
    rule.all_max_bytes.or_else(|| disk.is_memory.then_some(disk.bytes / SHARE_OF_MEMORY))
}

impl Pruner {
    async fn prune(
        &mut self,
        parts: &Arc<LogParts>,
        retention: &Arc<Retention>,
        rule: LogRetention,
        has_removed: bool,
    ) {
        let were_all_answered = self.are_all_answered();
        let looker = Arc::clone(retention);
        let look = move || looker.logs.namespaces().and_then(|namespaces| Ok((namespaces, looker.logs.disk()?)));
        let (namespaces, disk) = match parts.looks.run("list the logs", look).await {
            Ok(Ok(found)) => found,
            Ok(Err(failure)) => return not_listed(&failure),
            Err(lost) => return not_listed(&lost),
        };
        let budget = budget(rule, &disk);
        self.budget = budget.map(|budget| (budget, disk.taken_bytes));
        if budget.is_none() && !has_removed {
            return;
        }
        let stored = list(parts, retention, namespaces, budget.is_some()).await;
        let limit = rule.removed_max_bytes.min(disk.bytes / SHARE_OF_DISK);
        retention.removed_limit.store(limit, Ordering::Relaxed);
        let removed_bytes = |files: &[StoredFile]| -> u64 {
            files.iter().filter(|file| file.part == Part::Removed).map(|file| file.bytes).sum()
        };
        let before = removed_bytes(&stored);
        let now = UNIX_EPOCH + Timestamp::saturating_since(parts.shared.clock.now(), Timestamp(0));
        // A shim that did not answer, or had nothing to rotate, is asked again after a while.
        let is_there = |asked: &(u64, u64)| stored.iter().any(|file| *asked == (file.inode, file.bytes));
        self.asked.retain(|asked, at| at.elapsed() < ASK_EVERY && is_there(asked));
        let Choice { unwanted, written, over } = choose(stored, now, rule.keep_for, limit, budget);
        retention.removed_bytes.store(before.saturating_sub(removed_bytes(&unwanted)), Ordering::Relaxed);
        remove(parts, retention, unwanted).await;
        self.rotate(parts, retention, written, over);
        if self.is_to_be_said(over, were_all_answered) {
            warn!(budget, over, "logs take more than they may together, and only files that are written are left");
        }
    }

    /// Tells whether no shim's answer is still to come.
    fn are_all_answered(&self) -> bool {
        Arc::strong_count(&self.answers) == 1
    }

    /// Tells whether all logs take too much although nothing can be removed: once, until the budget holds again. A shim that answered
    /// since the files were listed may have begun the next one: another look follows.
    fn is_to_be_said(&mut self, over: u64, were_all_answered: bool) -> bool {
        let is_over = over > 0 && (self.is_over || were_all_answered && self.are_all_answered());
        let was_over = std::mem::replace(&mut self.is_over, is_over);
        is_over && !was_over
    }

    /// Asks the shims of the largest files to begin the next one; a look follows every answer.
    fn rotate(&mut self, parts: &Arc<LogParts>, retention: &Arc<Retention>, written: Vec<StoredFile>, mut over: u64) {
        for file in written {
            let key = (file.inode, file.bytes);
            if over == 0 || self.asked.contains_key(&key) {
                continue;
            }
            self.asked.insert(key, Instant::now());
            let Ok(id) = file.owner.parse::<ContainerId>() else { continue };
            over = over.saturating_sub(file.bytes);
            let (parts, retention, answer) = (Arc::clone(parts), Arc::clone(retention), Arc::clone(&self.answers));
            actix_rt::spawn(async move {
                match Arc::clone(&parts.writers).rotate(id.clone()).await {
                    Ok(()) => info!(container = %id, "log rotated: all logs together take too much"),
                    // A container that has ended keeps its last file.
                    Err(failure) => debug!(container = %id, error = one_line(&failure), "log not rotated"),
                }
                drop(answer);
                retention.look.notify_one();
            });
        }
    }
}

fn not_listed(failure: &(dyn std::error::Error + 'static)) {
    warn!(error = one_line(failure), "logs not listed");
}

/// Lists the files of all namespaces, those of removed containers only when not all count.
async fn list(
    parts: &LogParts,
    retention: &Arc<Retention>,
    namespaces: Vec<String>,
    counts_all: bool,
) -> Vec<StoredFile> {
    let mut stored = Vec::new();
    // A directory that no namespace can have has none of ours.
    for namespace in namespaces.into_iter().filter_map(|name| NamespaceId::new(name).ok()) {
        let (looker, pool, name) = (Arc::clone(retention), parts.pools.of(&namespace), namespace.to_string());
        let look = move || match counts_all {
            true => looker.logs.list(namespace.as_str()),
            false => looker.logs.list_removed(namespace.as_str()),
        };
        match tokio::time::timeout(LOOK_TIMEOUT, pool.run("list the logs of a namespace", look)).await {
            Ok(Ok(Ok(files))) => stored.extend(files),
            Ok(Ok(Err(failure))) => debug!(ns = name, error = one_line(&failure), "its logs not listed"),
            Ok(Err(lost)) => debug!(ns = name, error = one_line(&lost), "its logs not listed"),
            Err(_elapsed) => debug!(ns = name, "its log directory hangs"),
        }
    }
    stored
}

/// Removes files, and publishes which containers that are there have lost some.
async fn remove(parts: &LogParts, retention: &Arc<Retention>, unwanted: Vec<StoredFile>) {
    let mut trimmed: BTreeMap<(NamespaceId, String), (String, u32, u64)> = BTreeMap::new();
    for file in unwanted {
        let Ok(namespace) = NamespaceId::new(file.namespace.as_str()) else { continue };
        let (remover, pool, gone) = (Arc::clone(retention), parts.pools.of(&namespace), file.clone());
        let job = move || remover.logs.remove(&gone);
        let name = &file.name;
        match tokio::time::timeout(LOOK_TIMEOUT, pool.run("remove a log file", job)).await {
            Ok(Ok(Ok(()))) => {
                if let (Part::Rotated, Some(container)) = (file.part, file.container()) {
                    let entry = trimmed.entry((namespace, file.owner.clone()));
                    let (_, files, bytes) = entry.or_insert_with(|| (container.to_owned(), 0, 0));
                    *files = files.saturating_add(1);
                    *bytes = bytes.saturating_add(file.bytes);
                }
            }
            Ok(Ok(Err(failure))) => warn!(?name, error = one_line(&failure), "log file not removed"),
            Ok(Err(lost)) => warn!(?name, error = one_line(&lost), "log file not removed"),
            Err(_elapsed) => debug!(?name, "its log directory hangs"),
        }
    }
    for ((namespace, owner), (name, files, bytes)) in trimmed {
        // The mark of a file is the id of a container, and its name that of one: both were valid when it was made.
        let (Ok(id), Ok(name)) = (owner.parse::<ContainerId>(), ContainerName::new(name)) else { continue };
        let (at, kind) = (parts.shared.clock.now(), EventKind::LogTrimmed { files, bytes });
        parts.shared.publish(ContainerEvent { namespace, id, name, at, kind });
    }
}

/// The files that are in the way of the bounds.
#[derive(Debug, Default)]
struct Choice {
    unwanted: Vec<StoredFile>,
    /// The files that are written and worth a rotation, the largest first.
    written: Vec<StoredFile>,
    /// By how many bytes all logs take too much when the unwanted ones are gone.
    over: u64,
}

/// Chooses what is to go: what is too old; as long as there is too much, the oldest of the namespace that has most.
fn choose(
    stored: Vec<StoredFile>,
    now: SystemTime,
    keep_for: Duration,
    removed_limit: u64,
    budget: Option<u64>,
) -> Choice {
    let is_removed = |file: &StoredFile| file.part == Part::Removed;
    let is_old =
        |file: &StoredFile| now.duration_since(file.since).is_ok_and(|age| age >= keep_for) || keep_for.is_zero();
    let (mut unwanted, rest): (Vec<_>, Vec<_>) = stored.into_iter().partition(|file| is_removed(file) && is_old(file));
    let (removed, present): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_removed);
    let mut shares = Shares::of(removed);
    unwanted.extend(shares.take(removed_limit));
    let Some(budget) = budget else { return Choice { unwanted, ..Choice::default() } };
    let mut shares = Shares::of(shares.rest().chain(present));
    unwanted.extend(shares.take(budget));
    let over = shares.all.saturating_sub(budget);
    let written = shares.by_namespace.into_values().flat_map(|share| share.written);
    let mut written: Vec<_> = written.filter(|file| file.bytes >= LEAST_ROTATED_BYTES).collect();
    written.sort_by_key(|file| Reverse(file.bytes));
    Choice { unwanted, written, over }
}

/// The files of each namespace.
#[derive(Debug, Default)]
struct Shares {
    by_namespace: BTreeMap<String, Share>,
    /// All their bytes.
    all: u64,
}

#[derive(Debug, Default)]
struct Share {
    bytes: u64,
    /// The files that may go; the first to go is the last.
    may_go: Vec<StoredFile>,
    written: Vec<StoredFile>,
}

impl Shares {
    fn of(files: impl IntoIterator<Item = StoredFile>) -> Self {
        let mut shares = Self::default();
        for file in files {
            let share = shares.by_namespace.entry(file.namespace.clone()).or_default();
            share.bytes = share.bytes.saturating_add(file.bytes);
            shares.all = shares.all.saturating_add(file.bytes);
            if file.part == Part::Written { share.written.push(file) } else { share.may_go.push(file) }
        }
        for share in shares.by_namespace.values_mut() {
            // Of one log, the rotated files go first: longer names of the same moment.
            share.may_go.sort_by(|one, other| {
                (other.part, other.since).cmp(&(one.part, one.since)).then_with(|| one.name.cmp(&other.name))
            });
        }
        shares
    }

    /// Takes files until the rest is within the limit, or nothing more may go.
    fn take(&mut self, limit: u64) -> Vec<StoredFile> {
        let mut taken = Vec::new();
        while self.all > limit {
            let may_give = self.by_namespace.values_mut().filter(|share| !share.may_go.is_empty());
            let Some(most) = may_give.max_by_key(|share| share.bytes) else { break };
            let Some(file) = most.may_go.pop() else { break };
            most.bytes = most.bytes.saturating_sub(file.bytes);
            self.all = self.all.saturating_sub(file.bytes);
            taken.push(file);
        }
        taken
    }

    fn rest(self) -> impl Iterator<Item = StoredFile> {
        self.by_namespace.into_values().flat_map(|share| share.may_go.into_iter().chain(share.written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(namespace: &str, name: &str, since: u64, bytes: u64) -> StoredFile {
        let (since, part) = (UNIX_EPOCH + Duration::from_secs(since), Part::Removed);
        StoredFile { namespace: namespace.into(), name: name.into(), owner: "x".into(), part, since, bytes, inode: 1 }
    }

    fn present(part: Part, namespace: &str, name: &str, since: u64, bytes: u64) -> StoredFile {
        StoredFile { part, ..file(namespace, name, since, bytes) }
    }

    /// Chooses files of removed containers.
    fn removed(files: Vec<StoredFile>, now: SystemTime, keep_for: Duration, limit: u64) -> Vec<StoredFile> {
        choose(files, now, keep_for, limit, None).unwanted
    }

    fn names(files: Vec<StoredFile>) -> Vec<String> {
        files.into_iter().map(|file| format!("{}/{}", file.namespace, file.name.display())).collect()
    }

    #[test]
    fn what_is_too_old_goes_and_with_zero_everything() {
        let all = || vec![file("a", "old", 10, 1), file("a", "new", 95, 1), file("b", "future", 200, 1)];
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(names(removed(all(), now, Duration::from_secs(50), u64::MAX)), ["a/old"]);
        assert_eq!(names(removed(all(), now, Duration::ZERO, u64::MAX)).len(), 3);
    }

    #[test]
    fn beyond_the_bound_the_oldest_goes_of_the_namespace_that_has_most() {
        let mut all = vec![file("small", "x.log", 1, 5)];
        all.extend((0..10).map(|n| file("big", &format!("{n}.log"), 50 + n, 10)));
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let gone = names(removed(all, now, Duration::from_secs(1000), 75));
        assert_eq!(gone, ["big/0.log", "big/1.log", "big/2.log"]);
    }

    #[test]
    fn many_namespaces_have_one_bound_together() {
        let all: Vec<_> = (0..100).map(|n| file(&format!("t{n}"), "x.log", n, 10)).collect();
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(removed(all, now, Duration::from_secs(1000), 200).len(), 80);
    }

    #[test]
    fn of_one_log_the_rotated_files_go_first() {
        let all = vec![file("a", "x.log", 1, 10), file("a", "x.log.2", 1, 10), file("a", "x.log.1", 1, 10)];
        let now = UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(names(removed(all, now, Duration::from_secs(1000), 10)), ["a/x.log.2", "a/x.log.1"]);
    }

    #[test]
    fn all_logs_have_one_budget_and_what_is_written_stays() {
        const MIB: u64 = 1024 * 1024;
        let mut all = vec![
            present(Part::Written, "loud", "a.log", 90, 9 * MIB),
            present(Part::Rotated, "loud", "a.log.1", 80, 10 * MIB),
            present(Part::Rotated, "loud", "a.log.2", 70, 10 * MIB),
            present(Part::Written, "quiet", "b.log", 5, MIB),
            present(Part::Rotated, "quiet", "b.log.1", 1, MIB),
            file("loud", "gone.log", 95, MIB),
        ];
        let now = UNIX_EPOCH + Duration::from_secs(100);
        let within = |files: &[StoredFile], budget| {
            let Choice { unwanted, written, over } =
                choose(files.to_vec(), now, Duration::from_secs(1000), u64::MAX, Some(budget));
            (names(unwanted), names(written), over)
        };
        assert_eq!(within(&all, 32 * MIB), (vec![], vec!["loud/a.log".into(), "quiet/b.log".into()], 0));
        assert_eq!(within(&all, 31 * MIB).0, ["loud/gone.log"]);
        assert_eq!(within(&all, 21 * MIB).0, ["loud/gone.log", "loud/a.log.2"]);
        assert_eq!(within(&all, 11 * MIB).0, ["loud/gone.log", "loud/a.log.2", "loud/a.log.1"]);
        // The loud one has nothing left that may go.
        let (gone, written, over) = within(&all, 2 * MIB);
        assert_eq!(gone.len(), 4);
        assert_eq!((written, over), (vec!["loud/a.log".into(), "quiet/b.log".into()], 8 * MIB));
        all.retain(|file| file.part == Part::Written);
        assert_eq!(within(&all, 10 * MIB).2, 0);
        all.iter_mut().for_each(|file| file.bytes = 4096);
        assert_eq!(within(&all, 1), (vec![], vec![], 8191), "too small to be rotated");
    }

    #[test]
    fn logs_are_over_their_budget_once_every_shim_has_answered_before_the_look() {
        let mut pruner = Pruner::default();
        let answer = Arc::clone(&pruner.answers);
        let were_all_answered = pruner.are_all_answered();
        assert!(!pruner.is_to_be_said(1, were_all_answered), "one is still to come");
        // It comes while the files are being listed: they may have been listed before it was done.
        drop(answer);
        assert!(!pruner.is_to_be_said(1, were_all_answered));
        let were_all_answered = pruner.are_all_answered();
        assert!(pruner.is_to_be_said(1, were_all_answered));
        assert!(!pruner.is_to_be_said(1, were_all_answered), "it was said");
        assert!(!pruner.is_to_be_said(0, were_all_answered));
        assert!(pruner.is_to_be_said(1, were_all_answered), "again");
    }

    #[test]
    fn only_a_file_system_in_memory_has_a_budget_by_itself() {
        let disk = |is_memory| LogDisk { bytes: 400, taken_bytes: 0, is_memory };
        let rule = LogRetention::default();
        assert_eq!(budget(rule, &disk(true)), Some(100));
        assert_eq!(budget(rule, &disk(false)), None);
        let rule = LogRetention { all_max_bytes: Some(7), ..rule };
        assert_eq!([true, false].map(|is_memory| budget(rule, &disk(is_memory))), [Some(7), Some(7)]);
    }
}
