//! The doctor: silent about a healthy node, and each kind of leak is planted once, found, removed, and gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use contd_lease::{ExitInfo, LeaseDir, ProcessIdentity, exit_info, pidfd};
use contd_protocol::flistfs::{CacheLimits, SERVE_SPEC_VERSION, ServeSpec};
use contd_protocol::shim::{SLOT_SPEC_VERSION, SlotSpec};
use contd_types::ContainerId;
use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::harness::census::is_slot_whole;
use crate::harness::machine::has_fuse_passthrough;
use crate::harness::{Node, assert_counted, eventually};

/// Says a line now and then.
const TALK: &str = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";

/// The report of a node's doctor: its exit code, and its findings that are more than ok.
#[derive(Debug)]
struct Diagnosis {
    code: i32,
    findings: Vec<Value>,
}

impl Diagnosis {
    #[track_caller]
    fn of(node: &Node, flags: &[&str]) -> Self {
        let mut args = vec!["doctor".to_owned(), "--format".to_owned(), "json".to_owned()];
        let config = node.root.join("config.toml");
        let dirs = [("state", "state"), ("run", "run"), ("log", "log"), ("cache", "cache")];
        args.extend(["--config".to_owned(), config.display().to_string()]);
        for (flag, dir) in dirs.map(|(name, dir)| (format!("--{name}-dir"), dir)) {
            if !flags.contains(&flag.as_str()) {
                args.extend([flag, node.root.join(dir).display().to_string()]);
            }
        }
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let output = node.contd(args);
        assert_eq!(output.stderr, "", "with {}", output.stdout);
        let findings = output.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        Self { code: output.code, findings: findings.filter(|finding| finding["severity"] != "ok").collect() }
    }

    /// Demands exactly the notes that this machine deserves, and `more`.
    #[track_caller]
    fn is_healthy_but_for(&self, node: &Node, more: &[(&str, &str)]) {
        assert_eq!(self.code, 0, "{self:#?}");
        let mut expected = expected_notes(node);
        expected.extend(more.iter().map(|(severity, check)| ((*severity).to_owned(), (*check).to_owned())));
        expected.sort();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let mut found: Vec<(String, String)> =
            self.findings.iter().map(|finding| (text(&finding["severity"]), text(&finding["check"]))).collect();
        found.sort();
        assert_eq!(found, expected, "{self:#?}");
    }

    /// Returns check, place and remedy of all that is more than a note.
    fn leaks(&self) -> Vec<(&str, &str, &str)> {
        let leaks = self.findings.iter().filter(|finding| finding["severity"] != "note");
        leaks
            .map(|finding| {
                let text = |key: &str| finding[key].as_str().expect("text");
                (text("check"), text("where"), text("remedy"))
            })
            .collect()
    }
}

/// The notes that are true of every test node on this machine: its directories lie in /tmp.
fn expected_notes(node: &Node) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    if !contd_rootfs::survey::limits_layers(&node.root.join("state")).expect("asked") {
        notes.push("filesystems");
    }
    let status = fs::read_to_string("/proc/self/status").expect("read");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("capabilities");
    if u64::from_str_radix(line.trim(), 16).expect("hexadecimal") & (1 << 24) == 0 {
        notes.push("capabilities");
    }
    // On a disk the run directory should not be there; in memory state and cache should not.
    let kind = nix::sys::statfs::statfs(&node.root).expect("statfs").filesystem_type();
    let is_memory = kind == nix::sys::statfs::TMPFS_MAGIC;
    notes.extend(["directories"].repeat(if is_memory { 2 } else { 1 }));
    notes.extend([has_fuse_passthrough(), tells_exits()].into_iter().filter(|has| !has).map(|_| "kernel"));
    notes.into_iter().map(|check| ("note".to_owned(), check.to_owned())).collect()
}

/// Tells whether this kernel says to whoever has a pidfd how its process has ended.
fn tells_exits() -> bool {
    let mut child = Command::new("true").spawn().expect("run true");
    let identity = ProcessIdentity::of(i32::try_from(child.id()).expect("a pid")).expect("look").expect("not reaped");
    let fd = pidfd(&identity).expect("open").expect("not reaped");
    child.wait().expect("reap");
    matches!(exit_info(&fd).expect("ask"), ExitInfo::Known(_))
}

