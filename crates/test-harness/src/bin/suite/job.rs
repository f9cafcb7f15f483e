//! One job while it runs: its process and its two output files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::events::Events;
use crate::plan::Job;

/// A job that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) job: Job,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    begin: Instant,
    /// How much of the output there was, and since when.
    seen: (u64, Instant),
    is_hung: bool,
}

/// A job that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) job: Job,
    pub(crate) events: Events,
    pub(crate) status: ExitStatus,
    pub(crate) took: Duration,
    /// Whether it was ended because it said nothing for too long.
    pub(crate) is_hung: bool,
    /// The file with what its processes wrote to standard error.
    pub(crate) stderr: PathBuf,
}

impl Done {
    /// Tells whether each of its tests was run and passed.
    pub(crate) fn is_green(&self) -> bool {
        let events = &self.events;
        let is_whole = events.is_complete && events.unfinished.is_empty() && self.status.success();
        is_whole && events.failed.is_empty() && events.ignored.is_empty()
    }
}

impl Running {
    /// Starts a job; its output goes to files in `dir`, since processes that outlive it may hold a pipe open.
    ///
    /// # Errors
    /// When a file cannot be made or the program not be started.
    pub(crate) fn start(job: Job, dir: &Path) -> Result<Self, String> {
        let name = job.name.replace([' ', '='], "-");
        let [stdout, stderr] = ["out", "err"].map(|kind| dir.join(format!("{name}.{kind}")));
        let make = |path: &Path| File::create(path).map_err(|error| format!("make {}: {error}", path.display()));
        let child = Command::new(&job.program)
            .args(&job.args)
            .current_dir(&job.dir)
            .env("CARGO_MANIFEST_DIR", &job.dir)
            .envs(job.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(make(&stdout)?)
            .stderr(make(&stderr)?)
            .spawn()
            .map_err(|error| format!("run {}: {error}", job.program.display()))?;
        let now = Instant::now();
        Ok(Self { job, child, stdout, stderr, begin: now, seen: (0, now), is_hung: false })
    }

    /// Tells how it ended, if it has; ends it when it hangs.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) fn poll(&mut self) -> Result<Option<ExitStatus>, String> {
        let length = fs::metadata(&self.stdout).map_or(0, |meta| meta.len());
        if length != self.seen.0 {
            self.seen = (length, Instant::now());
        }
        if self.seen.1.elapsed() > self.job.patience && !self.is_hung {
            self.is_hung = true;
            self.child.kill().map_err(|error| format!("end {}: {error}", self.job.name))?;
        }
        self.child.try_wait().map_err(|error| format!("wait for {}: {error}", self.job.name))
    }

    /// Reads what it has said.
    ///
    /// # Errors
    /// When its output cannot be read.
    pub(crate) fn finish(self, status: ExitStatus) -> Result<Done, String> {
        let bytes = fs::read(&self.stdout).map_err(|error| format!("read {}: {error}", self.stdout.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        let events = Events::of_json(&text);
        let Self { job, stderr, begin, is_hung, .. } = self;
        Ok(Done { job, events, status, took: begin.elapsed(), is_hung, stderr })
    }
}
