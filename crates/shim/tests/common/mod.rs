//! A shim on a stage of its own: lease directory, bundle, cgroup, client, and a census at the end.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::shim::{
    Call, InitRecord, Reply, Request, Response, RuntimeSpec, TASK_SPEC_VERSION, TaskSpec, TaskState, VERSIONS, files,
};
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES, decode};
use contd_shim::runtime::fake::{SCRIPT_FILE, Script};
use contd_types::{ApiError, ContainerId, Exit, ExitCause, NamespaceId, Pid, Signal};

pub(crate) const LIMIT: Duration = Duration::from_secs(300);
const APPLETS: [&str; 10] = ["sh", "sleep", "seq", "cat", "grep", "head", "dd", "kill", "stty", "tty"];
const RUNC: &str = "/usr/sbin/runc";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TestRuntime {
    Runc,
    Native,
    Fake,
}

pub(crate) struct Scene {
    pub(crate) kind: TestRuntime,
    pub(crate) task: TaskSpec,
    pub(crate) dir: PathBuf,
    pub(crate) mark: String,
    root: tempfile::TempDir,
}

fn random() -> [u8; 16] {
    let mut bits = [0; 16];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut bits).unwrap();
    bits
}

impl Scene {
    /// A container that runs the command by a shell.
    pub(crate) fn new(kind: TestRuntime, command: &str) -> Self {
        let scene = Self::bare(kind);
        scene.run(command);
        scene
    }

    /// Writes down what the container runs, by a shell.
    pub(crate) fn run(&self, command: &str) {
        match self.kind {
            TestRuntime::Runc | TestRuntime::Native => self.configure(&["/bin/sh", "-c", command], |_| {}),
            TestRuntime::Fake => self.script(&Script { command: command.to_owned(), ..Script::default() }),
        }
    }

    pub(crate) fn bare(kind: TestRuntime) -> Self {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::from_random(random());
        let dir = root.path().join("lease");
        let logs = root.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let mark = format!("contd-t-{}", id.short());
        let runtime = match kind {
            TestRuntime::Runc | TestRuntime::Fake => {
                RuntimeSpec::Oci { binary: runc(), root: root.path().join("runc") }
            }
            // Its bundles have no filter to compile.
            TestRuntime::Native => RuntimeSpec::Native {
                cgroup: format!("/{mark}/{id}").into(),
                filters: root.path().join("filters"),
                compiler: "/nonexistent".into(),
            },
        };
        let task = TaskSpec {
            version: TASK_SPEC_VERSION,
            namespace: NamespaceId::new("test").unwrap(),
            id: id.clone(),
            bundle: root.path().join("bundle"),
            runtime,
            log_path: logs.join("c.log"),
            log_max_bytes: 1 << 30,
            log_max_files: 2,
            log_notes: None,
            log_start: None,
            drain_timeout: Duration::from_secs(2),
            runtime_timeout: Duration::from_secs(120),
            input: contd_protocol::shim::TaskInput::default(),
        };
        let scene = Self { kind, task, dir, mark, root };
        LeaseDir::new(&scene.dir).reserve("test", &scene.dir.join(files::SOCKET)).unwrap();
        scene.write_task();
        scene
    }

    pub(crate) fn write_task(&self) {
        fs::write(self.dir.join(files::TASK), serde_json::to_vec(&self.task).unwrap()).unwrap();
    }

    pub(crate) fn script(&self, script: &Script) {
        fs::write(self.dir.join(SCRIPT_FILE), serde_json::to_vec(script).unwrap()).unwrap();
    }

