//! The results of a run: the slowest tests, the failures with what repeats them, and the counts.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::job::Done;

/// How many of the slowest tests are printed.
const SLOWEST: usize = 20;
/// How much of a job's standard error is printed when it fails, in bytes from its end.
const MAX_STDERR: usize = 16 * 1024;

/// One run of the whole suite.
#[derive(Debug)]
pub(crate) struct Summary {
    jobs: Vec<Done>,
    /// Names of what failed, each with its command.
    failures: Vec<String>,
}

impl Summary {
    pub(crate) fn of(jobs: Vec<Done>) -> Self {
        let failures = jobs.iter().flat_map(failures).collect();
        Self { jobs, failures }
    }

    pub(crate) fn is_green(&self) -> bool {
        self.jobs.iter().all(Done::is_green)
    }

    fn count(&self, count: impl Fn(&Done) -> usize) -> usize {
        self.jobs.iter().map(count).sum()
    }

    pub(crate) fn print(&self) {
        self.jobs.iter().filter(|job| !job.is_green()).for_each(print_failed);
        let mut all: Vec<(f64, String)> = self
            .jobs
            .iter()
            .flat_map(|job| {
                job.events.passed.iter().map(|test| (test.seconds, format!("{}: {}", job.job.name, test.test)))
            })
            .collect();
        all.sort_by(|one, other| other.0.total_cmp(&one.0));
        println!("\nthe slowest {SLOWEST} tests, in seconds:");
        for (seconds, name) in all.iter().take(SLOWEST) {
            println!("{seconds:8.1}  {name}");
        }
        if let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) {
            let seconds = (used.user_time().tv_sec() + used.system_time().tv_sec()).max(0);
            println!("\n{seconds} CPU seconds so far, the build included, daemons that outlived their starter not");
        }
        if !self.failures.is_empty() {
            println!("\nfailed, each with the command that repeats it:");
            self.failures.iter().for_each(|failure| println!("  {failure}"));
        }
        let passed = self.count(|job| job.events.passed.len());
        let ignored = self.count(|job| job.events.ignored.len());
        println!(
            "\n{passed} passed, {} failed, {ignored} skipped",
            self.failures.len() - ignored.min(self.failures.len())
        );
    }
}

/// Says what failed in a job and how each is run again.
fn failures(job: &Done) -> Vec<String> {
    let (events, again) = (&job.events, &job.job.again);
    let one = |test: &str, how: &str| format!("{test}{how}: {again} {test}");
    let hung = if job.is_hung { " (hung)" } else { " (the process ended under it)" };
    let mut found: Vec<String> = events.failed.iter().map(|failed| one(&failed.test, "")).collect();
    found.extend(events.unfinished.iter().map(|test| one(test, hung)));
    found.extend(events.ignored.iter().map(|test| one(test, " (ignored)")));
    if found.is_empty() && !job.is_green() {
        found.push(format!("{} ended with {}: {again}", job.job.name, job.status));
    }
    found
}

fn print_failed(job: &Done) {
    println!("\n== {}: {} after {:.1} s", job.job.name, job.status, job.took.as_secs_f32());
    for failed in &job.events.failed {
        println!("\n---- {}\n{}", failed.test, failed.output);
    }
    print_end("other output", &job.events.other);
    let stderr = fs::read(&job.stderr).unwrap_or_default();
    print_end("standard error", &String::from_utf8_lossy(&stderr));
}

fn print_end(what: &str, text: &str) {
    let from = (text.len().saturating_sub(MAX_STDERR)..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    if !text.is_empty() {
        println!("---- {what}\n{}", &text[from..]);
    }
}

/// Prints what several runs gave together.
pub(crate) fn print_runs(runs: &[Summary]) {
    let green = runs.iter().filter(|run| run.is_green()).count();
    println!("\n== {green} of {} runs were green", runs.len());
    for (number, run) in runs.iter().enumerate() {
        let took: Duration = run.jobs.iter().map(|job| job.took).max().unwrap_or_default();
        println!(
            "run {}: {} failures; its longest job took {:.0} s",
            number + 1,
            run.failures.len(),
            took.as_secs_f32()
        );
        run.failures.iter().for_each(|failure| println!("  {failure}"));
    }
}
