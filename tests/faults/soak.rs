//! Cycles without end: create, start, stop, delete, sixteen at once, and with a daemon that dies every few seconds.
//!
//! `CONTD_SOAK_CYCLES` (150 when left out; `make soak` says 10,000) and `CONTD_SOAK_KILL_S` choose how much.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use contd_client::{Client, ClientError, Deadline};
use contd_protocol::api::{RunRequest, Target};
use contd_types::{ContainerName, ContainerRef, ContainerSpec, Entrypoint, ErrorKind, NamespaceId};

use crate::harness::{Node, eventually};

const PARALLEL: u64 = 16;
/// From which cycle on the daemon's memory must not grow: caches, pools and allocator arenas are full by then.
const WARM_UP: u64 = 1000;
/// How much it may, in per cent.
const MAX_GROWTH: f64 = 5.0;
/// How long a cycle may take, with all its repetitions.
const CYCLE: Duration = Duration::from_secs(600);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Returns by how many per cent the daemon has grown.
///
/// # Errors
/// When that is too much, in words.
fn judge_growth(warm_kib: u64, then_kib: u64) -> Result<f64, String> {
    let growth = (then_kib as f64 / warm_kib as f64 - 1.0) * 100.0;
    if growth < MAX_GROWTH {
        return Ok(growth);
    }
    Err(format!("the daemon grew by {growth:.1} %, from {warm_kib} to {then_kib} KiB"))
}

