//! Servers and keepers that die, and are replaced, under readers. On real mounts; wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::server::{BINARY, Server};
use contd_lease::{LeaseDir, LeaseState, ProcessIdentity, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{ENDING_FILE, LAST_WORDS_FILE, Process, SERVER_FILE};
use contd_test_harness::flist::{Answer, Server as WebServer};
use contd_test_harness::mounted::{
    assert_matches_manifest, census, copy_store, fixture, manifest, place_fixture, servers, wait_until,
};
use contd_types::ApiError;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const READERS: usize = 8;
/// The number of deaths that docs/reliability.md promises.
const KILLS: u32 = 100;
const LONG: Duration = Duration::from_secs(300);

/// Reads and checks all files of the fixture, over and over, from several threads, while something happens to the server.
struct Readers<'a> {
    root: &'a Path,
    wanted: BTreeMap<PathBuf, Vec<u8>>,
    is_over: AtomicBool,
    rounds: AtomicU64,
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'a> Readers<'a> {
    fn new(root: &'a Path, name: &str) -> Self {
        let files = manifest(name).into_iter().filter(|entry| entry.kind == "file");
        let read = |path: PathBuf| (path.clone(), std::fs::read(root.join(&path)).expect("a first read"));
        let wanted = files.map(|entry| read(PathBuf::from(entry.path.trim_start_matches('/')))).collect();
        Self { root, wanted, is_over: AtomicBool::new(false), rounds: AtomicU64::new(0) }
    }

    /// Runs `happen` beside the readers, and gives what they met: nothing but right content, one hopes.
    fn beside(&self, happen: impl FnOnce()) -> Vec<String> {
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|number| scope.spawn(move || self.read(number))).collect();
            // Also when something fails here.
            let over = Over(&self.is_over);
            wait_until("every reader has begun", || self.rounds() >= READERS as u64);
            happen();
            let before = self.rounds();
            wait_until("all readers go on", || self.rounds() >= before + 2 * READERS as u64);
            drop(over);
            readers.into_iter().flat_map(|reader| reader.join().expect("a reader")).collect()
        })
    }

    fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }

    fn read(&self, number: usize) -> Vec<String> {
        let mut met = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            // So that the kernel asks the server again for names, attributes and content.
            if number == 0 {
                forget_what_is_cached();
            }
            for (path, wanted) in &self.wanted {
                match std::fs::read(self.root.join(path)) {
                    Ok(found) if found == *wanted => {}
                    Ok(found) => met.push(format!("{}: {} bytes that differ", path.display(), found.len())),
                    Err(error) => met.push(format!("{}: {error}", path.display())),
                }
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        met
    }
}

/// Drops what the kernel has cached: pages, names and inodes.
fn forget_what_is_cached() {
    contd_test_harness::machine::drop_page_cache();
}

impl Server {
    /// The process that serves, as it is written down.
    fn serving(&self) -> ProcessIdentity {
        let text = std::fs::read(self.dir.join(SERVER_FILE)).expect("server.json");
        let process: Process = serde_json::from_slice(&text).expect("server.json");
        ProcessIdentity { pid: process.pid, start_ticks: process.start_ticks }
    }

    /// The process that the lease names.
    fn keeper(&self) -> ProcessIdentity {
        let LeaseState::Held(lease) = LeaseDir::new(&self.dir).probe().unwrap() else { panic!("nobody holds it") };
        lease.process.expect("claimed")
    }

    fn mount_id(&self) -> String {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = mountinfo.lines().find(|line| line.contains(self.mnt.to_str().unwrap())).expect("mounted");
        line.split(' ').next().unwrap().to_owned()
    }

    /// Starts a successor as an upgrade does.
    fn succeed(&self) -> std::process::Output {
        Command::new(BINARY).arg("--dir").arg(&self.dir).arg("--succeed").output().expect("run")
    }
}

#[track_caller]
fn kill(process: &ProcessIdentity) {
    let fd = pidfd(process).unwrap().expect("it lives");
    assert!(signal(&fd, SIGKILL).unwrap());
    assert!(wait_dead(&fd, LONG).unwrap());
}

