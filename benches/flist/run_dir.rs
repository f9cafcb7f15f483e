//! The one directory that holds all files of a run. It is emptied before a run, at its end, and when it is interrupted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::census::{cgroups_below, command_lines, members, mounts};

/// A directory on disk, even where `/tmp` is in memory; one run at a time uses it.
const ROOT: &str = "/var/tmp/contd-bench-flist";
/// The parent of the containers' cgroups.
pub(crate) const CGROUP_PARENT: &str = "contd-bench-flist";
/// The time limit for killed processes to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
/// The exit code of a process that SIGINT ended, in a shell's form.
const INTERRUPTED: i32 = 130;

/// The directory, locked.
pub(crate) struct RunDir {
    root: PathBuf,
    lock: File,
}

impl RunDir {
    /// Locks the directory, and removes the leftovers of an earlier run.
    pub(crate) fn open() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "the bench mounts and drops caches: run it as root");
        let root = PathBuf::from(ROOT);
        fs::create_dir_all(&root).expect("make the directory");
        let lock = File::open(&root).expect("open the directory");
        assert!(lock.try_lock().is_ok(), "another run is under way in {ROOT}");
        clear(&root);
        clear_on_signal(&root);
        Self { root, lock }
    }

    /// Returns a path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes a directory in the directory.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).expect("make a directory");
        dir
    }

    /// Writes dirty pages, and drops the page cache, entries and inodes of the whole machine.
    pub(crate) fn drop_caches(&self) {
        self.sync();
        fs::write("/proc/sys/vm/drop_caches", "3").expect("drop the caches");
    }

    /// Waits until all data written to the directory's file system is on disk.
    pub(crate) fn sync(&self) {
        nix::unistd::syncfs(&self.lock).expect("sync");
    }

    /// Asserts that the measurements have cleaned up, and removes the directory.
    pub(crate) fn remove(self) {
        let named = self.root.display().to_string();
        let processes: Vec<_> = command_lines().into_iter().filter(|(_, line)| line.contains(&named)).collect();
        assert!(processes.is_empty(), "processes left behind: {processes:?}");
        let mounted = mounts(&self.root);
        assert!(mounted.is_empty(), "mounts left behind: {mounted:?}");
        let cgroups = cgroups_below(CGROUP_PARENT);
        assert!(cgroups.is_empty(), "cgroups left behind: {cgroups:?}");
    }
}

/// Cleans up after a panic too.
impl Drop for RunDir {
    fn drop(&mut self) {
        clear(&self.root);
        let _removed = fs::remove_dir(&self.root);
    }
}

/// Starts a thread that handles the signals that end a run, and cleans up first. It uses handlers, not a mask: child
/// processes would inherit a mask, and the daemon would not get its SIGTERM.
fn clear_on_signal(root: &Path) {
    let root = root.to_owned();
    #[expect(clippy::exit, reason = "the main thread is anywhere; what it has made is cleared away just before")]
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let hear = |kind| signal(kind).expect("hear a signal");
            let [mut interrupt, mut terminate, mut hang_up] =
                [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(hear);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        eprintln!("interrupted: clearing up");
        // The processes of the measuring thread end here; the panic of that thread need not be reported.
        std::panic::set_hook(Box::new(|_because_of_us| ()));
        clear(&root);
        let _removed = fs::remove_dir(&root);
        std::process::exit(INTERRUPTED);
    });
}

/// Ends, unmounts and removes everything with this directory's name, and nothing else.
fn clear(root: &Path) {
    let named = root.display().to_string();
    let cgroups = cgroups_below(CGROUP_PARENT);
    let ours = || -> Vec<i32> {
        let named = command_lines().into_iter().filter(|(_, line)| line.contains(&named)).map(|(pid, _)| pid);
        named.chain(cgroups.iter().flat_map(|cgroup| members(cgroup))).chain(children()).collect()
    };
    let begin = Instant::now();
    while begin.elapsed() < GONE_TIMEOUT {
        let left = ours();
        if left.is_empty() {
            break;
        }
        for pid in left {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // A dead server's requests end when it is unmounted, and only then do the processes that wait for them.
        unmount(root);
        std::thread::sleep(Duration::from_millis(20));
    }
    unmount(root);
    for cgroup in cgroups.iter().rev() {
        let _gone = fs::remove_dir(cgroup);
    }
    let mounted = mounts(root);
    if !mounted.is_empty() {
        eprintln!("still mounted, so {named} is left as it is: {mounted:?}");
        return;
    }
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        let _gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

fn unmount(root: &Path) {
    for point in mounts(root).iter().rev() {
        let _gone = umount2(point.as_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    }
}

/// Lists the running children of this process.
fn children() -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    // A zombie waits for its parent thread, which may be the one that was interrupted.
    found.retain(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()));
    found
}
