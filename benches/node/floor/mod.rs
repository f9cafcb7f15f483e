//! The floor: the time that the kernel alone takes for one container, without an API, a daemon, a record or a log.
//!
//! Takes in: a bundle made by [`FloorBundle`], with the same `config.json` for every contender. Gives out: the time until
//! `/bin/true` was executed, had ended, and its cgroups were removed. It supports the settings of such a bundle, and
//! panics at any other.
//!
//! ```text
//! bench ── lines ──► server (this program again, small and single-threaded: forking a fat parent costs)
//!                      └ clone3 ► init: cgroups, namespaces, mounts, pivot, rights, seccomp, exec
//! ```
//! Cold: cgroups are made and entered within the measured time. Warm: a child waits in its namespaces and cgroups, and
//! is told "go". The root file system is an overlay that is mounted before anything is measured.

mod bundle;
mod cgroups;
mod init;
mod server;
mod sys;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

pub(crate) use server::serve;

/// The argument that makes this program the server.
pub(crate) const SERVER: &str = "--floor";

/// The times of one container, from the beginning of the call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// The time until the program was executed.
    pub(crate) started: Duration,
    /// The time until it was reaped and its cgroups were removed.
    pub(crate) removed: Duration,
}

/// A bundle of the floor: configuration, compiled filter and a mounted overlay, in one directory.
pub(crate) struct FloorBundle {
    dir: PathBuf,
}

impl FloorBundle {
    /// Makes the bundle in `dir`. `tree` is the lower layer, `compiler` is `contd-seccomp`, `cgroup` the path of its
    /// cgroups.
    pub(crate) fn make(dir: &Path, tree: &Path, config: &serde_json::Value, compiler: &Path, cgroup: &str) -> Self {
        for sub in ["layer", "rootfs"] {
            fs::create_dir_all(dir.join(sub)).expect("make a directory");
        }
        sys::mount("tmpfs", &dir.join("layer"), "tmpfs", 0, "mode=755");
        for sub in ["layer/upper", "layer/work"] {
            fs::create_dir(dir.join(sub)).expect("make a layer");
        }
        let layer = |name: &str| dir.join("layer").join(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", tree.display(), layer("upper"), layer("work"));
        sys::mount("overlay", &dir.join("rootfs"), "overlay", 0, &options);
        let mut config = config.clone();
        config["linux"]["cgroupsPath"] = cgroup.into();
        fs::write(dir.join("filter"), compile(compiler, &config["linux"]["seccomp"])).expect("write the filter");
        fs::write(dir.join("config.json"), config.to_string()).expect("write the configuration");
        Self { dir: dir.to_owned() }
    }

    /// Starts a server of this bundle.
    pub(crate) fn server(&self) -> Floor {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.arg(SERVER).arg(&self.dir).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the floor's server");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Floor { child, input: Some(input), output }
    }
}

impl Drop for FloorBundle {
    fn drop(&mut self) {
        for sub in ["rootfs", "layer"] {
            sys::unmount(&self.dir.join(sub));
        }
    }
}

fn compile(compiler: &Path, section: &serde_json::Value) -> Vec<u8> {
    let mut child =
        Command::new(compiler).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run contd-seccomp");
    child.stdin.take().expect("a pipe").write_all(section.to_string().as_bytes()).expect("send the section");
    let output = child.wait_with_output().expect("wait for contd-seccomp");
    assert!(output.status.success(), "contd-seccomp: {}", output.status);
    output.stdout
}

/// A running server.
pub(crate) struct Floor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Floor {
    /// Runs one container cold: every step is within the measured time.
    pub(crate) fn cold(&mut self) -> Took {
        self.took("cold")
    }

    /// Makes a warm slot.
    pub(crate) fn prepare(&mut self) {
        self.ask("prepare");
    }

    /// Runs one container in the slot that [`Self::prepare`] made.
    pub(crate) fn warm(&mut self) -> Took {
        self.took("warm")
    }

    fn took(&mut self, command: &str) -> Took {
        let answer = self.ask(command);
        let mut numbers = answer.split_whitespace().map(|word| word.parse().expect("nanoseconds"));
        let mut next = || Duration::from_nanos(numbers.next().expect("two numbers"));
        Took { started: next(), removed: next() }
    }

    fn ask(&mut self, command: &str) -> String {
        let input = self.input.as_mut().expect("the server runs");
        writeln!(input, "{command}").expect("ask the floor's server");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("hear the floor's server");
        assert!(line.ends_with('\n'), "the floor's server has ended; what it said is above");
        line
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // The server ends at the end of its input.
        drop(self.input.take());
        let _reaped = self.child.wait();
    }
}