/// A container that must notice nothing.
struct Bystander {
    pid: Value,
    id: String,
}

impl Bystander {
    fn start(node: &Node, flist: &str) -> Self {
        node.contd(["run", "-d", "--name", "stays", flist, "/bin/sh", "-c", TALK]).ok();
        let inspect = node.inspect("stays");
        Self { pid: inspect["pid"].clone(), id: inspect["id"].as_str().expect("an id").to_owned() }
    }

    fn lines(node: &Node) -> usize {
        node.log_file("default", "stays").lines().count()
    }

    /// Demands that it goes on, as the same process, with every line in its log.
    #[track_caller]
    fn is_untouched(&self, node: &Node) {
        let before = Self::lines(node);
        eventually("the bystander to go on", || (Self::lines(node) > before + 5).then_some(()));
        assert_eq!(node.inspect("stays")["pid"], self.pid);
        let log = node.log_file("default", "stays");
        assert_counted(&crate::harness::said(&log));
    }
}

/// Makes something look as if it had lain there for an hour.
fn age(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(path).and_then(|file| file.set_modified(long_ago)).expect("set the time");
}

fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().expect("run true");
    child.wait().expect("reap");
    child.id()
}

/// Tells whether a process has ended, reaped or not: pid 1 may be slow.
fn is_dead(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
}

/// A planted leak: the check that must find it, what its place must name, and how its remedy must begin.
struct Leak {
    check: &'static str,
    place: PathBuf,
    remedy: &'static str,
}

const FIX: &str = "contd doctor --fix ";

