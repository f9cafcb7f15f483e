//! Executes `/bin/true` in a running container and waits for its exit code; each contender uses its own container of
//! one bundle: a process that stays, as the shim does; `contd-launch exec`, from its start on; `runc exec`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::eventually;
use crate::peers::RuncBundle;
use crate::setup::Setup;
use crate::stats::{Goal, Samples, ratio};

const ROUNDS: usize = 50;
/// After this long without a write, `cgroup.procs` waits for an RCU grace period (docs/architecture.md, facts).
const IDLE: Duration = Duration::from_millis(200);
const IDLE_ROUNDS: usize = 30;
const RUNC_ID: &str = "exec-peer";
const TRUE: &str = "/bin/true";

pub(crate) fn measure() {
    let setup = Setup::new("exec");
    let mut config = setup.config.clone();
    config["process"]["args"] = json!(["/bin/sleep", "100000"]);
    let mut native = Native::start(&setup.path("native"), &config, setup.cgroup_parent());
    let runc = RuncBundle::new(&setup.path("runc-exec"), &config, setup.cgroup_parent());
    runc.runc(&["run", "--detach", "--bundle", runc.dir.to_str().expect("utf-8"), RUNC_ID]);
    // The filter is compiled once for a node, so do it before the measurement.
    native.exec();
    for (what, rounds, pause) in [("busy", ROUNDS, Duration::ZERO), ("after 200 ms of rest", IDLE_ROUNDS, IDLE)] {
        let (mut staying, mut ours, mut theirs) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..rounds {
            std::thread::sleep(pause);
            staying.time(|| native.exec_by_server());
            std::thread::sleep(pause);
            ours.time(|| native.exec());
            std::thread::sleep(pause);
            theirs.time(|| runc.runc(&["exec", RUNC_ID, TRUE]));
        }
        println!("{what}:");
        staying.line("a process that stays", "ms");
        ours.line("contd-launch exec", "ms");
        theirs.line("runc exec", "ms");
        ratio("a process that stays / runc exec", staying.median(), theirs.median(), Goal::AtMost(0.1));
        ratio("contd-launch exec / runc exec", ours.median(), theirs.median(), Goal::None);
    }
    runc.delete(RUNC_ID);
    native.finish();
    drop(runc);
    setup.finish();
}

/// A container of our launcher.
struct Native {
    launcher: PathBuf,
    bundle: RuncBundle,
    cgroup: String,
    launched: Child,
    init: Pid,
    server: Server,
}

/// A running `contd-launch exec --each-line`.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Native {
    fn start(dir: &Path, config: &Value, cgroup_parent: &str) -> Self {
        let launcher = Path::new(env!("CARGO_BIN_EXE_contd")).with_file_name("contd-launch");
        assert!(launcher.exists(), "{} is missing: cargo build --release -p contd-launch", launcher.display());
        let bundle = RuncBundle::new(dir, config, cgroup_parent);
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a name");
        let cgroup = format!("/{cgroup_parent}/{name}");
        let launched = command(&launcher, "run", &bundle, &cgroup).spawn().expect("run contd-launch");
        let children = format!("/proc/{0}/task/{0}/children", launched.id());
        let is_sleep = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("/bin/sleep\0"))
        };
        let init: i32 = eventually("the entrypoint runs", || {
            let children = std::fs::read_to_string(&children).ok()?;
            children.split_whitespace().find(is_sleep)?.parse().ok()
        });
        let mut serve = command(&launcher, "exec", &bundle, &cgroup);
        serve
            .args(["--pid", &init.to_string(), "--each-line", "--", TRUE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = serve.spawn().expect("run contd-launch");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let server = Server { child, input, output };
        Self { launcher, bundle, cgroup, launched, init: Pid::from_raw(init), server }
    }

    fn exec(&self) {
        let mut command = command(&self.launcher, "exec", &self.bundle, &self.cgroup);
        let status = command.args(["--pid", &self.init.to_string(), "--", TRUE]).status().expect("run contd-launch");
        assert!(status.success(), "contd-launch exec: {status}");
    }

    fn exec_by_server(&mut self) {
        self.server.input.write_all(b"\n").expect("ask");
        let mut answer = String::new();
        self.server.output.read_line(&mut answer).expect("an answer");
        assert_eq!(answer, "0\n", "exec of {TRUE}");
    }

    fn finish(self) {
        let Self { mut launched, init, server: Server { mut child, input, output }, .. } = self;
        drop((input, output));
        let served = child.wait().expect("reap contd-launch");
        assert!(served.success(), "contd-launch exec --each-line: {served}");
        kill(init, Signal::SIGKILL).expect("kill init");
        let _killed = launched.wait().expect("reap contd-launch");
    }
}

fn command(launcher: &Path, verb: &str, bundle: &RuncBundle, cgroup: &str) -> Command {
    let mut command = Command::new(launcher);
    command.arg(verb).arg("--bundle").arg(&bundle.dir).args(["--cgroup", cgroup]);
    command.arg("--filters").arg(bundle.dir.join("filters"));
    command.arg("--compiler").arg(launcher.with_file_name("contd-seccomp"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
