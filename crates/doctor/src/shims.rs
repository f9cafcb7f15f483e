//! Leases of shims without a record: of living shims, of dead ones, of warm slots that nobody waits for.

use std::path::Path;

use contd_durable::{Fs, RealFs};
use contd_lease::{Lease, LeaseDir, LeaseState};
use contd_protocol::shim::{TaskSpec, files};
use contd_types::{ContainerId, NamespaceId, one_line};

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::node::{Node, lease_name};

/// The owner of the leases of warm slots: no namespace can have this name.
const SLOT_OWNER: &str = ".slot";
/// More than a lease or a task takes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
const BECAUSE: &str = "it holds memory, a cgroup and mounts, and nobody will ever end it";

/// The owner of a lease.
enum Owner {
    /// A container's.
    Container(NamespaceId, ContainerId),
    /// A warm slot's.
    Slot(ContainerId),
    /// The text of an owner that is no container.
    Nobody(String),
}

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let dirs = entries(&node.run.join("s"))?;
    let dirs: Vec<_> = dirs.into_iter().filter(|path| path.is_dir()).collect();
    let findings: Vec<Finding> = dirs.iter().filter_map(|dir| look(node, dir)).collect();
    if findings.is_empty() {
        return Ok(vec![Finding::ok(format!("{} leases of shims, each of a container or a warm slot", dirs.len()))]);
    }
    Ok(findings)
}

fn look(node: &Node<'_>, dir: &Path) -> Option<Finding> {
    let state = match LeaseDir::new(dir).probe() {
        Ok(state) => state,
        Err(error) => return Some(unreadable(node, dir, &one_line(&error))),
    };
    let lease = match &state {
        LeaseState::Absent => {
            // Half removed, or about to be reserved.
            let fix = Fix::RetireLease { dir: dir.to_owned() };
            let finding = Finding::warning("a lease directory without a lease").at(dir);
            let spared = name_of(dir).is_some_and(|name| node.known.has_beginning(name));
            return (node.is_settled(dir) && !spared)
                .then(|| finding.because("it is what an interrupted removal leaves").fixed_by(fix));
        }
        // The state of a reserved lease does not carry it.
        LeaseState::Reserved => {
            if !node.is_settled(&dir.join("lease.json")) {
                return None;
            }
            match read_lease(dir) {
                Ok(lease) => lease,
                Err(why) => return Some(unreadable(node, dir, &why)),
            }
        }
        LeaseState::Held(lease) | LeaseState::Dead(lease) | LeaseState::OtherBoot(lease) => lease.clone(),
    };
    match owner(dir, &lease) {
        Owner::Nobody(why) => Some(unreadable(node, dir, &why)),
        Owner::Slot(id) => slot(node, dir, &state, &lease, &id),
        Owner::Container(_, id) if node.known.has(&id) => of_earlier_boot(node, dir, &state, &id),
        Owner::Container(namespace, id) => {
            let what = match &state {
                LeaseState::Held(_) => format!("a shim without a record, of container {} of {namespace}", id.short()),
                _ => format!("the lease of a dead shim without a record, of {} of {namespace}", id.short()),
            };
            let finding = Finding::warning(what).at_text(place(dir, &state)).of(&id).because(BECAUSE);
            Some(finding.fixed_by(Fix::EndShim { namespace, id }))
        }
    }
}

/// Judges a warm slot. A running daemon keeps some; without one each ends by itself, its leash being gone.
fn slot(node: &Node<'_>, dir: &Path, state: &LeaseState, lease: &Lease, id: &ContainerId) -> Option<Finding> {
    let what = match state {
        LeaseState::Held(_) if node.has_daemon() => return None,
        // It is about to end; one that stands still does not.
        LeaseState::Held(_) => "a warm slot that has not ended with its daemon",
        _ => "the lease of a dead warm slot",
    };
    let is_old = node.age(&dir.join("lease.json")).is_none_or(|age| age >= super::SLOT_ENDS_WITHIN);
    (is_old && lease_name(id) == name_of(dir)?).then(|| {
        Finding::warning(what)
            .at_text(place(dir, state))
            .because(format!("{BECAUSE}; it was made by {}", lease.binary_version))
            .fixed_by(Fix::EndSlot { id: id.clone() })
    })
}

/// A lease of an earlier boot under a record: the next daemon clears it away.
fn of_earlier_boot(node: &Node<'_>, dir: &Path, state: &LeaseState, id: &ContainerId) -> Option<Finding> {
    if !matches!(state, LeaseState::OtherBoot(_)) || node.has_daemon() {
        return None;
    }
    let finding = Finding::note("a lease of an earlier boot").at(dir).of(id);
    Some(finding.because("its process cannot live").remedy("contd daemon clears it away when it starts"))
}

fn owner(dir: &Path, lease: &Lease) -> Owner {
    let Some((namespace, id)) = lease.owner.split_once('/') else {
        return Owner::Nobody(format!("its owner {:?} is no container", lease.owner));
    };
    let Ok(id) = ContainerId::new(id) else {
        return Owner::Nobody(format!("its owner {:?} is no container", lease.owner));
    };
    if name_of(dir) != Some(lease_name(&id)) {
        return Owner::Nobody(format!("it belongs to container {id}, whose directory has another name"));
    }
    if namespace == SLOT_OWNER {
        // A slot that got its task is its container's shim.
        return match namespace_of(dir) {
            Some(namespace) => Owner::Container(namespace, id),
            None => Owner::Slot(id),
        };
    }
    match NamespaceId::new(namespace) {
        Ok(namespace) => Owner::Container(namespace, id),
        Err(error) => Owner::Nobody(error.to_string()),
    }
}