/// Leaves one leak of each kind that can be left beside a running daemon.
fn plant(node: &Node, bystander: &Bystander) -> Vec<Leak> {
    let (run, state) = (node.root.join("run"), node.root.join("state"));
    let forgotten = "f".repeat(32);
    let lease = run.join("s").join(&forgotten[..16]);
    LeaseDir::new(&lease).reserve(&format!("default/{forgotten}"), &lease.join("sock")).expect("reserve");
    age(&lease.join("lease.json"));
    let empty = run.join("s/0000000000000000");
    fs::create_dir(&empty).expect("make");
    age(&empty);
    let socket = run.join("old.sock");
    drop(UnixListener::bind(&socket).expect("bind"));
    let point = state.join("stray");
    fs::create_dir(&point).expect("make");
    mount(Some("contd"), &point, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("mount");
    let temp = state.join("default").join(&bystander.id).join(format!(".record.json.tmp-{}-0", dead_pid()));
    fs::write(&temp, "half a rec").expect("write");
    let directory = state.join("default").join("e".repeat(32));
    fs::create_dir_all(directory.join("bundle")).expect("make");
    age(&directory);
    vec![
        Leak { check: "shims", place: lease, remedy: "ends the shim" },
        Leak { check: "shims", place: empty, remedy: "removes the lease directory" },
        Leak { check: "mounts", place: point, remedy: "unmounts it" },
        Leak { check: "servers", place: plant_server(node), remedy: "ends the flist server" },
        Leak { check: "groups", place: plant_cgroup(node), remedy: "removes the cgroup" },
        Leak { check: "run-files", place: socket, remedy: "removes the file" },
        Leak { check: "state-files", place: directory, remedy: "removes the bundle and the directory" },
        Leak { check: "temp-files", place: temp, remedy: "removes the file" },
    ]
}

/// Starts a flist server as the daemon does, and notes no user.
fn plant_server(node: &Node) -> PathBuf {
    let dir = node.root.join("run/f/00000000deadbeef");
    let fetched = fs::read_dir(node.root.join("cache/fl")).expect("a cache").flatten().map(|entry| entry.path());
    let flist = fetched.into_iter().find(|path| path.extension().is_some_and(|end| end == "fl")).expect("a flist");
    let hash = flist.file_stem().and_then(|stem| stem.to_str()).expect("a hash").to_owned();
    LeaseDir::new(&dir).reserve(&format!("flist {hash}"), &dir.join("sock")).expect("reserve");
    let mount_point = dir.join("mnt");
    fs::create_dir(&mount_point).expect("make");
    let (cache, source) = (node.root.join("cache"), flist.display().to_string());
    let (version, cache_limits, limited_routes) = (SERVE_SPEC_VERSION, CacheLimits::default(), None);
    let operation = None;
    let spec = ServeSpec { version, flist, hash, mount_point, cache, source, cache_limits, limited_routes, operation };
    fs::write(dir.join("serve.json"), serde_json::to_vec(&spec).expect("JSON")).expect("write");
    let binary = Path::new(env!("CARGO_BIN_EXE_contd")).with_file_name("contd-flistfs");
    let status = Command::new(binary).arg("--dir").arg(&dir).current_dir("/").status().expect("start a server");
    assert!(status.success(), "{status}");
    age(&dir);
    dir
}

/// Makes a cgroup in two hierarchies, as a container's would be; returns its path as contd has it.
fn plant_cgroup(node: &Node) -> PathBuf {
    let id = "c".repeat(32);
    let parents = crate::harness::census::cgroups_below(&node.cgroup_parent);
    let parents: Vec<_> = parents.into_iter().filter(|path| path.ends_with(&node.cgroup_parent)).take(2).collect();
    assert!(!parents.is_empty(), "no parent of cgroups");
    for parent in parents {
        fs::create_dir(parent.join(&id)).expect("make a cgroup");
    }
    Path::new("/").join(&node.cgroup_parent).join(id)
}

#[track_caller]
fn finds_each(diagnosis: &Diagnosis, leaks: &[Leak]) {
    let found = diagnosis.leaks();
    for Leak { check, place, remedy } in leaks {
        let place = place.display().to_string();
        let is_it = |(its, at, what): &&(&str, &str, &str)| {
            its == check && at.contains(&place) && what.starts_with(&format!("{FIX}{remedy}"))
        };
        assert_eq!(found.iter().filter(is_it).count(), 1, "{check} at {place} is not in {found:#?}");
    }
    assert_eq!(found.len(), leaks.len(), "more than was planted: {found:#?}");
    assert_eq!(diagnosis.code, 1);
}

#[test]
fn a_healthy_node_gets_no_more_than_the_notes_it_deserves() {
    let mut node = Node::start();
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[]);
    let flist = node.flist();
    let bystander = Bystander::start(&node, flist.arg());
    node.contd(["run", "-d", "--name", "ended", flist.arg(), "/bin/true"]).ok();
    node.wait_for_status("ended", "stopped");
    node.contd(["run", "-d", "--name", "readonly", "--read-only", flist.arg(), "/bin/sleep", "1000"]).ok();
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[]);
    node.stop_daemon();
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon")]);
    Diagnosis::of(&node, &["--fix"]).is_healthy_but_for(&node, &[("note", "daemon")]);
    node.start_daemon();
    bystander.is_untouched(&node);
    node.contd(["rm", "-f", "-t", "0", "stays", "ended", "readonly"]).ok();
    node.finish();
}

#[test]
fn what_a_busy_daemon_is_just_making_is_no_leak() {
    let node = Node::start();
    let flist = node.flist();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = |dry: bool| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let args: &[&str] = if dry { &["run", "--dry-run"] } else { &["run", "--rm"] };
                node.contd(args.iter().copied().chain([flist.arg(), "/bin/true"])).ok();
            }
        };
        scope.spawn(move || work(false));
        scope.spawn(move || work(true));
        let diagnoses: Vec<Diagnosis> = (0..8).map(|_| Diagnosis::of(&node, &["--fix"])).collect();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        for diagnosis in diagnoses {
            assert_eq!((diagnosis.code, diagnosis.leaks()), (0, vec![]));
        }
    });
    node.finish();
}

