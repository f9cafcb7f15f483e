//! FUSE and overlays: tried for real, in a mount namespace of a thread that ends with the trial.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use contd_rootfs::survey::limits_layers;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::error::LookError;
use crate::finding::Finding;
use crate::node::Node;

/// How directories of trials begin; no namespace can have such a name, and a doctor that was killed leaves one.
pub(crate) const TRIAL: &str = ".doctor-";
/// As roots are mounted.
const OPTIONS: &str = "metacopy=off,redirect_dir=off,index=off,xino=on";

/// Checks them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = vec![match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::ok("/dev/fuse can be opened"),
        Err(error) => Finding::problem(format!("/dev/fuse cannot be opened: {error}"))
            .at_text("/dev/fuse")
            .because("flists are served through FUSE; only dir: roots work without it")
            .remedy("load the module fuse, and make the node: mknod /dev/fuse c 10 229"),
    }];
    if !node.state.is_dir() {
        findings.push(
            Finding::note("overlays were not tried: the state directory is not there yet")
                .at(&node.state)
                .because("each container's root is an overlay")
                .remedy("start contd daemon, which makes it, and look again"),
        );
        return Ok(findings);
    }
    findings.push(match limits_layers(&node.state) {
        Ok(true) => Finding::ok("the size of writable layers is enforced").at(&node.state),
        Ok(false) | Err(_) => Finding::note("the size of writable layers on disk is not enforced")
            .at(&node.state)
            .because(
                "its file system has no project quota (btrfs: quotas are off): [defaults] rootfs_mib does not hold, \
                 --rootfs-size is refused",
            )
            .remedy(
                "ext4 (mkfs -O quota,project) or XFS, mounted with prjquota; btrfs: btrfs quota enable, on that directory; \
                 or [defaults] layer = \"memory\"",
            ),
    });
    findings.push(match trial(&node.state) {
        Ok(()) => Finding::ok("an overlay works on the state directory").at(&node.state),
        Err(error) => Finding::problem(format!("an overlay does not work on the state directory: {error}"))
            .at(&node.state)
            .because("each container's root is an overlay")
            .remedy("load the module overlay, run as root, and put the state directory on ext4, xfs or btrfs"),
    });
    Ok(findings)
}

/// Mounts an overlay, writes through it, and leaves nothing.
fn trial(state: &Path) -> io::Result<()> {
    let dir = state.join(format!("{TRIAL}{}", std::process::id()));
    fs::create_dir(&dir)?;
    let result = std::thread::scope(|scope| match scope.spawn(|| overlay(&dir)).join() {
        Ok(result) => result,
        Err(_panic) => Err(io::Error::other("the trial panicked")),
    });
    // The mounts went with the thread's namespace.
    let removed = fs::remove_dir_all(&dir);
    result.and(removed)
}

fn overlay(dir: &Path) -> io::Result<()> {
    // Of this thread alone: what is mounted from here on goes with it.
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let [lower, upper, work, root] = ["lower", "upper", "work", "root"].map(|name| dir.join(name));
    for dir in [&lower, &upper, &work, &root] {
        fs::create_dir(dir)?;
    }
    fs::write(lower.join("file"), "lower")?;
    let layers = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)];
    let layers: Vec<String> = layers.iter().map(|(key, dir)| format!("{key}={}", escaped(dir).display())).collect();
    let options = format!("{},{OPTIONS}", layers.join(","));
    mount(Some("contd"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    fs::write(root.join("file"), "upper")?;
    match (fs::read(lower.join("file"))?.as_slice(), fs::read(upper.join("file"))?.as_slice()) {
        (b"lower", b"upper") => Ok(()),
        _ => Err(io::Error::other("what was written through it went elsewhere")),
    }
}

/// Overlay options have signs of their own.
fn escaped(path: &Path) -> PathBuf {
    let text = path.to_string_lossy();
    PathBuf::from(text.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_leaves_neither_files_nor_mounts() {
        let state = tempfile::tempdir().expect("a directory");
        // Without root it fails; it must clean up all the same.
        let result = trial(state.path());
        assert_eq!(fs::read_dir(state.path()).expect("listed").count(), 0, "after {result:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read");
        assert!(!mounts.contains(&state.path().display().to_string()));
        if nix::unistd::geteuid().is_root() {
            result.expect("this kernel has overlays");
        }
    }
}