fn namespace_of(dir: &Path) -> Option<NamespaceId> {
    let bytes = RealFs.read(&dir.join(files::TASK), MAX_FILE_BYTES).ok()?;
    serde_json::from_slice::<TaskSpec>(&bytes).ok().map(|task| task.namespace)
}

fn read_lease(dir: &Path) -> Result<Lease, String> {
    let bytes = RealFs.read(&dir.join("lease.json"), MAX_FILE_BYTES).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn unreadable(node: &Node<'_>, dir: &Path, why: &str) -> Finding {
    let finding = Finding::problem(format!("a lease that cannot be understood: {why}")).at(dir);
    let finding = finding.because("whether a process lives under it, and whose it is, cannot be known");
    // No process may live there; retiring takes the lock, and a living process keeps it.
    match name_of(dir) {
        Some(name) if !node.known.has_beginning(name) => finding.fixed_by(Fix::RetireLease { dir: dir.to_owned() }),
        _ => finding.remedy("run the version of contd that wrote it, or stop its container and remove the directory"),
    }
}

fn place(dir: &Path, state: &LeaseState) -> String {
    match state {
        LeaseState::Held(Lease { process: Some(process), .. }) => format!("{}, pid {}", dir.display(), process.pid),
        _ => dir.display().to_string(),
    }
}

fn name_of(dir: &Path) -> Option<&str> {
    dir.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_node::Config;
    use std::os::unix::fs::DirBuilderExt;
    use std::path::PathBuf;

    /// A node without a daemon, in a directory of its own.
    struct Scene {
        _temp: tempfile::TempDir,
        config: Config,
        leases: PathBuf,
    }

    impl Scene {
        fn new() -> Self {
            let temp = tempfile::tempdir().expect("a directory");
            let (run, state) = (temp.path().join("run"), temp.path().join("state"));
            let leases = run.join("s");
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&leases).expect("made");
            let mut config = Config::default();
            (config.state_dir, config.run_dir) = (state, run);
            Self { _temp: temp, config, leases }
        }

        fn reserve(&self, name: &str, owner: &str) -> LeaseDir {
            let lease = LeaseDir::new(self.leases.join(name));
            lease.reserve(owner, &self.leases.join(name).join("sock")).expect("reserved");
            lease
        }

        async fn findings(&self) -> Vec<Finding> {
            check(&Node::look(&self.config).await.expect("looked")).expect("checked")
        }
    }

    fn id(digit: &str) -> ContainerId {
        ContainerId::new(digit.repeat(32)).expect("an id")
    }

    #[tokio::test]
    async fn a_lease_without_a_record_is_found_whether_its_shim_lives_or_not() {
        let scene = Scene::new();
        let lease = scene.reserve(lease_name(&id("a")), &format!("default/{}", id("a")));
        let held = lease.claim("contd-shim/test").expect("claimed");
        let place = |findings: &[Finding]| findings.first().expect("found").place.clone();
        let living = scene.findings().await;
        assert!(place(&living).ends_with(&format!("pid {}", std::process::id())), "got {living:?}");
        drop(held);
        let mut dead = scene.findings().await;
        // A process that another test forks holds the lock until it executes its program.
        let mut looks = 0;
        while place(&dead).contains("pid") && looks < 1000 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            (dead, looks) = (scene.findings().await, looks + 1);
        }
        assert!(!place(&dead).contains("pid"));
        for found in [living, dead] {
            let namespace = NamespaceId::new("default").expect("a name");
            let fix = Fix::EndShim { namespace, id: id("a") };
            assert_eq!(found.iter().filter_map(|finding| finding.fix.clone()).collect::<Vec<_>>(), [fix]);
        }
    }

    #[tokio::test]
    async fn a_lease_under_a_record_that_cannot_be_read_is_spared() {
        let scene = Scene::new();
        scene.reserve(lease_name(&id("a")), &format!("default/{}", id("a")));
        let dir = scene.config.state_dir.join("default").join(id("a").as_str());
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join("record.json"), "{").expect("written");
        assert!(scene.findings().await.iter().all(|finding| finding.fix.is_none()));
    }

    #[tokio::test]
    async fn what_is_nobodys_is_retired_only_where_no_record_can_mean_it() {
        let scene = Scene::new();
        scene.reserve("0123456789abcdef", "what is this");
        scene.reserve("fedcba9876543210", &format!("default/{}", id("a")));
        let findings = scene.findings().await;
        assert_eq!(findings.len(), 2, "got {findings:?}");
        assert!(findings.iter().all(|finding| matches!(finding.fix, Some(Fix::RetireLease { .. }))));
    }

    #[tokio::test]
    async fn a_warm_slot_may_take_a_while_to_end_when_its_daemon_has_gone() {
        let scene = Scene::new();
        let lease = scene.reserve(lease_name(&id("b")), &format!(".slot/{}", id("b")));
        let _held = lease.claim("contd-shim/test").expect("claimed");
        assert!(scene.findings().await.iter().all(|finding| finding.fix.is_none()));
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let file = std::fs::File::open(lease.path().join("lease.json")).expect("opened");
        file.set_modified(long_ago).expect("set");
        let found = scene.findings().await;
        assert_eq!(
            found.iter().filter_map(|finding| finding.fix.clone()).collect::<Vec<_>>(),
            [Fix::EndSlot { id: id("b") }]
        );
    }
}
