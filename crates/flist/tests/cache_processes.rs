//! One cache, several processes: this test program starts itself again as a process that reads and writes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::cache_support::{Packed, Reader, age, disk_usage, eventually, limit, no_limits};
use contd_flist::CacheOptions;
use contd_flist::cache::{Prune, prune, usage};
use contd_test_harness::flist::Server;

/// The task of the started process: `<flist> <cache root> <limit> <length of a file> <count> <reads> <seed>`.
const TASK: &str = "CONTD_CACHE_TEST_TASK";

/// The most bytes that one process writes beyond the limit: a quantum until it posts, another until it looks, and a block.
const OVERSHOOT: u64 = (2 << 20) + (1 << 19);

/// The body of the started process; passes at once in the test program itself.
#[test]
fn the_started_process() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let task = task.into_string().unwrap();
    let words = task.split(' ').collect::<Vec<_>>();
    let [fl, root, max_bytes, len, count, reads, seed] = words[..] else { panic!("{task}") };
    let number = |word: &str| word.parse::<usize>().unwrap();
    let (fl, root) = (PathBuf::from(fl), PathBuf::from(root));
    let reader = Reader::open(&fl, &root, limit(max_bytes.parse().unwrap()), number(len));
    println!("\nready");
    // All processes begin at once.
    let _go = std::io::stdin().read(&mut [0; 1]).unwrap();
    let mut random = fastrand::Rng::with_seed(seed.parse().unwrap());
    let (count, reads) = (number(count), number(reads));
    let mut order = (0..reads).map(|read| read % count).collect::<Vec<_>>();
    random.shuffle(&mut order);
    let errors = order.into_iter().filter_map(|number| reader.read(number).err()).collect::<Vec<_>>();
    println!("\nread with {} errors {errors:?}", errors.len());
}

struct Started {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Started {
    #[track_caller]
    fn new(packed: &Packed, max_bytes: u64, reads: usize, seed: u64) -> Self {
        let (fl, root) = (packed.fl(), packed.root());
        let (len, count) = (packed.len, packed.count);
        let task = format!("{} {} {max_bytes} {len} {count} {reads} {seed}", fl.display(), root.display());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache_processes::the_started_process", "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut started = Self { child, stdin, stdout };
        started.word("ready");
        started
    }

    /// Reads lines until one starts with `begin`, and returns that line.
    #[track_caller]
    fn word(&mut self, begin: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the process ended without {begin:?}");
            if line.starts_with(begin) {
                return line.trim().to_owned();
            }
        }
    }

