//! `contd-launch run --bundle DIR --cgroup PATH --filters DIR --compiler PATH [--warm]`: runs a bundle in the foreground, as
//! `runc run` does, for tests and benches. The exit code is the container's; 125, 126 or 127 with a reason otherwise.
//!
//! `contd-launch exec --bundle DIR --cgroup PATH --pid PID --filters DIR --compiler PATH [--cwd DIR] [--user UID[:GID]]
//! [--additional-gids GID]... [--env NAME=VALUE]... -- PROGRAM [ARG]...`: runs one more process in a container whose init is
//! that pid, as `runc exec` does, with the same codes. With `--each-line` it stays, as a shim does, and executes once for each
//! line of its input, with `/dev/null` for the program's; the answer is a line with the exit code.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use contd_cgroup::{Cgroup, Hierarchies};
use contd_launch::exec::{self, ExecRequest, ExecStdio, ExecUser, Target};
use contd_launch::launcher::{LaunchError, Launcher, Settings, Stdio};
use contd_launch::sealed;
use contd_launch::wire::LaunchRequest;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// The time limit for the cgroup to become empty after the container's end.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The number that a shell adds to a signal's for an exit code.
const SIGNAL_BASE: u8 = 128;
const REFUSED: u8 = 125;
const USAGE: &str = "usage: contd-launch run --bundle DIR --cgroup PATH --filters DIR --compiler PATH [--warm]\n       \
    contd-launch exec --bundle DIR --cgroup PATH --pid PID --filters DIR --compiler PATH [--cwd DIR] [--user UID[:GID]] \
    [--additional-gids GID]... [--env NAME=VALUE]... [--each-line] -- PROGRAM [ARG]...";

fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = match error.downcast_ref::<LaunchError>() {
                Some(LaunchError::Fault(fault)) => fault.exit_code(),
                _ => REFUSED,
            };
            let words = contd_types::one_line(&*error);
            // If standard error is closed, the exit code must do.
            let _nobody_listens = writeln!(io::stderr(), "contd-launch: {words}");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<u8, Box<dyn Error>> {
    sealed::ensure()?;
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some("run") => {
            let Options { bundle, settings, is_warm, .. } = Options::read(words)?;
            let result = launch(&settings, &bundle, is_warm);
            let removed = remove(&settings.cgroup);
            let code = result?;
            removed?;
            Ok(code)
        }
        Some("exec") => exec(&Options::read(words)?),
        _ => Err(USAGE.into()),
    }
}

struct Options {
    bundle: PathBuf,
    settings: Settings,
    is_warm: bool,
    is_each_line: bool,
    /// The pid of the running container's init.
    pid: Option<i32>,
    request: ExecRequest,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut bundle, mut cgroup, mut filters, mut compiler) = (None, None, None, None);
        let (mut is_warm, mut is_each_line, mut pid, mut request) = (false, false, None, ExecRequest::default());
        while let Some(name) = words.next() {
            match name.as_str() {
                "--warm" => {
                    is_warm = true;
                    continue;
                }
                "--each-line" => {
                    is_each_line = true;
                    continue;
                }
                "--" => {
                    request.args = words.by_ref().collect();
                    continue;
                }
                _ => {}
            }
            let value = words.next().ok_or_else(|| format!("{name} wants a value"))?;
            match name.as_str() {
                "--bundle" => bundle = Some(value),
                "--cgroup" => cgroup = Some(value),
                "--filters" => filters = Some(value),
                "--compiler" => compiler = Some(value),
                "--pid" => pid = Some(value.parse()?),
                "--cwd" => request.cwd = Some(value),
                "--user" => request.user = Some(user(&value)?),
                "--additional-gids" => request.additional_gids.push(value.parse()?),
                "--env" => request.env.push(value),
                _ => return Err(format!("{name} is no option\n{USAGE}").into()),
            }
        }
        let path =
            |name: &str, value: Option<String>| value.map(PathBuf::from).ok_or_else(|| format!("{name} is missing"));
        let settings = Settings {
            cgroup: path("--cgroup", cgroup)?,
            filters: path("--filters", filters)?,
            compiler: path("--compiler", compiler)?,
        };
        Ok(Self { bundle: path("--bundle", bundle)?, settings, is_warm, is_each_line, pid, request })
    }
}

fn user(text: &str) -> Result<ExecUser, Box<dyn Error>> {
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    Ok(ExecUser { uid: uid.parse()?, gid: gid.map(str::parse).transpose()?, groups: None })
}

fn own_stdio() -> io::Result<Stdio> {
    Ok(Stdio {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    })
}

fn null_stdio() -> io::Result<Stdio> {
    let null: OwnedFd = OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
    Ok(Stdio { stdin: null.try_clone()?, stdout: null.try_clone()?, stderr: null })
}

fn launch(settings: &Settings, bundle: &Path, is_warm: bool) -> Result<u8, Box<dyn Error>> {
    let mut launcher = Launcher::fork(settings, is_warm)?;
    launcher.request(&LaunchRequest { bundle: bundle.to_owned() }, &own_stdio()?)?;
    follow(launcher)
}

fn exec(options: &Options) -> Result<u8, Box<dyn Error>> {
    let Options { bundle, settings, is_each_line, pid, request, .. } = options;
    let pid = pid.ok_or("--pid is missing")?;
    let init: OwnedFd =
        exec::open_pidfd(pid).map_err(|error| format!("open a pidfd of the container's init {pid}: {error}"))?;
    let hierarchies = Hierarchies::read()?;
    let target = Target { settings, hierarchies: &hierarchies, bundle, init: init.as_fd() };
    if !is_each_line {
        return follow(target.exec(request, &ExecStdio::Given(own_stdio()?))?);
    }
    for line in io::stdin().lines() {
        let _begin = line?;
        let code = follow(target.exec(request, &ExecStdio::Given(null_stdio()?))?)?;
        writeln!(io::stdout(), "{code}")?;
    }
    Ok(0)
}

/// Follows a launcher until its process has ended.
fn follow(launcher: Launcher) -> Result<u8, Box<dyn Error>> {
    let pid = launcher.pid();
    let mut answer = launcher.answer();
    if let Ok((waiting, _no_terminal)) = &mut answer {
        // Say "go" before the launcher is reaped: its end takes as long as a good part of an exec. A process that has
        // died closes its socket; its status tells the rest.
        let _told_by_its_status = waiting.go();
    }
    waitpid(Pid::from_raw(pid), None)?;
    let (waiting, _no_terminal) = answer?;
    let process = Pid::from_raw(waiting.pid);
    let outcome = waiting.outcome();
    let status = waitpid(process, None)?;
    outcome.map_err(LaunchError::Fault)?;
    Ok(match status {
        WaitStatus::Exited(_, code) => u8::try_from(code)?,
        WaitStatus::Signaled(_, signal, _) => SIGNAL_BASE + u8::try_from(signal as i32)?,
        other => return Err(format!("the process ended with {other:?}").into()),
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
