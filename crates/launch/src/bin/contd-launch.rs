//! `contd-launch run --bundle DIR --cgroup PATH --filters DIR --compiler PATH [--warm]`: runs a bundle in the foreground, as
//! `runc run` does, for tests and benches. The exit code is the container's; 125, 126 or 127 with a reason otherwise.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use contd_cgroup::{Cgroup, Hierarchies};
use contd_launch::launcher::{LaunchError, Launcher, Settings, Stdio};
use contd_launch::wire::LaunchRequest;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long the cgroup may take to become empty after the container's end.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// What a shell adds to a signal's number.
const SIGNAL_BASE: u8 = 128;
const USAGE: u8 = 125;

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = match error.downcast_ref::<LaunchError>() {
                Some(LaunchError::Fault(fault)) => fault.exit_code(),
                _ => USAGE,
            };
            let mut words = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                words = format!("{words}: {cause}");
                source = cause.source();
            }
            // Who has closed it does not ask.
            let _nobody_listens = writeln!(io::stderr(), "contd-launch: {words}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<u8, Box<dyn Error>> {
    let mut options: HashMap<String, PathBuf> = HashMap::new();
    let mut is_warm = false;
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() != Some("run") {
        return Err("usage: contd-launch run --bundle DIR --cgroup PATH --filters DIR --compiler PATH [--warm]".into());
    }
    while let Some(word) = words.next() {
        match word.as_str() {
            "--warm" => is_warm = true,
            name => {
                let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
                options.insert(name.to_owned(), PathBuf::from(value));
            }
        }
    }
    let mut option = |name: &str| options.remove(name).ok_or_else(|| format!("{name} is missing"));
    let bundle = option("--bundle")?;
    let settings =
        Settings { cgroup: option("--cgroup")?, filters: option("--filters")?, compiler: option("--compiler")? };
    let result = launch(&settings, &bundle, is_warm);
    let removed = remove(&settings.cgroup);
    let code = result?;
    removed?;
    Ok(code)
}

fn launch(settings: &Settings, bundle: &Path, is_warm: bool) -> Result<u8, Box<dyn Error>> {
    let mut launcher = Launcher::fork(settings, is_warm)?;
    let pid = launcher.pid();
    let stdio = Stdio {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    };
    launcher.request(&LaunchRequest { bundle: bundle.to_owned() }, &stdio)?;
    let answer = launcher.answer();
    waitpid(Pid::from_raw(pid), None)?;
    let mut waiting = answer?;
    let init = Pid::from_raw(waiting.pid);
    waiting.go()?;
    let outcome = waiting.outcome();
    let status = waitpid(init, None)?;
    outcome.map_err(LaunchError::Fault)?;
    Ok(match status {
        WaitStatus::Exited(_, code) => u8::try_from(code)?,
        WaitStatus::Signaled(_, signal, _) => SIGNAL_BASE + u8::try_from(signal as i32)?,
        other => return Err(format!("the container ended with {other:?}").into()),
    })
}

fn remove(cgroup: &Path) -> Result<(), Box<dyn Error>> {
    match Cgroup::open(&Hierarchies::read()?, cgroup)? {
        Some(cgroup) => {
            cgroup.kill_all()?;
            Ok(cgroup.remove(REMOVAL_TIMEOUT)?)
        }
        None => Ok(()),
    }
}