    /// Writes a bundle by hand: busybox, own namespaces, own cgroup.
    pub(crate) fn configure(&self, arguments: &[&str], change: impl FnOnce(&mut serde_json::Value)) {
        let rootfs = self.rootfs();
        if !rootfs.exists() {
            for sub in ["bin", "proc", "tmp", "dev"] {
                fs::create_dir_all(rootfs.join(sub)).unwrap();
            }
            fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
            for applet in APPLETS {
                symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
            }
        }
        let namespaces: Vec<_> =
            ["pid", "mount", "ipc", "uts"].iter().map(|kind| serde_json::json!({ "type": kind })).collect();
        let mut config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false, "user": {"uid": 0, "gid": 0}, "args": arguments, "env": ["PATH=/bin"], "cwd": "/",
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"cgroupsPath": format!("/{}/{}", self.mark, self.task.id), "namespaces": namespaces},
        });
        change(&mut config);
        fs::write(self.task.bundle.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.task.bundle.join("rootfs")
    }

    pub(crate) fn binary(&self) -> PathBuf {
        PathBuf::from(match self.kind {
            TestRuntime::Runc | TestRuntime::Native => env!("CARGO_BIN_EXE_contd-shim"),
            TestRuntime::Fake => env!("CARGO_BIN_EXE_contd-shim-fake"),
        })
    }

    /// Starts the shim and returns what its first process said.
    pub(crate) fn spawn(&self) -> Output {
        self.spawn_with(&[], Stdio::null())
    }

    fn spawn_with(&self, more: &[&str], stdin: Stdio) -> Output {
        let mut command = Command::new(self.binary());
        command.arg("--dir").arg(&self.dir).args(more).env("CONTD_TEST_SCENE", &self.mark);
        command.stdin(stdin).output().unwrap()
    }

    /// Kills the shim and waits until it is dead.
    pub(crate) fn kill_shim(&self) {
        let shim = contd_lease::ProcessIdentity::of(self.shim_pid()).unwrap().unwrap();
        let pidfd = contd_lease::pidfd(&shim).unwrap().unwrap();
        contd_lease::signal(&pidfd, 9).unwrap();
        assert!(contd_lease::wait_dead(&pidfd, LIMIT).unwrap());
    }

    /// Starts a successor of a shim that was killed, as the daemon does, and connects to it.
    #[track_caller]
    pub(crate) fn succeed(&self, kept: Option<OwnedFd>) -> Client {
        LeaseDir::new(&self.dir).reserve("test", &self.dir.join(files::SOCKET)).unwrap();
        let output = self.spawn_with(&["--adopt"], kept.map_or_else(Stdio::null, Stdio::from));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.connect()
    }

    /// Holds open what the daemon does: init by a pidfd, and the FIFOs.
    pub(crate) fn keep(&self) -> (OwnedFd, [fs::File; 2]) {
        let record = self.init_record();
        let init = contd_lease::ProcessIdentity { pid: record.pid.0, start_ticks: record.start_ticks };
        let open = |name| {
            let mut options = fs::OpenOptions::new();
            options.read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(self.dir.join(name)).unwrap()
        };
        (contd_lease::pidfd(&init).unwrap().expect("alive"), [files::STDOUT, files::STDERR].map(open))
    }

    /// Starts the shim and connects to it.
    #[track_caller]
    pub(crate) fn up(&self) -> Client {
        let output = self.spawn();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.connect()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        let mut client = self.connect_raw();
        client.hello(VERSIONS.max);
        client
    }

    #[track_caller]
    pub(crate) fn connect_raw(&self) -> Client {
        let stream = UnixStream::connect(self.dir.join(files::SOCKET)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let reader = FrameReader::new(MAX_CONTROL_BODY_BYTES);
        Client { stream, reader, next: 1, early: Vec::new(), fds: VecDeque::new() }
    }

    /// Connects to a shim that is just being replaced.
    #[track_caller]
    pub(crate) fn reconnect(&self) -> Client {
        eventually("the shim listens again", || UnixStream::connect(self.dir.join(files::SOCKET)).is_ok());
        self.connect()
    }

    /// The container's output of both streams, without what the log adds.
    pub(crate) fn output(&self) -> String {
        contents(&fs::read_to_string(&self.task.log_path).unwrap())
    }

    /// The same, with all the files that the log was rotated into.
    pub(crate) fn whole_output(&self) -> String {
        let rotated = |number| format!("{}.{number}", self.task.log_path.display());
        let count = (1..).take_while(|number| fs::metadata(rotated(*number)).is_ok()).count();
        let older = (1..=count).rev().map(|number| fs::read_to_string(rotated(number)).unwrap());
        older.chain([fs::read_to_string(&self.task.log_path).unwrap()]).map(|log| contents(&log)).collect()
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        match LeaseDir::new(&self.dir).probe().unwrap() {
            LeaseState::Held(lease) | LeaseState::Dead(lease) => lease.process.unwrap().pid,
            other => panic!("no shim: {other:?}"),
        }
    }

    pub(crate) fn shim_log(&self) -> String {
        fs::read_to_string(self.dir.join(files::SHIM_LOG)).unwrap_or_default()
    }

    pub(crate) fn init_record(&self) -> InitRecord {
        serde_json::from_slice(&fs::read(self.dir.join(files::INIT)).unwrap()).unwrap()
    }

    pub(crate) fn exit_record(&self) -> Exit {
        serde_json::from_slice(&fs::read(self.dir.join(files::EXIT)).unwrap()).unwrap()
    }

    /// Deletes by force, shuts down, and counts what is left: nothing.
    #[track_caller]
    pub(crate) fn finish(self, client: &mut Client) {
        assert_eq!(client.call(Request::Delete { force: true }), Ok(Response::Done), "{}", self.shim_log());
        assert_eq!(client.call(Request::State), Ok(Response::State(TaskState::Empty)));
        assert_eq!(self.processes(), [self.shim_pid()], "only the shim lives after the delete");
        assert_eq!(client.call(Request::Shutdown), Ok(Response::Done));
        self.census();
    }

    /// Waits for the shim's end and counts what is left: nothing.
    #[track_caller]
    pub(crate) fn census(self) {
        eventually("the shim ends", || {
            matches!(
                LeaseDir::new(&self.dir).probe(),
                Ok(LeaseState::Dead(_) | LeaseState::Reserved | LeaseState::Absent)
            ) && self.processes().is_empty()
        });
        assert!(!self.dir.join(files::SOCKET).exists(), "the socket is still there");
        for name in [files::STDOUT, files::STDERR] {
            let fifo = self.dir.join(name);
            assert!(!fifo.exists() || fs::symlink_metadata(fifo).unwrap().file_type().is_fifo());
        }
        LeaseDir::new(&self.dir).retire().unwrap();
        assert!(!self.dir.exists());
        for hierarchy in hierarchies() {
            let parent = hierarchy.join(&self.mark);
            assert!(!parent.join(self.task.id.as_str()).exists(), "a cgroup is left in {}", parent.display());
            if parent.exists() {
                fs::remove_dir(&parent).unwrap();
            }
        }
        let states = fs::read_dir(self.root.path().join("runc")).map(Iterator::count).unwrap_or(0);
        assert_eq!(states, 0, "the runtime still knows a container");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.root.path().to_str().unwrap()), "a mount is left");
    }

    /// Every process of this scene: by the environment that is inherited, or by the container's cgroup.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            let is_ours = [read("environ"), read("cgroup")]
                .iter()
                .any(|bytes| bytes.windows(self.mark.len()).any(|window| window == self.mark.as_bytes()));
            let is_zombie =
                String::from_utf8_lossy(&read("stat")).rsplit_once(") ").is_some_and(|s| s.1.starts_with('Z'));
            if is_ours && !is_zombie {
                found.push(pid);
            }
        }
        found
    }
}

