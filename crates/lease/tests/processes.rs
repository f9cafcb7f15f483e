//! Leases between real processes: this test program starts itself again as the process that claims.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use contd_lease::{LeaseDir, LeaseError, LeaseState, ProcessIdentity, pidfd, signal, wait_dead};

const CHILD_DIR: &str = "CONTD_LEASE_TEST_DIR";
const LONG: Duration = Duration::from_secs(300);
const SIGKILL: i32 = 9;

/// Before the repair, one in some hundred failed.
const ROUNDS_OF_RETIRING: u32 = 3_000;

/// Not a test of its own: the body of the started process, when it is one.
#[test]
fn the_started_process() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    match LeaseDir::new(PathBuf::from(dir)).claim("1.2.3") {
        Ok(held) => {
            println!("\nclaimed");
            let mut end = Vec::new();
            std::io::stdin().read_to_end(&mut end).unwrap();
            if end == b"retire" {
                held.retire().unwrap();
                println!("\nretired");
            }
        }
        Err(error) => println!("\nrefused {error:?}"),
    }
}

struct Started {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Started {
    fn new(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_started_process", "--nocapture"])
            .env(CHILD_DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Reads on until the process says what became of its claim.
    #[track_caller]
    fn word(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the process ended without a word");
            if ["claimed", "refused", "retired"].iter().any(|word| line.starts_with(word)) {
                return line.trim().to_owned();
            }
        }
    }

    fn identity(&self) -> ProcessIdentity {
        ProcessIdentity::of(i32::try_from(self.child.id()).unwrap()).unwrap().unwrap()
    }

    fn kill(mut self) {
        let fd = pidfd(&self.identity()).unwrap().unwrap();
        assert!(signal(&fd, SIGKILL).unwrap());
        assert!(wait_dead(fd.as_fd(), LONG).unwrap(), "not dead after {LONG:?}");
        self.child.wait().unwrap();
    }
}

/// Lets the process end by itself, and reaps it.
impl Drop for Started {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _read = self.stdout.read_to_end(&mut Vec::new());
        let _reaped = self.child.wait();
    }
}

fn reserved() -> (tempfile::TempDir, LeaseDir) {
    let root = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(root.path().join("lease"));
    dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
    (root, dir)
}

#[test]
fn a_lease_goes_from_absent_to_reserved_to_held_to_dead_to_absent() {
    let root = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(root.path().join("lease"));
    assert_eq!(dir.probe().unwrap(), LeaseState::Absent);
    dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
    assert_eq!(dir.probe().unwrap(), LeaseState::Reserved);

    let mut process = Started::new(dir.path());
    assert_eq!(process.word(), "claimed");
    let LeaseState::Held(lease) = dir.probe().unwrap() else { panic!("got {:?}", dir.probe()) };
    assert_eq!(lease.process, Some(process.identity()));
    assert_eq!((lease.owner.as_str(), lease.binary_version.as_str()), ("ns/id", "1.2.3"));
    assert_eq!(lease.socket, Path::new("/run/s.sock"));
    assert!(lease.pidfd().unwrap().is_some());
    assert!(matches!(dir.retire(), Err(LeaseError::Held { .. })));
    assert!(matches!(dir.reserve("ns/id", Path::new("/x")), Err(LeaseError::Held { .. })));

    process.kill();
    let state = dir.probe().unwrap();
    assert!(matches!(&state, LeaseState::Dead(dead) if *dead == lease), "got {state:?}");
    assert!(lease.pidfd().unwrap().is_none());
    dir.retire().unwrap();
    dir.retire().unwrap();
    assert_eq!(dir.probe().unwrap(), LeaseState::Absent);
    assert!(!dir.path().exists());
}

#[test]
fn a_lease_that_cannot_be_written_leaves_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let root = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(root.path().join("lease"));
    let unwritable = Path::new(std::ffi::OsStr::from_bytes(b"/run/\xff.sock"));
    let refused = dir.reserve("ns/id", unwritable);
    assert!(matches!(refused, Err(LeaseError::Encode { .. })), "got {refused:?}");
    assert!(!dir.path().exists());

    // One that was reserved before stays as it was.
    dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
    assert!(matches!(dir.reserve("ns/id", unwritable), Err(LeaseError::Encode { .. })));
    assert_eq!(dir.probe().unwrap(), LeaseState::Reserved);
}

#[test]
fn a_late_starter_of_a_retired_lease_is_refused() {
    let (_root, dir) = reserved();
    dir.retire().unwrap();
    assert!(Started::new(dir.path()).word().starts_with("refused Gone"));
    assert!(!dir.path().exists(), "the late starter made the directory again");
}

#[test]
fn of_two_starters_one_is_refused() {
    let (_root, dir) = reserved();
    let mut first = Started::new(dir.path());
    assert_eq!(first.word(), "claimed");
    assert!(Started::new(dir.path()).word().starts_with("refused Held"));
    first.kill();
    // Dead, but claimed before: a second starter of the same reservation comes too late as well.
    assert!(Started::new(dir.path()).word().starts_with("refused NotReserved"));
    dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
    let mut successor = Started::new(dir.path());
    assert_eq!(successor.word(), "claimed");
    successor.kill();
}

#[test]
fn a_holder_retires_its_own_lease() {
    use std::io::Write;
    let (_root, dir) = reserved();
    let mut process = Started::new(dir.path());
    assert_eq!(process.word(), "claimed");
    process.stdin.take().unwrap().write_all(b"retire").unwrap();
    assert_eq!(process.word(), "retired");
    assert!(!dir.path().exists());
    process.child.wait().unwrap();
}

