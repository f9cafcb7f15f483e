//! Which test binaries are run, how often, with which environment and how many threads.

use std::path::PathBuf;
use std::time::Duration;

use crate::build::TestBinary;

/// How long a job may say nothing; the slowest single test takes two minutes beside a load. A test that hangs is named and ended.
pub(crate) const SILENCE: Duration = Duration::from_secs(900);

/// The end-to-end tests, which are run once in each variant.
pub(crate) const END_TO_END: &str = "contd e2e";

/// Tests that change the machine they run on: in a virtual machine only ([`crate::vm`]).
pub(crate) const IN_A_NODE_ONLY: &str = "contd vm";

/// A test in a module of this name is run in the first variant only: neither the runtime nor warm slots have a part in it.
const ONCE: &str = "once::";

/// Environment of the end-to-end tests, and what tells libtest which to leave out.
type Variant = (&'static [(&'static str, &'static str)], &'static [&'static str]);

/// The variants of a node.
const VARIANTS: [Variant; 3] = [
    (&[], &[]),
    (&[("CONTD_TEST_RUNTIME", "runc")], &["--skip", ONCE]),
    (&[("CONTD_TEST_SLOTS", "0")], &["--skip", ONCE]),
];

/// Tests of real containers wait most of their time, so more of them run at once than there are cores.
const WAITING: [&str; 2] = [END_TO_END, "contd faults"];

/// The longest of the others: begun last, one of them would run alone on one core.
const LONG: [&str; 3] = ["contd-flist all", "contd-actors", "contd-shim all"];

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// The binary's name, and its environment where that differs from the usual.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    /// How many tests it runs at once.
    pub(crate) threads: usize,
    /// The command that runs it again; of a test's binary, the test's name is put behind it.
    pub(crate) again: String,
    /// How long it may say nothing.
    pub(crate) patience: Duration,
}

impl Job {
    fn of(binary: &TestBinary, env: &[(&str, &str)], skip: &[&str], threads: usize) -> Self {
        let assignments: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let with = |first: &str| [&[first.to_owned()], assignments.as_slice()].concat().join(" ");
        let count = threads.to_string();
        // The times need an unstable option of libtest, which RUSTC_BOOTSTRAP allows.
        let args = ["-Z", "unstable-options", "--format", "json", "--report-time", "--test-threads", &count];
        let usual = [("CONTD_BINARIES_ARE_BUILT", "1"), ("RUSTC_BOOTSTRAP", "1")];
        Self {
            name: with(&binary.name),
            program: binary.program.clone(),
            args: args.iter().chain(skip).map(|arg| (*arg).to_owned()).collect(),
            dir: binary.dir.clone(),
            env: usual.iter().chain(env).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            threads,
            again: format!(
                "{} cargo test --locked {} -- --exact",
                with("CONTD_BINARIES_ARE_BUILT=1"),
                binary.selection.join(" ")
            ),
            patience: SILENCE,
        }
    }
}

/// Makes the list of all jobs whose name contains one of `only`, the long ones first.
///
/// # Errors
/// When there is none.
pub(crate) fn plan(binaries: &[TestBinary], only: &[String]) -> Result<Vec<Job>, String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut jobs = Vec::new();
    for binary in binaries.iter().filter(|binary| binary.name != IN_A_NODE_ONLY) {
        let threads = if WAITING.contains(&binary.name.as_str()) { 2 * cores } else { cores };
        let variants = if binary.name == END_TO_END { VARIANTS.as_slice() } else { &VARIANTS[..1] };
        jobs.extend(variants.iter().map(|(env, skip)| Job::of(binary, env, skip, threads)));
    }
    jobs.retain(|job| only.is_empty() || only.iter().any(|part| job.name.contains(part)));
    if jobs.is_empty() {
        return Err(format!("no job has a name with one of {only:?}"));
    }
    // Those that wait fill the gaps of all others; the sort is stable, so the rest stays in the order of the build.
    jobs.sort_by_key(|job| (std::cmp::Reverse(job.threads), !LONG.contains(&job.name.as_str())));
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(name: &str) -> TestBinary {
        let selection = vec!["-p".to_owned(), name.replace(' ', " --test ")];
        TestBinary { name: name.to_owned(), selection, program: "/t/x".into(), dir: "/src".into() }
    }

    fn names(binaries: &[TestBinary], only: &[&str]) -> Vec<String> {
        let only: Vec<String> = only.iter().map(|part| (*part).to_owned()).collect();
        plan(binaries, &only).expect("a plan").into_iter().map(|job| job.name).collect()
    }

    #[test]
    fn end_to_end_tests_are_run_in_each_variant_and_all_others_once() {
        let found = names(&[binary("contd-types"), binary("contd e2e"), binary(IN_A_NODE_ONLY)], &[]);
        let variants = ["contd e2e", "contd e2e CONTD_TEST_RUNTIME=runc", "contd e2e CONTD_TEST_SLOTS=0"];
        assert_eq!(found, [variants.as_slice(), &["contd-types"]].concat());
    }

    #[test]
    fn a_failure_is_repeated_with_the_environment_it_had() {
        let jobs = plan(&[binary("contd e2e")], &["runc".to_owned()]).expect("a plan");
        let again =
            "CONTD_BINARIES_ARE_BUILT=1 CONTD_TEST_RUNTIME=runc cargo test --locked -p contd --test e2e -- --exact";
        assert_eq!(jobs[0].again, again);
        assert!(jobs[0].args.join(" ").ends_with("--skip once::"));
    }

    #[test]
    fn a_choice_of_nothing_is_an_error() {
        assert!(plan(&[binary("contd e2e")], &["no such job".to_owned()]).is_err());
    }
}