/// The text of a log, without what the log adds.
#[track_caller]
fn contents(log: &str) -> String {
    let mut text = String::new();
    for line in log.lines() {
        let mut fields = line.splitn(4, ' ');
        let (Some(_time), Some(_stream), Some(tag), content) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            panic!("not a log line: {line:?}")
        };
        text.push_str(content.unwrap_or_default());
        if tag == "F" {
            text.push('\n');
        }
    }
    text
}

pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup"))
        .map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()))
        .collect()
}

fn runc() -> PathBuf {
    [RUNC, "/usr/bin/runc", "/usr/local/sbin/runc", "/usr/local/bin/runc"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("runc is installed")
}

#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test against real processes")]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    reader: FrameReader,
    next: u64,
    early: Vec<Reply>,
    /// The descriptors that have come, in order.
    pub(crate) fds: VecDeque<OwnedFd>,
}

impl Client {
    #[track_caller]
    pub(crate) fn hello(&mut self, max: u16) {
        match self.try_hello(max, max) {
            HelloReply::Welcome { version, .. } => assert_eq!(version, max),
            HelloReply::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    #[track_caller]
    pub(crate) fn try_hello(&mut self, min: u16, max: u16) -> HelloReply {
        let hello = Hello { versions: contd_protocol::VersionRange { min, max }, agent: "test".into() };
        self.stream.write_all(&Frame::new(0, Kind::Hello, &hello).unwrap().to_bytes()).unwrap();
        self.hello_reply()
    }

    #[track_caller]
    pub(crate) fn hello_reply(&mut self) -> HelloReply {
        let frame = self.frame().expect("a reply");
        assert_eq!((frame.kind, frame.version), (Kind::HelloReply, 0));
        decode(&frame.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn call(&mut self, request: Request) -> Result<Response, ApiError> {
        let id = self.send(request);
        self.answer(id)
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: Request) -> u64 {
        self.send_with(request, &[])
    }

    #[track_caller]
    pub(crate) fn send_with(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> u64 {
        let id = self.next;
        self.next += 1;
        let frame = Frame::new(VERSIONS.max, Kind::Call, &Call { id, request }).unwrap();
        contd_descriptors::send(&self.stream, &frame.to_bytes(), fds).unwrap();
        id
    }

    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Result<Response, ApiError> {
        loop {
            if let Some(position) = self.early.iter().position(|reply| reply.id == id) {
                return self.early.remove(position).result;
            }
            let frame = self.frame().expect("the connection holds");
            assert_eq!(frame.kind, Kind::Reply);
            self.early.push(decode(&frame.body).unwrap());
        }
    }

    /// The next frame; `None` when the shim has closed the connection.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 4096];
            let received = contd_descriptors::receive(&self.stream, &mut chunk, &mut self.fds);
            match received.map_err(std::io::Error::from) {
                Ok(0) => return None,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Ok(length) => self.reader.push(&chunk[..length]),
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn create(&mut self) -> Pid {
        pid(self.call(Request::Create))
    }

    #[track_caller]
    pub(crate) fn start(&mut self) -> Pid {
        pid(self.call(Request::Start))
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> Exit {
        exited(self.call(Request::Wait))
    }

    #[track_caller]
    pub(crate) fn kill(&mut self, signal: Signal) {
        assert_eq!(self.call(Request::Kill { signal, is_for_all: false }), Ok(Response::Done));
    }
}

#[track_caller]
pub(crate) fn pid(answer: Result<Response, ApiError>) -> Pid {
    match answer {
        Ok(Response::Pid(pid)) => pid,
        other => panic!("no pid: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn exited(answer: Result<Response, ApiError>) -> Exit {
    match answer {
        Ok(Response::Exited(exit)) => exit,
        other => panic!("no exit: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_killed(exit: &Exit) {
    assert_eq!(exit.cause, ExitCause::Signal(Signal::KILL), "{exit:?}");
}