#[test]
fn a_child_of_the_holder_does_not_keep_the_lease_alive() {
    let (_root, dir) = reserved();
    let held = dir.claim("1").unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    drop(held);
    // Other tests of this program spawn too: between fork and exec their children have a copy of every descriptor.
    let begun = std::time::Instant::now();
    while !matches!(dir.probe().unwrap(), LeaseState::Dead(_)) {
        assert!(begun.elapsed() < LONG, "the exec'd child inherited the lock");
        std::thread::yield_now();
    }
    let who = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
    signal(pidfd(&who).unwrap().unwrap(), SIGKILL).unwrap();
    child.wait().unwrap();
}

#[test]
fn a_probe_never_makes_a_claim_fail() {
    let (_root, dir) = reserved();
    std::thread::scope(|scope| {
        let claimer = scope.spawn(|| {
            for _ in 0..200 {
                dir.claim("1").unwrap().retire().unwrap();
                dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
            }
        });
        while !claimer.is_finished() {
            dir.probe().unwrap();
        }
        claimer.join().unwrap();
    });
}

#[test]
fn a_successor_takes_over_without_a_moment_in_which_nobody_holds() {
    let (_root, dir) = reserved();
    let first = dir.claim("1").unwrap();
    let passed = first.as_fd().try_clone_to_owned().unwrap();
    let second = dir.take_over(passed, "2").unwrap();
    drop(first);
    let state = dir.probe().unwrap();
    assert!(matches!(&state, LeaseState::Held(lease) if lease.binary_version == "2"), "got {state:?}");
    second.retire().unwrap();
    assert_eq!(dir.probe().unwrap(), LeaseState::Absent);
}

#[test]
fn a_descriptor_that_is_not_the_lock_takes_nothing_over() {
    let (root, dir) = reserved();
    let other = std::fs::File::create(root.path().join("other")).unwrap();
    assert!(matches!(dir.take_over(other.into(), "2"), Err(LeaseError::Gone { .. })));
    let _held = dir.claim("1").unwrap();
    let own = std::fs::File::options().read(true).write(true).open(dir.path().join("lock")).unwrap();
    assert!(matches!(dir.take_over(own.into(), "2"), Err(LeaseError::Held { .. })));
}

#[test]
fn a_lease_of_an_earlier_boot_is_neither_alive_nor_claimable() {
    let (_root, dir) = reserved();
    let path = dir.path().join("lease.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let here = contd_lease::BootId::current().unwrap();
    std::fs::write(&path, text.replace(here.as_str(), "00000000-0000-0000-0000-000000000000")).unwrap();
    assert!(matches!(dir.probe().unwrap(), LeaseState::OtherBoot(lease) if lease.pidfd().unwrap().is_none()));
    assert!(matches!(dir.claim("1"), Err(LeaseError::EarlierBoot { .. })));
    dir.retire().unwrap();
}

#[test]
fn damaged_and_newer_leases_are_errors_that_retire_cleans_up() {
    for (text, is_newer) in [("{", false), ("", false), ("{\"version\":1}", false), ("{\"version\":2}", true)] {
        let (_root, dir) = reserved();
        std::fs::write(dir.path().join("lease.json"), text).unwrap();
        let error = dir.probe().unwrap_err();
        assert_eq!(matches!(error, LeaseError::NewerVersion { found: 2, .. }), is_newer, "{text:?}: {error:?}");
        assert_eq!(matches!(error, LeaseError::Decode { .. }), !is_newer, "{text:?}: {error:?}");
        dir.retire().unwrap();
        assert_eq!(dir.probe().unwrap(), LeaseState::Absent);
    }
}

#[test]
fn a_living_process_is_safe_even_when_its_lock_file_was_removed() {
    let (_root, dir) = reserved();
    let _held = dir.claim("1").unwrap();
    std::fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(matches!(dir.retire(), Err(LeaseError::Held { .. })));
    assert!(dir.path().join("lease.json").exists());
}

#[test]
fn a_half_retired_directory_is_retired_in_the_end() {
    for left in [&["lock"][..], &["socket"], &[], &["lock", "socket"]] {
        let root = tempfile::tempdir().unwrap();
        let dir = LeaseDir::new(root.path().join("lease"));
        std::fs::create_dir(dir.path()).unwrap();
        for name in left {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        assert_eq!(dir.probe().unwrap(), LeaseState::Absent, "{left:?}");
        dir.retire().unwrap();
        assert!(!dir.path().exists(), "{left:?}");
    }
}

/// The list of leases retires what is half-removed, while its owner is still removing it.
#[test]
fn two_that_retire_the_same_lease_at_once_both_succeed() {
    let root = tempfile::tempdir().unwrap();
    let dir = LeaseDir::new(root.path().join("lease"));
    let retire = || match dir.retire() {
        Ok(()) | Err(LeaseError::Held { .. }) => {}
        Err(error) => panic!("retire: {error:?}"),
    };
    for _ in 0..ROUNDS_OF_RETIRING {
        dir.reserve("ns/id", Path::new("/run/s.sock")).unwrap();
        std::thread::scope(|scope| {
            let others = [scope.spawn(retire), scope.spawn(retire)];
            retire();
            others.into_iter().for_each(|other| other.join().unwrap());
        });
        dir.retire().unwrap();
        assert_eq!(dir.probe().unwrap(), LeaseState::Absent);
        assert!(!dir.path().exists());
    }
}