fn rss_kib(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon lives");
    let line = status.lines().find_map(|line| line.strip_prefix(which)).expect("a resident size");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

/// One of the sixteen workers.
struct Worker {
    socket: PathBuf,
    flist: String,
    client: Option<Client>,
    /// Whether a lost daemon is expected, and waited for.
    is_patient: bool,
}

impl Worker {
    /// Calls until it is answered: with `fine`, or with what the state after an earlier, unanswered call explains.
    async fn insist(&mut self, what: &str, fine: &[ErrorKind], call: impl AsyncFn(&Client) -> Result<(), ClientError>) {
        let begin = Instant::now();
        loop {
            let answer = match &self.client {
                Some(client) => call(client).await,
                None => match Client::connect(&self.socket, Deadline::Usual).await {
                    Ok(client) => {
                        self.client = Some(client);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match answer {
                Ok(()) => return,
                Err(error) => error,
            };
            let kind = error.to_api_error().kind;
            if fine.contains(&kind) {
                return;
            }
            assert!(self.is_patient && begin.elapsed() < CYCLE, "{what}: {error:?}");
            self.client = None;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn cycle(&mut self, number: u64) {
        let name = ContainerName::new(format!("soak{number}")).expect("a name");
        let namespace = NamespaceId::new("soak").expect("a namespace");
        let container = ContainerRef::new(name.as_str()).expect("a name is a reference");
        let target = || Target { namespace: namespace.clone(), container: container.clone() };
        let mut spec = ContainerSpec::new(name.clone(), self.flist.clone());
        spec.entrypoint = Some(Entrypoint::Args(vec!["/bin/sleep".into(), "1000".into()]));
        let request = RunRequest { namespace: namespace.clone(), spec, idempotency_key: None, is_attached: false };
        let gone = ErrorKind::NotFound;
        let stop = Some(Duration::ZERO);
        loop {
            let create =
                async |client: &Client| client.create(request.clone(), Deadline::Usual, |_| {}).await.map(drop);
            self.insist("create", if self.is_patient { &[ErrorKind::AlreadyExists] } else { &[] }, create).await;
            // A create that nobody has answered may be rolled back behind the next one's "it exists already".
            let missing = std::cell::Cell::new(false);
            let start = async |client: &Client| match client.start(target(), Deadline::Usual).await {
                Err(error) if error.to_api_error().kind == gone => {
                    missing.set(true);
                    Ok(())
                }
                other => other,
            };
            self.insist("start", &[], start).await;
            if !missing.get() {
                break;
            }
            assert!(self.is_patient, "what was created is gone");
        }
        self.insist("stop", &[], async |client: &Client| client.stop(target(), stop, Deadline::Usual).await.map(drop))
            .await;
        let delete = async |client: &Client| client.delete(target(), false, None, Deadline::Usual).await;
        self.insist("delete", if self.is_patient { &[ErrorKind::NotFound] } else { &[] }, delete).await;
    }
}

/// Runs the cycles; `meanwhile` looks at the node until they are over.
fn cycles(node: &mut Node, count: u64, is_patient: bool, mut meanwhile: impl FnMut(&mut Node, u64)) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let flist = node.flist();
    let (socket, begin) = (node.socket(), Instant::now());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL)
            .map(|_| {
                let (socket, flist) = (socket.clone(), flist.arg().to_owned());
                let (next, done) = (&next, &done);
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    let mut worker = Worker { socket, flist, client: None, is_patient };
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            break;
                        }
                        runtime.block_on(worker.cycle(number));
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            meanwhile(node, done.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!("soak: {count} cycles, {PARALLEL} at once, in {seconds:.0} s: {:.1} a second", count as f64 / seconds);
}

#[test]
fn cycles_leave_nothing_and_the_daemon_does_not_grow() {
    let count = number("CONTD_SOAK_CYCLES", 150);
    let mut node = Node::start();
    let mut sizes = BTreeMap::new();
    let pid = node.daemon_pid();
    let look = |done: u64| {
        let (all, anonymous) = (rss_kib(pid, "VmRSS:"), rss_kib(pid, "RssAnon:"));
        println!("soak: after {done} cycles the daemon has {all} KiB, {anonymous} of them anonymous");
        all
    };
    cycles(&mut node, count, false, |_node, done| {
        sizes.entry(done / WARM_UP).or_insert_with(|| look(done));
    });
    let end = look(count);
    if count >= 2 * WARM_UP {
        let warm = sizes[&1];
        let most = sizes.range(2..).map(|(_, all)| *all).fold(end, u64::max);
        let growth = judge_growth(warm, most).unwrap_or_else(|grown| panic!("{grown}"));
        println!("soak: {growth:+.1} % since cycle {WARM_UP}, at most");
    } else {
        println!("soak: its growth is looked at from {} cycles on", 2 * WARM_UP);
    }
    node.finish();
}

#[test]
fn a_daemon_that_grows_is_found_out() {
    const CALLERS: usize = 200;
    let node = Node::start();
    let call = |_| UnixStream::connect(node.socket()).expect("connect");
    // One after the other: two at once may need more than any two before them.
    let hang_up = |mut caller: UnixStream| {
        caller.shutdown(Shutdown::Write).expect("hang up");
        caller.read_to_end(&mut Vec::new()).expect("the daemon to hang up");
    };
    let size = || rss_kib(node.daemon_pid(), "VmRSS:");
    (0..CALLERS).map(call).for_each(hang_up);
    let warm = size();
    (0..CALLERS).map(call).for_each(hang_up);
    judge_growth(warm, size()).expect("whoever hangs up leaves nothing");
    let kept: Vec<UnixStream> = (0..CALLERS).map(call).collect();
    eventually("the daemon to have grown too much", || judge_growth(warm, size()).is_err().then_some(()));
    drop(kept);
    node.finish();
}

#[test]
fn cycles_leave_nothing_when_the_daemon_dies_all_the_time() {
    let count = number("CONTD_SOAK_CYCLES", 150) / 3;
    let every = Duration::from_secs(number("CONTD_SOAK_KILL_S", 1));
    let mut node = Node::start();
    node.announce("");
    let (mut last, mut done_then, mut deaths) = (Instant::now(), 0, 0);
    cycles(&mut node, count, true, |node, done| {
        // A cycle between two deaths, or a machine under load would never come to the end of one.
        if last.elapsed() >= every && done > done_then {
            node.kill_daemon();
            node.revive();
            (last, done_then) = (Instant::now(), done);
            deaths += 1;
        }
    });
    println!("soak: the daemon was killed {deaths} times");
    assert!(deaths > 0, "who killed nobody has proven nothing");
    let log = node.daemon_log();
    assert!(!log.contains("panicked"), "the daemon panicked:\n{log}");
    node.finish();
}
