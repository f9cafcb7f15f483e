//! Kills servers under load: measures the time until the next request is answered, and checks the readers' data.
//!
//! Eight readers read files past the page cache and compare them with the tree. A probe calls statfs, which the kernel
//! never caches, so that each call reaches a server: the gap is the time from the kill to the first answer of a call
//! made after it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;

use crate::report::{Table, count, duration};
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{Goal, Samples};

const KILLS: usize = 20;
const READERS: usize = 8;
/// The goal.
const GOAL_MS: f64 = 20.0;
/// The time limit for a successor to answer.
const SUCCESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the readers read between two kills.
const PAUSE: Duration = Duration::from_millis(150);
/// The number of files that each reader reads in turn.
const FILES: usize = 200;
const MAX_BYTES: u64 = 256 * 1024;

const WHAT: &str = "failover, kill -9 to the next answer";

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    if !has_keeper(setup) {
        return table.skipped(WHAT, "nobody takes over from a killed server (its mount answers ENOTCONN)");
    }
    let files = setup.tree.some_files(FILES, MAX_BYTES);
    let server = Server::start(&setup.run_dir, &setup.flist, &setup.kept_cache);
    let (is_over, reads, errors) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut gaps = Samples::default();
    std::thread::scope(|scope| {
        for number in 0..READERS {
            let (files, is_over, reads, errors) = (&files, &is_over, &reads, &errors);
            let (root, tree) = (&server.root, &setup.tree.root);
            scope.spawn(move || {
                for file in files.iter().cycle().skip(number * FILES / READERS) {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let is_right = uncached(&root.join(file)).is_ok_and(|read| is_same(&read, &tree.join(file)));
                    reads.fetch_add(1, Ordering::Relaxed);
                    errors.fetch_add(u64::from(!is_right), Ordering::Relaxed);
                }
            });
        }
        for _ in 0..KILLS {
            std::thread::sleep(PAUSE);
            match one_kill(&server) {
                Ok(gap) => gaps.push(gap),
                Err(_not_answered) => _ = errors.fetch_add(1, Ordering::Relaxed),
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    server.stop();
    if gaps.count() == 0 {
        return table.skipped(WHAT, "not one kill was survived");
    }
    let [mut longest, mut failed] = <[Samples; 2]>::default();
    longest.push_value(gaps.quantile(1.0));
    failed.push_value(errors.load(Ordering::Relaxed) as f64);
    table.value(&format!("{WHAT}, {KILLS} kills, median"), &gaps, duration, Goal::AtMost(GOAL_MS));
    table.value(&format!("{WHAT}, the longest"), &longest, duration, Goal::None);
    let reads = reads.load(Ordering::Relaxed);
    table.value(&format!("failover, errors of {READERS} readers in {reads} reads"), &failed, count, Goal::AtMost(0.0));
}

/// Kills the server that answers, and waits for its successor's answer.
fn one_kill(server: &Server) -> io::Result<Duration> {
    let pid = serving_pid(server);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill the server");
    let begin = Instant::now();
    statvfs(&server.root)?;
    Ok(begin.elapsed())
}

fn serving_pid(server: &Server) -> i32 {
    let begin = Instant::now();
    loop {
        if let Some(pid) = server.serving_pid() {
            return pid;
        }
        assert!(begin.elapsed() < SUCCESSION_TIMEOUT, "no server answers on its socket");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills one server without load and calls its mount: without a keeper of its descriptor the mount is dead at once.
fn has_keeper(setup: &Setup) -> bool {
    let server = Server::start(&setup.run_dir, &setup.flist, &setup.kept_cache);
    let is_kept = one_kill(&server).is_ok();
    if is_kept {
        serving_pid(&server);
        server.stop();
    } else {
        // Remove the dead mount.
        nix::mount::umount2(&server.root, nix::mount::MntFlags::MNT_DETACH).expect("unmount a dead server");
        server.forget();
    }
    is_kept
}

/// Reads a file after dropping it from the page cache.
fn uncached(path: &PathBuf) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let mut content = vec![0; usize::try_from(file.metadata()?.len()).expect("a small file")];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

fn is_same(read: &[u8], path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|wanted| wanted == read)
}
