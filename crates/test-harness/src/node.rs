//! A daemon with directories of its own, and the command against it.

mod ending;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::census::{cgroups_below, has_children, is_anybody_connected};
use crate::servers::lease_pid;
use crate::{Census, Flist, Manager, eventually};

/// Paths that grow on purpose: caches, the journal of events, what tests put there themselves, the daemon's own log, the
/// exits that the holder has noted.
const KEPT: [&str; 7] = ["cache", "state/.events", "input", "daemon.log", "config.toml", "conf.d", "run/h"];

/// Said by the daemon when a deadline of a second has passed, as on a machine that does much else: it goes on another way, and nothing is lost.
const SLOW: [&str; 2] = ["warm shim not usable, starting one", "shim lost error=\"connect to the shim of container"];

/// How often a daemon may end while it starts: each fault strikes once.
const MAX_REVIVALS: u32 = 5;

/// Returns the path of one of our binaries, which `make test` and `cargo test --workspace` have built.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("our own path");
    let path = own.ancestors().nth(2).expect("target/<profile>/deps/<test>").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` (make test does)", path.display());
    path
}

/// Which runtime the suite is run with (`make test` runs it with each): `CONTD_TEST_RUNTIME`, `CONTD_TEST_SLOTS`.
fn runtime_section() -> String {
    let runtime = std::env::var("CONTD_TEST_RUNTIME").unwrap_or_else(|_| "native".to_owned());
    let slots = std::env::var("CONTD_TEST_SLOTS").unwrap_or_else(|_| "2".to_owned());
    format!("[runtime]\ndefault = \"{runtime}\"\nwarm_slots = {slots}")
}

/// How many slots a node keeps warm: an OCI runtime has none.
fn warm_slots(drop_in: &str) -> usize {
    let config = [drop_in, "\n", &runtime_section()].concat();
    let count = config.lines().find_map(|line| line.strip_prefix("warm_slots = ")?.trim().parse().ok());
    if config.contains("default = \"native\"") { count.unwrap_or(0) } else { 0 }
}

/// The result of a command.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 128 + n for a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The result of a command that has ended.
    pub fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Demands code 0 and returns standard output without the last newline.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end_matches('\n')
    }

    /// Demands a failure that says `what` and gives a hint; for a command that is not understood, where its help is.
    #[track_caller]
    pub fn fails_with(&self, code: i32, what: &str) {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(self.stderr.contains(what), "{what:?} is not in: {}", self.stderr);
        let has_hint = self.stderr.contains("hint: ") || self.stderr.contains("try '--help'");
        assert!(has_hint, "no hint in: {}", self.stderr);
    }
}

/// A node under test.
pub struct Node {
    /// Everything of the node lies below.
    pub root: PathBuf,
    /// The parent of its containers' cgroups.
    pub cgroup_parent: String,
    daemon: Option<Child>,
    baseline: Option<Census>,
    announced: Vec<String>,
    manager: Option<Manager>,
    /// How many shims wait ready.
    slots: usize,
    _temp: tempfile::TempDir,
}

impl Node {
    /// Starts a daemon in a new directory and takes the census.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// The same, with more lines of configuration.
    pub fn with_config(extra: &str) -> Self {
        Self::prepared(extra, "", |_root| None)
    }

    /// Starts a daemon under a scripted service manager.
    pub fn managed(make: impl FnOnce(&Path) -> Manager) -> Self {
        Self::prepared("", "", |root| Some(make(root)))
    }

    /// The same, with one of its directories on a small file system of its own, so that it can be full.
    pub fn with_small(dir: &str, bytes: u64) -> Self {
        // In memory logs have a budget by themselves, a part of what is filled here.
        Self::prepared("[logs]\ntotal_max = \"1g\"\n", "", |root| {
            let point = root.join(dir);
            fs::create_dir(&point).expect("make the directory");
            // As the daemon has it: a cache that was open to others is closed, with a word.
            let mode = if dir == "cache" { "0700" } else { "0755" };
            let options = format!("size={bytes},nr_inodes=400,mode={mode}");
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("small"), &point, Some("tmpfs"), flags, Some(options.as_str())).expect("mount");
            None
        })
    }

    /// The same, with a file in `conf.d` that overrules the rest.
    pub fn with_drop_in(extra: &str, drop_in: &str) -> Self {
        Self::prepared(extra, drop_in, |_root| None)
    }

    fn prepared(extra: &str, drop_in: &str, make_manager: impl FnOnce(&Path) -> Option<Manager>) -> Self {
        assert_eq!(nix::unistd::geteuid().as_raw(), 0, "end-to-end tests make containers and want root");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let temp = tempfile::Builder::new().prefix("contd-t-").tempdir_in("/tmp").expect("make a directory");
        let root = temp.path().to_path_buf();
        let cgroup_parent = format!("contd-t-{}-{number}", std::process::id());
        let config = format!("cgroup_parent = \"{cgroup_parent}\"\n{extra}\n{}\n", runtime_section());
        fs::write(root.join("config.toml"), config).expect("write the configuration");
        fs::create_dir(root.join("input")).expect("make the input directory");
        fs::create_dir(root.join("conf.d")).expect("make the directory of drop-ins");
        fs::write(root.join("conf.d/test.toml"), drop_in).expect("write the drop-in");
        let manager = make_manager(&root);
        let (daemon, baseline, announced, slots) = (None, None, Vec::new(), warm_slots(drop_in));
        let mut node = Self { root, cgroup_parent, daemon, baseline, announced, manager, slots, _temp: temp };
        node.start_daemon();
        node.baseline = Some(node.rest());
        node
    }

    /// Starts the daemon without waiting for it.
    pub fn spawn_daemon(&mut self) {
        assert!(self.daemon.is_none(), "the daemon runs already");
        let command = match &self.manager {
            Some(manager) => manager.dress(&self.daemon_command()),
            None => self.daemon_command(),
        };
        self.daemon = Some(self.spawn_logged(command));
    }

    fn spawn_logged(&self, mut command: Command) -> Child {
        let log = File::options().create(true).append(true).open(self.root.join("daemon.log")).expect("open the log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        child.expect("start the daemon")
    }

    /// Starts another daemon by hand while one runs, and returns the one that runs.
    pub fn spawn_successor(&mut self) -> Child {
        let successor = self.spawn_logged(self.daemon_command());
        self.daemon.replace(successor).expect("a daemon runs")
    }

    /// Starts another daemon over the one that runs, which must end well; returns once the new one answers.
    #[track_caller]
    pub fn take_over(&mut self) {
        let mut old = self.spawn_successor();
        let status = eventually("the old daemon to end", || old.try_wait().expect("wait"));
        assert!(status.success(), "the old daemon ended with {status}\n{}", self.daemon_log());
        self.wait_for_own_answer();
    }

    /// Waits until the daemon that answers is the newest one.
    #[track_caller]
    pub fn wait_for_own_answer(&mut self) {
        eventually("the new daemon to answer", || {
            let state = self.daemon.as_mut().and_then(|child| child.try_wait().expect("wait"));
            assert!(state.is_none(), "the daemon ended: {state:?}\n{}", self.daemon_log());
            let output = self.contd(["version", "--format", "json"]);
            let version: serde_json::Value = serde_json::from_str(&output.stdout).ok()?;
            (version["daemon"]["pid"].as_u64() == Some(u64::from(self.daemon_pid()))).then_some(())
        });
    }

    /// Tells how the newest daemon has ended, if it has.
    pub fn daemon_end(&mut self) -> Option<std::process::ExitStatus> {
        self.daemon.as_mut().and_then(|child| child.try_wait().expect("wait"))
    }

    /// Takes another process as this node's daemon.
    pub fn adopt_daemon(&mut self, daemon: Child) {
        self.daemon = Some(daemon);
    }

    /// Returns the service manager.
    pub fn manager(&self) -> &Manager {
        self.manager.as_ref().expect("a managed node")
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        self.spawn_daemon();
        eventually("the daemon to answer", || {
            let state = self.daemon.as_mut().and_then(|child| child.try_wait().expect("wait"));
            assert!(state.is_none(), "the daemon ended: {state:?}\n{}", self.daemon_log());
            (self.contd(["version"]).code == 0).then_some(())
        });
    }

    /// Tells whether the daemon has ended, and reaps it then; also when there is none.
    pub fn is_daemon_dead(&mut self) -> bool {
        if let Some(child) = &mut self.daemon
            && child.try_wait().expect("wait for the daemon").is_some()
        {
            self.daemon = None;
        }
        self.daemon.is_none()
    }

    /// Starts the daemon again as often as it takes to have one that answers; `true` when it was dead. Whoever supervises
    /// it does the same.
    pub fn revive(&mut self) -> bool {
        if !self.is_daemon_dead() {
            return false;
        }
        for _ in 0..MAX_REVIVALS {
            self.spawn_daemon();
            let answers = crate::eventually("the daemon to answer or to end", || {
                if self.is_daemon_dead() {
                    return Some(false);
                }
                (self.contd(["version"]).code == 0).then_some(true)
            });
            if answers {
                return true;
            }
        }
        panic!("the daemon ended {MAX_REVIVALS} times while it started\n{}", self.daemon_log());
    }

    /// Returns the command that starts this node's daemon.
    pub fn daemon_command(&self) -> Command {
        let mut command = Command::new(binary("contd"));
        command.arg("daemon").arg("--config").arg(self.root.join("config.toml"));
        for (flag, dir) in
            [("--state-dir", "state"), ("--run-dir", "run"), ("--log-dir", "log"), ("--cache-dir", "cache")]
        {
            command.arg(flag).arg(self.root.join(dir));
        }
        command.arg("--address").arg(self.socket());
        command
    }

    /// Returns the API socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("run/contd.sock")
    }

    /// Returns the daemon's process id.
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Kills the daemon with SIGKILL and reaps it.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        child.kill().expect("kill the daemon");
        child.wait().expect("reap the daemon");
    }

    /// Ends the daemon with SIGTERM and demands that it ends well.
    pub fn stop_daemon(&mut self) {
        let mut child = self.daemon.take().expect("the daemon runs");
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signal the daemon");
        let status = child.wait().expect("reap the daemon");
        assert!(status.success(), "the daemon ended with {status}\n{}", self.daemon_log());
    }

    /// Runs the command against this node, in namespace `default`.
    #[track_caller]
    pub fn contd<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Output {
        Output::of(&self.command().args(args).stdin(Stdio::null()).output().expect("run contd"))
    }

    /// Does something while the command waits, which it must still do afterwards; returns what the command gave. So
    /// nothing depends on how fast this machine is.
    #[track_caller]
    pub fn while_it_waits(&self, args: &[&str], act: impl FnOnce()) -> Output {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut waiting = command.spawn().expect("run contd");
        act();
        let state = waiting.try_wait().expect("look at it");
        let output = Output::of(&waiting.wait_with_output().expect("wait for it"));
        assert!(state.is_none(), "contd {args:?} had ended before: {output:?}");
        output
    }

    /// Returns the command with this node's address, to be given arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("contd"));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--address").arg(self.socket());
        command
    }

    /// Runs `contd flist server` on the directories of this node, and returns what it says.
    #[track_caller]
    pub fn flist_server(&self, verb: &[&str]) -> String {
        let mut command = Command::new(binary("contd"));
        command.args(["flist", "server"]).args(verb).arg("--config").arg(self.root.join("config.toml"));
        command.arg("--run-dir").arg(self.root.join("run"));
        Output::of(&command.output().expect("run it")).ok().to_owned()
    }

    /// Packs a busybox flist for this node.
    pub fn flist(&self) -> Flist {
        Flist::busybox(&self.root.join("input"))
    }

    /// Reads a container as JSON; see [`Self::inspect_in`].
    #[track_caller]
    pub fn inspect(&self, container: &str) -> serde_json::Value {
        self.inspect_in("default", container)
    }

    /// Reads a container of another namespace as JSON. While the daemon is attaching to it, which takes as long as the
    /// machine is busy, it has no pid: this waits until that is over.
    #[track_caller]
    pub fn inspect_in(&self, namespace: &str, container: &str) -> serde_json::Value {
        crate::eventually("the daemon to be attached", || {
            let output = self.contd(["-n", namespace, "inspect", container]);
            let info: serde_json::Value = serde_json::from_str(output.ok()).expect("inspect prints JSON");
            (info["status"] != "recovering").then_some(info)
        })
    }

    /// Returns the pid of the living holder of the shims.
    pub fn holder(&self) -> Option<i32> {
        let pid = lease_pid(&self.root.join("run/h"))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "contd-holder").then_some(pid)
    }

    /// Returns the directory of a container's shim.
    #[track_caller]
    pub fn shim_dir(&self, container: &str) -> PathBuf {
        let id = self.inspect(container)["id"].as_str().expect("an id").to_owned();
        self.root.join("run/s").join(&id[..16])
    }

    /// Returns the process id of a container's shim.
    #[track_caller]
    pub fn shim_pid(&self, container: &str) -> i32 {
        lease_pid(&self.shim_dir(container)).expect("a shim lives")
    }

    /// Sends a signal to a process of this node.
    #[track_caller]
    pub fn signal(&self, pid: i32, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("signal a process of the node");
    }

    /// Kills a process of this node, which is not our child, and waits until it is dead.
    #[track_caller]
    pub fn kill(&self, pid: i32) {
        self.signal(pid, nix::sys::signal::Signal::SIGKILL);
        crate::eventually("a process that was killed to be gone", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z")).then_some(())
        });
    }

    /// Waits until a container has a status.
    #[track_caller]
    pub fn wait_for_status(&self, container: &str, status: &str) {
        eventually(&format!("{container} to be {status}"), || {
            (self.inspect(container)["status"] == status).then_some(())
        });
    }

    /// Returns the log of a container as it lies on disk.
    pub fn log_file(&self, namespace: &str, name: &str) -> String {
        fs::read_to_string(self.root.join("log").join(namespace).join(format!("{name}.log"))).expect("read the log")
    }

    /// Returns what the daemon has logged.
    pub fn daemon_log(&self) -> String {
        fs::read_to_string(self.root.join("daemon.log")).unwrap_or_default()
    }

    /// Says that a WARN or ERROR with this text is part of the test.
    pub fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// Counts what there is of this node.
    pub fn census(&self) -> Census {
        Census::take(&self.root, &self.cgroup_parent, self.daemon.as_ref().map(Child::id), &KEPT)
    }

    /// Waits until the daemon does nothing by itself: all warm slots wait, it has no child (whatever it starts is one until
    /// it is ready), nobody is connected to it, and it reads nothing of the kernel's. Returns the census of that.
    #[track_caller]
    pub fn rest(&self) -> Census {
        let rests = || {
            self.are_slots_whole()
                && self.holder().is_some()
                && !has_children(self.daemon_pid())
                && !is_anybody_connected(&self.socket())
        };
        let mut last = Vec::<Census>::new();
        eventually("the daemon to be at rest", || {
            // Before and after: what begins or ends under the census is not in it by halves.
            let was_at_rest = rests();
            let now = self.census();
            if !was_at_rest || !now.is_at_rest() || !rests() {
                last.clear();
                return None;
            }
            // A descriptor that it has opened for a moment, and closes, is not seen three times.
            let is_settled = last.len() == 2 && last.iter().all(|last| last.has_same_descriptors(&now));
            if last.len() == 2 {
                last.remove(0);
            }
            last.push(now.clone());
            is_settled.then_some(now)
        })
    }

    fn are_slots_whole(&self) -> bool {
        Census::warm_slots(&self.root, &self.cgroup_parent) == self.slots
    }

    /// Demands that nothing is left, that the slots wait, that the daemon said nothing alarming, and that it ends well.
    #[track_caller]
    pub fn finish(mut self) {
        let baseline = self.baseline.take().expect("a baseline");
        let begin = std::time::Instant::now();
        loop {
            let left = self.census().difference(&baseline);
            let are_slots_whole = self.are_slots_whole();
            if left.is_empty() && are_slots_whole {
                break;
            }
            let is_in_time = begin.elapsed() < *crate::SOON;
            assert!(is_in_time, "slots whole: {are_slots_whole}; left:\n{left}\ndaemon log:\n{}", self.daemon_log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        self.stop_daemon();
        let after = Census::take(&self.root, &self.cgroup_parent, None, &KEPT);
        let empty = cgroups_below(&self.cgroup_parent);
        assert!(empty.is_empty(), "cgroups left behind by the daemon: {empty:?}\n{after:?}");
        let log = self.daemon_log();
        // Its own level: a line of a shim or a flist server is passed on at INFO, with the other's level in it.
        let is_alarm = |line: &&str| matches!(line.split_whitespace().nth(1), Some("WARN" | "ERROR"));
        let is_announced = |line: &&str| {
            SLOW.iter().any(|text| line.contains(text))
                || self.announced.iter().any(|text| line.contains(text.as_str()))
        };
        let alarms: Vec<&str> = log.lines().filter(is_alarm).filter(|line| !is_announced(line)).collect();
        assert!(alarms.is_empty(), "the daemon logged what the test did not announce: {alarms:#?}");
    }
}

/// Cleans up after a test that failed: by what bears this node's own names, never by anything else.
impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _killed = child.kill();
            let _reaped = child.wait();
        }
        self.end_everything();
    }
}
