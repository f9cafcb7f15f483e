//! A running container of busybox for exec from outside; it must leave nothing behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The interval and number of looks at a level before giving up: 20 s, for a busy machine.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const MAX_LOOKS: usize = 300_000;
const APPLETS: [&str; 13] =
    ["sh", "sleep", "cat", "true", "ls", "id", "pwd", "echo", "mkdir", "env", "readlink", "kill", "touch"];
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The way in which a container is launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Cold,
    Warm,
}

/// A container whose init sleeps.
pub(crate) struct Container {
    dir: tempfile::TempDir,
    launch: Child,
    /// The init's pid on the host.
    pub(crate) pid: i32,
    parent: String,
    compiler: PathBuf,
}

/// A program that `contd-launch exec` runs in a container.
pub(crate) struct Running {
    launch: Child,
    /// The program's pid on the host.
    pub(crate) pid: i32,
}

/// Returns a configuration with most of the possible restrictions.
pub(crate) fn config() -> Value {
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]);
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "root"},
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [3]},
            "args": ["/bin/sh", "-c", "echo ready; exec sleep 1000"],
            "env": ["PATH=/bin", "A=1"],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": 321,
            "capabilities": {"bounding": capabilities, "effective": ["CAP_CHOWN"], "permitted": capabilities,
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
        ],
        "linux": {
            "resources": {"pids": {"limit": 32}, "memory": {"limit": 134_217_728},
                "devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"},
                {"type": "cgroup"}],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{"names": ["mkdir", "mkdirat", "clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}
        }
    })
}

impl Container {
    /// Starts a container with [`config`].
    pub(crate) fn start(start: Start) -> Self {
        Self::with(start, |_| {})
    }

    /// Starts a container with a changed configuration.
    #[track_caller]
    pub(crate) fn with(start: Start, change: impl FnOnce(&mut Value)) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this makes containers and wants root");
        let dir = tempfile::Builder::new().prefix("contd-exec-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        furnish(&dir.path().join("root"));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let parent = format!("contd-exec-{}-{number}", std::process::id());
        let mut config = config();
        config["linux"]["cgroupsPath"] = format!("/{parent}/c").into();
        change(&mut config);
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        // Use a copy of its own, so that its executions and writers can be told apart. Let `cp` write it: this process
        // is forked by other tests, whose programs would keep the copy open, and busy.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_contd-launch")).arg(dir.path()).status().unwrap();
        assert!(copied.success(), "copy contd-launch");
        let compiler = contd_test_harness::built("contd-seccomp");
        let mut command = command(dir.path(), &compiler, &parent, "run");
        if start == Start::Warm {
            command.arg("--warm");
        }
        let mut launch = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(launch.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the container did not start: {:?}", launch.try_wait());
        let mut container = Self { dir, launch, pid: 0, parent, compiler };
        // Its launcher may still be about to leave.
        let is_first = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        };
        container.pid = container.pids().into_iter().find(is_first).unwrap();
        await_level("only init is left", || container.pids() == [container.pid]);
        container
    }

