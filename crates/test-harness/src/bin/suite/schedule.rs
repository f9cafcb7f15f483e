//! Runs jobs beside each other, as many as the machine bears.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::job::{Done, Running};
use crate::plan::Job;

/// How many tests run at once per core: most of them wait for processes, disks and time-outs.
const TESTS_PER_CORE: usize = 6;

/// How often the jobs are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Where the output of the jobs is kept, below the working directory.
const OUTPUT: &str = "target/suite";

/// Runs all jobs, in order as far as there is room, and returns all that was seen, as `judge` sees it.
///
/// # Errors
/// When a job cannot be started or waited for.
pub(crate) fn run_all(jobs: Vec<Job>, judge: impl Fn(&mut Done)) -> Result<Vec<Done>, String> {
    let dir = Path::new(OUTPUT);
    fs::create_dir_all(dir).map_err(|error| format!("make {OUTPUT}: {error}"))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (room, count) = (cores * TESTS_PER_CORE, jobs.len());
    let (mut waiting, mut running, mut done) = (jobs, Vec::<Running>::new(), Vec::new());
    while done.len() < count {
        let taken: usize = running.iter().map(|running| running.job.threads).sum();
        if let Some(next) = next_that_fits(&waiting, room.saturating_sub(taken), running.is_empty()) {
            running.push(Running::start(waiting.remove(next), dir)?);
        }
        std::thread::sleep(LOOK);
        let mut still = Vec::new();
        for mut job in running {
            match job.poll()? {
                Some(status) => {
                    let mut job = job.finish(status)?;
                    judge(&mut job);
                    print(&job, done.len() + 1, count);
                    done.push(job);
                }
                None => still.push(job),
            }
        }
        running = still;
    }
    Ok(done)
}

/// Returns the first job that fits; when nothing runs, any does.
fn next_that_fits(waiting: &[Job], room: usize, is_idle: bool) -> Option<usize> {
    waiting.iter().position(|job| is_idle || job.threads <= room)
}

fn print(job: &Done, number: usize, count: usize) {
    let (events, word) = (&job.events, if job.is_green() { "ok" } else { "FAILED" });
    let (passed, failed) = (events.passed.len(), events.failed.len() + events.unfinished.len());
    let left_out = match events.filtered {
        0 => String::new(),
        filtered => format!(", {filtered} not in this variant"),
    };
    let seconds = job.took.as_secs_f32();
    println!(
        "[{number}/{count}] {word}: {}: {passed} passed, {failed} failed{left_out} ({seconds:.1} s)",
        job.job.name
    );
}
