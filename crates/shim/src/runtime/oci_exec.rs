//! Executing one more process by an OCI runtime's command.
//!
//! The process is described whole (`--process`), as the bundle does it with the differences that were asked for: of the words of a
//! command line some runtimes take only some, and forget rights that the container gave up (runc's no-new-privileges).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ProcessStdio};

use contd_durable::{Fs as _, RealFs};
use contd_lease::ProcessExit;
use contd_protocol::shim::{ExecProcess, ExecUser, TaskSpec};
use contd_types::ContainerId;
use serde_json::{Value, json};

use super::oci_console::ConsoleSocket;
use super::{ExecStdio, ExecStep, Executing, RuntimeError, Verb, Words, oci, oci_error};
use crate::daemonize;
use crate::reaper;
use crate::sys;

/// The largest `config.json` that is read.
const MAX_BUNDLE_BYTES: u64 = 16 * 1024 * 1024;
/// A pid and a newline.
const MAX_PID_BYTES: u64 = 16;

/// The files of one exec, in the shim's lease directory.
#[derive(Debug)]
struct Files {
    process: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    console: PathBuf,
}

impl Files {
    fn new(dir: &Path, number: u64) -> Self {
        let file = |suffix: &str| dir.join(format!("exec-{number}.{suffix}"));
        Self { process: file("json"), pid: file("pid"), log: file("log"), console: file("sock") }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in [&self.process, &self.pid, &self.log] {
            // Those that are not there need no removal, and the others go with the directory.
            let _absent = fs::remove_file(path);
        }
    }
}

/// The runtime's command is at work.
#[derive(Debug)]
pub(super) struct OciExec {
    id: ContainerId,
    pid: i32,
    pidfd: OwnedFd,
    /// Where the master of the process's terminal comes.
    console: Option<ConsoleSocket>,
    files: Files,
}