    /// Returns the processes in its cgroup.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let dir = self.cgroups().into_iter().find(|dir| dir.join("c/cgroup.procs").exists()).unwrap();
        let text = fs::read_to_string(dir.join("c/cgroup.procs")).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Returns the directories above its cgroup, in all hierarchies.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
        all.map(|point| point.join(&self.parent)).filter(|dir| dir.exists()).collect()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Returns the path of the program that executes in it.
    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("contd-launch")
    }

    /// Returns the command `contd-launch exec` with the options before `--`.
    pub(crate) fn command(&self, pid: i32) -> Command {
        let mut command = command(self.dir.path(), &self.compiler, &self.parent, "exec");
        command.arg("--pid").arg(pid.to_string()).stdin(Stdio::null());
        command
    }

    /// Executes a program with options.
    pub(crate) fn exec_with(&self, options: &[&str], args: &[&str]) -> Output {
        self.command(self.pid).args(options).arg("--").args(args).output().unwrap()
    }

    /// Executes a program.
    pub(crate) fn exec(&self, args: &[&str]) -> Output {
        self.exec_with(&[], args)
    }

    /// Executes a program that keeps running.
    #[track_caller]
    pub(crate) fn run(&self, options: &[&str]) -> Running {
        let known = self.pids();
        let launch = self.command(self.pid).args(options).args(["--", "sleep", "1000"]).spawn().unwrap();
        let mut running = Running { launch, pid: 0 };
        await_level("the program runs", || {
            let new = self.pids().into_iter().find(|pid| !known.contains(pid));
            let is_asleep =
                |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
            running.pid = new.filter(is_asleep).unwrap_or_default();
            running.pid != 0
        });
        running
    }

    /// Stops its launcher, so that init is not reaped, or lets it continue.
    pub(crate) fn stop_launcher(&self, is_stopped: bool) {
        let signal = if is_stopped { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = self.launch.id().cast_signed();
        kill(Pid::from_raw(pid), signal).unwrap();
        // It stops when it is scheduled next; until then it could still reap.
        await_level("the launcher to stop", || !is_stopped || read_of(pid, "stat").contains(") T "));
    }

    /// Kills init; it stays a zombie while its launcher is stopped.
    pub(crate) fn kill(&self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
    }

    /// Waits until the launcher has reaped init and removed the cgroup.
    pub(crate) fn await_end(&mut self) {
        let status = self.launch.wait().unwrap();
        assert_eq!(status.code(), Some(137));
    }

    /// Ends the container, and asserts that it leaves nothing behind.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        if self.launch.try_wait().unwrap().is_none() {
            self.kill();
            self.await_end();
        }
        let left: Vec<_> = self.cgroups().into_iter().filter(|dir| fs::remove_dir(dir).is_err()).collect();
        assert!(left.is_empty(), "cgroups left behind: {left:?}");
        let named = self.dir.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(&named)).collect();
        assert!(mounts.is_empty(), "mounts left behind: {mounts:?}");
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let ours = processes
            .filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(&named)));
        let ours: Vec<_> = ours.map(|entry| entry.path()).collect();
        assert!(ours.is_empty(), "processes left behind: {ours:?}");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A test that failed: its container must not outlive it.
        if let Ok(None) = self.launch.try_wait() {
            self.stop_launcher(false);
            let _ended = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            let _reaped = self.launch.wait();
        }
        for dir in self.cgroups() {
            let _left_to_be_seen = fs::remove_dir(dir);
        }
    }
}

impl Running {
    /// Returns the pid of the launcher that executed it.
    pub(crate) fn launcher(&self) -> i32 {
        self.launch.id().cast_signed()
    }

    /// Reads a file of its `/proc` directory, as the host sees it.
    pub(crate) fn read(&self, name: &str) -> String {
        read_of(self.pid, name)
    }

    /// Kills the program.
    pub(crate) fn finish(mut self) {
        kill(Pid::from_raw(self.pid), Signal::SIGKILL).unwrap();
        assert_eq!(self.launch.wait().unwrap().code(), Some(137));
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn await_level(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..MAX_LOOKS {
        if is_so() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("waited in vain: {what}");
}

/// Reads a file or a link's target of a process.
pub(crate) fn read_of(pid: i32, name: &str) -> String {
    let path = format!("/proc/{pid}/{name}");
    match fs::read_link(&path) {
        Ok(target) => target.display().to_string(),
        Err(_) => fs::read_to_string(path).unwrap(),
    }
}

fn command(dir: &Path, compiler: &Path, parent: &str, verb: &str) -> Command {
    let mut command = Command::new(dir.join("contd-launch"));
    command.env_clear().arg(verb).arg("--bundle").arg(dir).arg("--cgroup").arg(format!("/{parent}/c"));
    command.arg("--filters").arg(dir.join("filters")).arg("--compiler").arg(compiler);
    command
}

fn furnish(root: &Path) {
    for sub in ["bin", "etc", "tmp", "proc", "dev", "secret"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(root.join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:\n").unwrap();
    fs::write(root.join("bin/plain"), "text").unwrap();
    fs::write(root.join("bin/orphan"), "#!/no/interpreter\n").unwrap();
    for name in ["plain", "orphan"] {
        let mode = if name == "orphan" { 0o755 } else { 0o644 };
        fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Opens a file for writing; returns the errno of a failure.
pub(crate) fn open_for_writing(path: &Path) -> Result<File, Option<i32>> {
    fs::OpenOptions::new().write(true).open(path).map_err(|error| error.raw_os_error())
}