#[track_caller]
fn kill_server_and_wait(server: &Server) {
    let before = server.serving();
    kill(&before);
    wait_until("another serves", || server.serving() != before);
}

#[track_caller]
fn kill_keeper_and_wait(server: &Server) {
    let (keeper, serving) = (server.keeper(), server.serving());
    kill(&keeper);
    wait_until("another keeper and its server are there", || server.keeper() != keeper && server.serving() != serving);
    wait_until("those before are gone", || pidfd(&serving).unwrap().is_none());
}

#[test]
fn a_hundred_kills_of_the_server_cost_eight_readers_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("busybox", scratch.path());
    let before = census(scratch.path());
    let server = Server::start(scratch.path(), &flist);
    let (keeper, mount) = (server.keeper(), server.mount_id());
    let readers = Readers::new(&server.mnt, "busybox");
    let met = readers.beside(|| (0..KILLS).for_each(|_| kill_server_and_wait(&server)));
    assert!(met.is_empty(), "{} wrong answers: {:?}", met.len(), &met[..met.len().min(5)]);
    assert_eq!((server.keeper(), server.mount_id()), (keeper, mount));
    assert_eq!(server.status().pid, server.serving().pid);
    server.stop();
    assert_eq!(census(scratch.path()), before, "something leaked");
}

#[test]
fn who_waits_for_a_store_is_answered_by_a_successor_of_the_server_that_took_the_request() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("small", scratch.path());
    let (store, is_open) = (scratch.path().join("store"), Arc::new(AtomicBool::new(false)));
    copy_store("small", &store);
    let gate = Arc::clone(&is_open);
    let web = WebServer::start(move |_, path| match std::fs::read(store.join(path.trim_start_matches('/'))) {
        Ok(block) if gate.load(Ordering::Relaxed) => Answer::Full(200, block),
        Ok(_) => Answer::Silence,
        Err(_) => Answer::Full(404, Vec::new()),
    });
    let database = rusqlite::Connection::open(&flist).unwrap();
    database.execute("update route set url = ?1", [&web.url]).unwrap();
    drop(database);
    let server = Server::start(scratch.path(), &flist);
    // More than a server downloads at once: the others are on its shelf.
    let files = manifest("small").into_iter().filter(|entry| entry.kind == "file" && entry.size > Some(0));
    let paths: Vec<PathBuf> = files.take(READERS).map(|entry| server.mnt.join(&entry.path[1..])).collect();
    assert_eq!(paths.len(), READERS);
    // Processes: a thread of this one that waits could not be ended.
    let cat = |path: &PathBuf| Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().expect("start a reader");
    let readers: Vec<_> = paths.iter().map(cat).collect();
    let (mut seen, deaths) = (0, 5);
    for death in 1..=deaths {
        wait_until("blocks are asked for", || web.requests() > seen);
        seen = web.requests();
        // Before the last death: the last server asks a store that answers, and has no time to give up.
        is_open.store(death == deaths, Ordering::Relaxed);
        kill_server_and_wait(&server);
    }
    for (reader, path) in readers.into_iter().zip(&paths) {
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout == std::fs::read(path).unwrap(), "{}", path.display());
    }
    assert_matches_manifest(&server.mnt, "small");
    server.stop();
}

#[test]
fn a_killed_keeper_is_succeeded_and_readers_do_not_notice() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let mount = server.mount_id();
    let readers = Readers::new(&server.mnt, "small");
    let met = readers.beside(|| {
        for _ in 0..10 {
            kill_keeper_and_wait(&server);
            kill_server_and_wait(&server);
        }
    });
    assert!(met.is_empty(), "{met:?}");
    assert_eq!(server.mount_id(), mount);
    assert_eq!(servers(&server.dir).len(), 2, "{:?}", servers(&server.dir));
    server.stop();
}