fn each_leak_is_found_and_removed(has_daemon: bool) {
    let mut node = Node::start();
    let flist = node.flist();
    let bystander = Bystander::start(&node, flist.arg());
    let leaks = plant(&node, &bystander);
    let more: &[(&str, &str)] = if has_daemon { &[] } else { &[("note", "daemon")] };
    if !has_daemon {
        node.stop_daemon();
    }
    finds_each(&Diagnosis::of(&node, &[]), &leaks);
    // To look is not to touch.
    finds_each(&Diagnosis::of(&node, &[]), &leaks);
    let fixed = Diagnosis::of(&node, &["--fix"]);
    assert_eq!(fixed.code, 0, "{fixed:#?}");
    for finding in fixed.findings.iter().filter(|finding| finding["severity"] != "note") {
        assert_eq!(finding["fixed"], true, "{finding:#?}");
    }
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, more);
    for leak in &leaks {
        let is_point = leak.check == "mounts";
        assert!(is_point || !leak.place.exists(), "{} is still there", leak.place.display());
    }
    fs::remove_dir(node.root.join("state/stray")).expect("the mount point is empty and free");
    if !has_daemon {
        node.start_daemon();
    }
    bystander.is_untouched(&node);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

#[test]
fn each_leak_is_found_and_removed_beside_a_running_daemon() {
    each_leak_is_found_and_removed(true);
}

#[test]
fn each_leak_is_found_and_removed_without_a_daemon() {
    each_leak_is_found_and_removed(false);
}

#[test]
fn a_shim_without_a_record_is_ended_with_all_that_it_holds() {
    for runtime in ["native", "runc"] {
        let mut node = Node::start();
        let flist = node.flist();
        let bystander = Bystander::start(&node, flist.arg());
        node.contd(["run", "-d", "--name", "lost", "--runtime", runtime, flist.arg(), "/bin/sh", "-c", TALK]).ok();
        let inspect = node.inspect("lost");
        let (id, pid) = (inspect["id"].as_str().expect("an id").to_owned(), inspect["pid"].clone());
        let shim = node.shim_pid("lost");
        node.kill_daemon();
        fs::remove_file(node.root.join("state/default").join(&id).join("record.json")).expect("lose the record");
        let diagnosis = Diagnosis::of(&node, &[]);
        let mut checks: Vec<&str> = diagnosis.leaks().iter().map(|(check, _, _)| *check).collect();
        checks.sort_unstable();
        // The socket is that of the daemon, which was killed.
        assert_eq!(checks, ["mounts", "run-files", "servers", "shims", "state-files"], "{diagnosis:#?}");
        let is_shim =
            |(check, place, _): &(&str, &str, &str)| *check == "shims" && place.ends_with(&format!("pid {shim}"));
        assert!(diagnosis.leaks().iter().any(is_shim), "{diagnosis:#?}");
        let fixed = Diagnosis::of(&node, &["--fix"]);
        assert_eq!(fixed.code, 0, "{fixed:#?}");
        assert!(is_dead(shim.into()) && is_dead(pid.as_i64().expect("a pid")));
        // Its log is kept, and told.
        Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon"), ("note", "logs")]);
        fs::remove_file(node.root.join("log/default/lost.log")).expect("the log was kept");
        node.start_daemon();
        bystander.is_untouched(&node);
        node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        node.finish();
    }
}