impl OciExec {
    /// Starts the command; `number` tells its files from those of others.
    pub(super) fn begin(
        command: &mut Command,
        dir: &Path,
        number: u64,
        task: &TaskSpec,
        process: &ExecProcess,
        stdio: ExecStdio,
    ) -> Result<Self, RuntimeError> {
        let id = &task.id;
        let watch = |source| RuntimeError::Watch { verb: Verb::Exec, id: id.clone(), source };
        let files = Files::new(dir, number);
        let described = describe(&task.bundle, process).map_err(watch)?;
        let described = serde_json::to_vec(&described).map_err(|error| watch(error.into()))?;
        RealFs.write_new(&files.process, &described, 0o600).map_err(watch)?;
        command.arg("--log").arg(&files.log).args(["--log-format", "json", "exec", "--detach", "--pid-file"]);
        command.arg(&files.pid).arg("--process").arg(&files.process);
        let console = match stdio {
            ExecStdio::Given([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            ExecStdio::Terminal(_) => {
                let console = ConsoleSocket::listen(files.console.clone()).map_err(watch)?;
                command.arg("--console-socket").arg(console.path());
                command.stdin(ProcessStdio::null()).stdout(ProcessStdio::null()).stderr(ProcessStdio::null());
                Some(console)
            }
        };
        command.arg(id.as_str());
        // Reaped by its pidfd in `finish`, or as an orphan after `abort`.
        let child = daemonize::spawn(command).map_err(|source| {
            let binary = PathBuf::from(command.get_program());
            RuntimeError::Spawn { verb: Verb::Exec, id: id.clone(), binary, source }
        })?;
        let pid = i32::try_from(child.id()).map_err(|_| watch(io::ErrorKind::InvalidData.into()))?;
        let (_, pidfd) = reaper::pidfd_of(pid).map_err(watch)?;
        Ok(Self { id: id.clone(), pid, pidfd, console, files })
    }

    fn read_pid(&self) -> io::Result<i32> {
        let mut text = String::new();
        File::open(&self.files.pid)?.take(MAX_PID_BYTES).read_to_string(&mut text)?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

impl Executing for OciExec {
    fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn owns(&self, pid: i32) -> bool {
        // The process is ours once the runtime's own has ended, which has written its pid down before.
        pid == self.pid || self.read_pid().is_ok_and(|made| made == pid)
    }

    fn finish(self: Box<Self>) -> Result<ExecStep, RuntimeError> {
        let watch = |source| RuntimeError::Watch { verb: Verb::Exec, id: self.id.clone(), source };
        let status = sys::reap(self.pidfd.as_fd()).map_err(watch)?;
        match status.ok_or_else(|| watch(io::ErrorKind::WouldBlock.into()))? {
            ProcessExit::Code(0) => {
                let terminal = self.console.as_ref().map(ConsoleSocket::take_master).transpose().map_err(watch)?;
                let failed =
                    |source| RuntimeError::PidFile { id: self.id.clone(), path: self.files.pid.clone(), source };
                Ok(ExecStep::Made { pid: self.read_pid().map_err(failed)?, terminal, waiting: None })
            }
            status => {
                let words = oci::read_tail(&self.files.log).ok().and_then(|log| oci_error::last_error(&log));
                let words = words.unwrap_or_default();
                let (kind, id) = (oci_error::classify(&words), self.id.clone());
                let status = oci::describe(status);
                Err(RuntimeError::Failed { verb: Verb::Exec, id, status, kind, source: Words(words) })
            }
        }
    }

    fn abort(self: Box<Self>) {
        // It is our child and not reaped; the worst that can fail is that it has ended already.
        let _ended_already = contd_lease::signal(&self.pidfd, nix::libc::SIGKILL);
    }
}

/// The process of a bundle with the differences.
fn describe(bundle: &Path, process: &ExecProcess) -> io::Result<Value> {
    let bytes = RealFs.read(&bundle.join("config.json"), MAX_BUNDLE_BYTES)?;
    let mut config: Value = serde_json::from_slice(&bytes)?;
    let mut described = config.get_mut("process").map(Value::take).ok_or(io::ErrorKind::InvalidData)?;
    let ExecProcess { args, env, cwd, user, terminal } = process;
    let entry = |described: &mut Value, name: &str, value: Value| {
        if let Some(fields) = described.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    entry(&mut described, "args", json!(args));
    if let Some(known) = described.get_mut("env").and_then(Value::as_array_mut) {
        known.extend(env.iter().map(|pair| json!(pair)));
    } else {
        entry(&mut described, "env", json!(env));
    }
    if let Some(cwd) = cwd {
        entry(&mut described, "cwd", json!(cwd));
    }
    if let Some(ExecUser { uid, gid, additional_gids }) = user {
        let mut known = described.get_mut("user").map_or_else(|| json!({}), Value::take);
        entry(&mut known, "uid", json!(uid));
        entry(&mut known, "gid", json!(gid));
        entry(&mut known, "additionalGids", json!(additional_gids));
        entry(&mut described, "user", known);
    }
    entry(&mut described, "terminal", json!(terminal.is_some()));
    if let Some(size) = terminal {
        entry(&mut described, "consoleSize", json!({"height": size.rows, "width": size.columns}));
    }
    Ok(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_that_of_the_bundle_but_for_what_was_asked_for() {
        let dir = tempfile::tempdir().expect("scratch");
        let config = json!({"process": {"args": ["init"], "env": ["A=1"], "cwd": "/", "noNewPrivileges": true,
            "user": {"uid": 5, "gid": 6, "additionalGids": [7]}}});
        fs::write(dir.path().join("config.json"), config.to_string()).expect("written");
        let user = ExecUser { uid: 8, gid: 10, additional_gids: vec![9] };
        let asked = ExecProcess {
            args: vec!["sh".into()],
            env: vec!["A=2".into()],
            user: Some(user),
            terminal: Some(contd_types::WindowSize { rows: 3, columns: 4 }),
            ..ExecProcess::default()
        };
        let described = describe(dir.path(), &asked).expect("described");
        let wanted = json!({"args": ["sh"], "env": ["A=1", "A=2"], "cwd": "/", "noNewPrivileges": true, "terminal": true,
            "consoleSize": {"height": 3, "width": 4}, "user": {"uid": 8, "gid": 10, "additionalGids": [9]}});
        assert_eq!(described, wanted);
    }
}