    fn go(&mut self) {
        drop(self.stdin.take());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Kills the process, also if the test fails.
impl Drop for Started {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn the_limit_holds_while_four_processes_write_more_than_twice_as_much() {
    let packed = Packed::new(240, 256 << 10);
    let max = 24 << 20;
    let mut processes: Vec<_> = (1..=4).map(|seed| Started::new(&packed, max, 260, seed)).collect();
    let blocks = packed.root().join("blocks");
    let (mut most, mut looks) = (0, 0);
    processes.iter_mut().for_each(Started::go);
    while processes.iter_mut().any(|process| process.child.try_wait().unwrap().is_none()) {
        most = most.max(disk_usage(&blocks));
        looks += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    for process in &mut processes {
        assert_eq!(process.word("read with"), "read with 0 errors []");
    }
    println!("at most {most} bytes of {max}, in {looks} looks");
    assert!(looks > 50 && most > max / 2, "{most} in {looks} looks proves nothing");
    assert!(most <= max + 4 * OVERSHOOT, "{most} bytes of {max}");
    // A thread that evicts writes down the size of the cache beside it. One that was at it when its process ended leaves that file, which
    // the next eviction removes; a reader that has ended leaves none.
    assert_eq!(temps(&blocks), [] as [PathBuf; 0], "a reader left a temporary file");
    let left = usage(&packed.root(), &CacheOptions::default()).kinds.temps.amount.count;
    assert!(left <= 4, "{left} temporary files of four processes");
}

#[test]
fn four_processes_that_miss_the_same_blocks_fetch_each_once() {
    let packed = Packed::new(60, 100_000);
    let server = Server::folder(packed.store());
    let database = rusqlite::Connection::open(packed.fl()).unwrap();
    database.execute("UPDATE route SET url = ?1", [&server.url]).unwrap();
    drop(database);
    // Each process reads all files, in another order, so that some blocks are wanted at the same time and others are not.
    let mut processes: Vec<_> = (1..=4).map(|seed| Started::new(&packed, 1 << 40, 60, seed % 2 + 1)).collect();
    processes.iter_mut().for_each(Started::go);
    for process in &mut processes {
        assert_eq!(process.word("read with"), "read with 0 errors []");
    }
    let mut fetches = BTreeMap::<String, usize>::new();
    server.paths.lock().unwrap().iter().for_each(|path| *fetches.entry(path.clone()).or_default() += 1);
    fetches.retain(|_, count| *count > 1);
    assert_eq!(fetches, BTreeMap::new(), "fetched more than once");
    assert_eq!(server.requests(), 60);
}

#[test]
fn writers_that_are_killed_leave_nothing_wrong_and_nothing_for_ever() {
    let packed = Packed::new(80, 128 << 10);
    let mut random = fastrand::Rng::with_seed(42);
    for round in 0..6 {
        let mut processes = [1, 2].map(|seed| Started::new(&packed, 4 << 20, 10_000, round * 2 + seed));
        processes.iter_mut().for_each(Started::go);
        std::thread::sleep(Duration::from_millis(random.u64(20..170)));
        processes.into_iter().for_each(Started::kill);
        let reader = packed.reader(&packed.root(), limit(4 << 20));
        for number in 0..packed.count {
            reader.read(number).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }
    }
    // The leftovers of a process killed in the middle of a write, in case the kills above left none.
    let shard = Arc::new(packed.root().join("blocks/00"));
    std::fs::create_dir_all(&*shard).unwrap();
    std::fs::write(shard.join(".tmp-4194999-0"), "half a bl").unwrap();
    let temps = temps(&packed.root());
    assert!(!temps.is_empty());
    temps.iter().for_each(|path| age(path, Duration::from_secs(120)));
    let report = prune(&packed.root(), &CacheOptions::default(), Prune::ToLimits, false).unwrap();
    assert_eq!(report.removed.temps.count, temps.len() as u64, "{report:?}");
    assert!(temps.iter().all(|path| !path.exists()));
}

fn temps(root: &Path) -> Vec<PathBuf> {
    let is_temp = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(".tmp-");
    crate::support::files_below(root).into_iter().filter(is_temp).collect()
}

#[test]
fn pruning_beside_four_reading_processes_is_never_seen_by_any() {
    let packed = Packed::new(80, 64 << 10);
    let mut processes: Vec<_> = (1..=4).map(|seed| Started::new(&packed, 1 << 40, 400, seed)).collect();
    processes.iter_mut().for_each(Started::go);
    let mut removed = 0;
    while processes.iter_mut().any(|process| process.child.try_wait().unwrap().is_none()) {
        let report = prune(&packed.root(), &CacheOptions::default(), Prune::All, false).unwrap();
        assert_eq!(report.failed.count, 0, "{report:?}");
        removed += report.removed.blocks.count;
    }
    for process in &mut processes {
        assert_eq!(process.word("read with"), "read with 0 errors []");
    }
    assert!(removed > 300, "{removed} removed blocks prove little");
}

/// A process that is stopped at any point must not keep others from reading, writing and evicting for long.
#[test]
fn a_stopped_process_stops_nobody_else() {
    let packed = Packed::new(60, 128 << 10);
    let mut stopped = Started::new(&packed, 2 << 20, 100_000, 7);
    stopped.go();
    eventually("it to write", || disk_usage(&packed.root()) > 1 << 20);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(stopped.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut other = Started::new(&packed, 2 << 20, 120, 8);
    other.go();
    assert_eq!(other.word("read with"), "read with 0 errors []");
    let _reader = packed.reader(&packed.root(), no_limits());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    stopped.kill();
}