#[test]
fn a_record_that_cannot_be_read_needs_a_person_and_spares_its_container() {
    let mut node = Node::start();
    let flist = node.flist();
    let bystander = Bystander::start(&node, flist.arg());
    node.stop_daemon();
    let record = node.root.join("state/default").join(&bystander.id).join("record.json");
    let whole = fs::read(&record).expect("a record");
    fs::write(&record, "{").expect("damage it");
    for flags in [&[][..], &["--fix"]] {
        let diagnosis = Diagnosis::of(&node, flags);
        let [(check, place, remedy)] = diagnosis.leaks()[..] else { panic!("{diagnosis:#?}") };
        assert_eq!((diagnosis.code, check, place), (1, "records", record.to_str().expect("utf-8")));
        assert!(remedy.starts_with("repair it"), "{remedy}");
    }
    fs::write(&record, whole).expect("repair it");
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon")]);
    node.start_daemon();
    bystander.is_untouched(&node);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

/// Tests that depend neither on the runtime nor on slots.
mod once {
    use super::*;

    #[test]
    fn a_record_that_was_set_aside_is_told_until_it_is_gone() {
        let mut node = Node::start();
        let dir = node.root.join("state/default").join("d".repeat(32));
        node.stop_daemon();
        fs::create_dir_all(&dir).expect("make");
        fs::write(dir.join("record.json"), "{").expect("write");
        node.announce("record set aside");
        node.start_daemon();
        let diagnosis = Diagnosis::of(&node, &["--fix"]);
        let [(check, place, _)] = diagnosis.leaks()[..] else { panic!("{diagnosis:#?}") };
        assert_eq!((diagnosis.code, check), (1, "records"));
        assert!(place.ends_with("record.json.damaged-1"), "{place}");
        fs::remove_file(place).expect("a person removes it");
        age(&dir);
        assert_eq!(Diagnosis::of(&node, &["--fix"]).code, 0);
        assert!(!dir.exists());
        node.finish();
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_a_problem_and_nothing_is_taken_for_a_leak() {
        let node = Node::start();
        let flist = node.flist();
        let bystander = Bystander::start(&node, flist.arg());
        let elsewhere = node.root.join("run/elsewhere.sock");
        let address = elsewhere.to_str().expect("utf-8");
        let diagnosis = Diagnosis::of(&node, &["--address", address, "--fix"]);
        let [(check, _, _)] = diagnosis.leaks()[..] else { panic!("{diagnosis:#?}") };
        assert_eq!((diagnosis.code, check), (1, "daemon"));
        bystander.is_untouched(&node);
        node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        node.finish();
    }

    #[test]
    fn directories_of_two_nodes_are_not_mixed_up() {
        let (mut node, other) = (Node::start(), Node::start());
        let flist = node.flist();
        let bystander = Bystander::start(&node, flist.arg());
        let refuses = |node: &Node, flags: &[&str], check: &str| {
            let diagnosis = Diagnosis::of(node, &[flags, &["--fix"]].concat());
            let [(found, _, _)] = diagnosis.leaks()[..] else { panic!("{flags:?}: {diagnosis:#?}") };
            assert_eq!((diagnosis.code, found), (1, check), "{flags:?}");
        };
        let text = |path: PathBuf| path.to_str().expect("utf-8").to_owned();
        let (address, theirs) = (text(other.socket()), text(other.root.clone()));
        refuses(&node, &["--address", &address], "daemon");
        node.stop_daemon();
        refuses(&node, &["--state-dir", &format!("{theirs}/state")], "directories");
        refuses(&node, &["--run-dir", &format!("{theirs}/input")], "directories");
        node.start_daemon();
        bystander.is_untouched(&node);
        node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        node.finish();
        other.finish();
    }

    #[test]
    fn who_is_not_root_is_told_so_before_anything_is_done() {
        let open = fs::Permissions::from_mode(0o755);
        let dir =
            tempfile::Builder::new().prefix("contd-t-").permissions(open).tempdir_in("/tmp").expect("make a directory");
        let program = dir.path().join("contd");
        fs::copy(env!("CARGO_BIN_EXE_contd"), &program).expect("copy the program");
        let mut command = Command::new(&program);
        command.args(["doctor", "--fix"]).uid(65_534).gid(65_534).current_dir("/");
        let output = loop {
            match command.output() {
                // A test beside this one has forked while our copy was being written; its exec ends that.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                done => break done.expect("run contd"),
            }
        };
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(
            text.contains("only root may do that") && text.contains("hint: run contd doctor --fix as root"),
            "{text}"
        );
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_code_125_and_the_list_needs_none() {
        let node = Node::start();
        node.contd(["doctor", "--config", "/nowhere/config.toml"]).fails_with(125, "/nowhere/config.toml");
        let list = node.contd(["doctor", "--list"]);
        for check in ["kernel", "cgroups", "shims", "temp-files", "logs"] {
            assert!(list.ok().lines().any(|line| line.starts_with(&format!("{check} "))), "{check} is not listed");
        }
        node.finish();
    }
}

/// Starts a warm slot as the daemon does; it lives as long as its leash.
fn plant_slot(node: &Node) -> (PathBuf, ContainerId, std::io::PipeWriter) {
    // Its own in each test and each run of the suite: doctor leaves alone what bears the name of another node's shim.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = ContainerId::new(format!("{:08x}{number:08x}{}", std::process::id(), "b".repeat(16))).expect("an id");
    let dir = node.root.join("run/s").join(&id.as_str()[..16]);
    LeaseDir::new(&dir).reserve(&format!(".slot/{id}"), &dir.join("sock")).expect("reserve");
    let program = |name: &str| Path::new(env!("CARGO_BIN_EXE_contd")).with_file_name(name);
    let spec = SlotSpec {
        version: SLOT_SPEC_VERSION,
        id: id.clone(),
        cgroup: Path::new("/").join(&node.cgroup_parent).join(id.as_str()),
        filters: node.root.join("cache/seccomp"),
        compiler: program("contd-seccomp"),
    };
    fs::write(dir.join("slot.json"), serde_json::to_vec(&spec).expect("JSON")).expect("write");
    let (theirs, leash) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(program("contd-shim"));
    command.arg("--dir").arg(&dir).arg("--slot").stdin(theirs).current_dir("/");
    let status = command.status().expect("start a slot");
    assert!(status.success(), "{status}");
    eventually("the slot to be whole", || is_slot_whole(&node.root, &node.cgroup_parent, id.as_str()).then_some(()));
    (dir, id, leash)
}

#[test]
fn a_warm_slot_that_does_not_end_with_its_daemon_is_ended() {
    let mut node = Node::start();
    node.stop_daemon();
    let (dir, id, leash) = plant_slot(&node);
    // A young one may be about to end.
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon")]);
    age(&dir.join("lease.json"));
    let leak = Leak { check: "shims", place: dir.clone(), remedy: "ends the warm slot" };
    finds_each(&Diagnosis::of(&node, &[]), &[leak]);
    assert_eq!(Diagnosis::of(&node, &["--fix"]).code, 0);
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon")]);
    assert!(!dir.exists() && cgroups_of(&node, &id).is_empty());
    drop(leash);
    node.start_daemon();
    node.finish();
}

#[test]
fn a_shim_whose_lease_directory_is_gone_is_ended_with_its_cgroup() {
    let mut node = Node::start();
    let flist = node.flist();
    let bystander = Bystander::start(&node, flist.arg());
    node.stop_daemon();
    let (dir, id, leash) = plant_slot(&node);
    fs::remove_dir_all(&dir).expect("remove its directory under it");
    let diagnosis = Diagnosis::of(&node, &[]);
    let checks: BTreeSet<&str> = diagnosis.leaks().iter().map(|(check, _, _)| *check).collect();
    assert_eq!(checks, BTreeSet::from(["processes", "groups"]), "{diagnosis:#?}");
    let fixed = Diagnosis::of(&node, &["--fix"]);
    assert_eq!(fixed.code, 0, "{fixed:#?}");
    Diagnosis::of(&node, &[]).is_healthy_but_for(&node, &[("note", "daemon")]);
    assert!(cgroups_of(&node, &id).is_empty());
    drop(leash);
    node.start_daemon();
    bystander.is_untouched(&node);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

fn cgroups_of(node: &Node, id: &ContainerId) -> Vec<PathBuf> {
    let all = crate::harness::census::cgroups_below(&node.cgroup_parent);
    all.into_iter().filter(|path| path.ends_with(id.as_str())).collect()
}

#[test]
fn a_node_with_the_same_cgroup_parent_is_left_alone() {
    let node = Node::start();
    let flist = node.flist();
    let bystander = Bystander::start(&node, flist.arg());
    let other = node.root.join("input/other");
    fs::create_dir(&other).expect("make");
    let config = format!("cgroup_parent = \"{}\"\n", node.cgroup_parent);
    fs::write(other.join("config.toml"), config).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_contd"));
    command.arg("doctor").arg("--fix").arg("--config").arg(other.join("config.toml"));
    for dir in ["state", "run", "log", "cache"] {
        fs::create_dir(other.join(dir)).expect("make");
        command.arg(format!("--{dir}-dir")).arg(other.join(dir));
    }
    let output = command.output().expect("run contd");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("fixed"), "{text}");
    bystander.is_untouched(&node);
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}