#[test]
fn a_successor_of_a_newer_program_takes_over_under_readers() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let (keeper, serving, mount) = (server.keeper(), server.serving(), server.mount_id());
    let readers = Readers::new(&server.mnt, "small");
    let met = readers.beside(|| {
        for _ in 0..5 {
            let output = server.succeed();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    });
    assert!(met.is_empty(), "{met:?}");
    for first in [keeper, serving] {
        wait_until("the first ones are gone", || pidfd(&first).unwrap().is_none());
    }
    assert_eq!(server.mount_id(), mount);
    assert_eq!(servers(&server.dir).len(), 2, "{:?}", servers(&server.dir));
    server.stop();
}

#[test]
fn a_server_that_stands_still_is_replaced_and_its_readers_wait_that_long() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    let before = server.serving();
    signal(pidfd(&before).unwrap().unwrap(), SIGSTOP).unwrap();
    assert_matches_manifest(&server.mnt, "small");
    assert_ne!(server.serving(), before);
    server.stop();
}

#[test]
fn a_successor_that_cannot_serve_leaves_the_server_as_it_was() {
    let scratch = tempfile::tempdir().unwrap();
    let flist = fixture("small", scratch.path());
    let server = Server::start(scratch.path(), &flist);
    let (keeper, serving) = (server.keeper(), server.serving());
    let aside = scratch.path().join("aside");
    std::fs::rename(&flist, &aside).unwrap();
    let output = server.succeed();
    assert_eq!(output.status.code(), Some(66), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::rename(&aside, &flist).unwrap();
    assert_eq!((server.keeper(), server.serving()), (keeper, serving));
    assert_matches_manifest(&server.mnt, "small");
    // It did not stop looking after itself.
    kill_keeper_and_wait(&server);
    server.stop();
}

#[test]
fn a_server_that_cannot_come_back_fails_its_readers_and_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let bystander_scratch = tempfile::tempdir().unwrap();
    let bystander = Server::start(bystander_scratch.path(), &fixture("busybox", bystander_scratch.path()));
    let store = scratch.path().join("store");
    copy_store("small", &store);
    let server = Server::start(scratch.path(), &place_fixture("small", scratch.path(), &store));
    let held = std::fs::File::open(server.mnt.join("etc/hostname")).unwrap();
    // The cache becomes a file: every server from now on fails before it serves. In one step, as this one still reads ahead.
    let (cache, file) = (scratch.path().join("cache"), scratch.path().join("file"));
    std::fs::write(&file, b"").unwrap();
    renameat2(AT_FDCWD, &cache, AT_FDCWD, &file, RenameFlags::RENAME_EXCHANGE).unwrap();
    kill(&server.serving());
    let asked = std::thread::spawn({
        let root = server.mnt.clone();
        move || std::fs::read_dir(root.join("etc")).map(|_| ())
    });
    let error: io::Error = asked.join().unwrap().expect_err("nobody serves");
    assert!(matches!(error.raw_os_error(), Some(nix::libc::ENOTCONN | nix::libc::ECONNABORTED)), "{error}");
    wait_until("all are gone", || servers(&server.dir).is_empty());
    let words = std::fs::read(server.dir.join(LAST_WORDS_FILE)).expect("last words");
    let words: ApiError = serde_json::from_slice(&words).expect("an error");
    assert!(
        words.message.contains("too often in a row, the last time with exit code") && words.hint.is_some(),
        "{words:?}"
    );
    let log = std::fs::read_to_string(server.dir.join("flistfs.log")).unwrap();
    assert!(log.contains("open the block cache"), "{log}");
    assert!(matches!(LeaseDir::new(&server.dir).probe().unwrap(), LeaseState::Dead(_)));
    assert_matches_manifest(&bystander.mnt, "busybox");
    drop(held);
    bystander.stop();
}

#[test]
fn whoever_leaves_word_can_end_all_processes_for_good() {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(scratch.path(), &fixture("small", scratch.path()));
    std::fs::write(server.dir.join(ENDING_FILE), b"").unwrap();
    kill(&server.keeper());
    kill(&server.serving());
    wait_until("nobody holds the lease", || matches!(LeaseDir::new(&server.dir).probe().unwrap(), LeaseState::Dead(_)));
    assert!(servers(&server.dir).is_empty(), "{:?}", servers(&server.dir));
    assert!(!server.succeed().status.success());
}
