//! Runs the end-to-end tests in the nodes that contd is made for, each in a virtual machine.
//!
//! ```text
//! build ──> tests/vm/make.sh: disk, kernel ──> tests/vm/run.sh: boots, runs the job ──> events ──> verdict ──> report
//!           the job: each chosen test ────────────────┘            tests/vm/expected/NODE.toml ──────┘
//! ```
//!
//! The tests that a node cannot pass are in `tests/vm/expected/`. They are run as well, and must fail as it is written there: no test
//! is left out unseen, and an entry goes when its reason is gone.

mod choice;
mod expected;
mod node_job;
mod package;
mod zinit;

use std::path::Path;
use std::process::Command;

use crate::build::{self, Built, TestBinary};
use crate::job::Done;
use crate::plan::{END_TO_END, IN_A_NODE_ONLY, Job};
use crate::report::Summary;
use crate::schedule;
use choice::Choice;
use expected::Expected;

/// A node: its name, and what cargo calls its machine if that is not ours.
type Node = (&'static str, Option<&'static str>);

const NODES: [Node; 4] =
    [("zero-os", None), ("debian", None), ("newest", None), ("debian-arm64", Some("aarch64-unknown-linux-gnu"))];

/// The nodes of the short form.
const SHORT: [&str; 2] = ["zero-os", "debian"];

/// How many times longer tests wait in an emulated machine than in a real one.
const SLOWNESS: u32 = 4;

/// How many tests run at once in a node, which has two processors. Emulated, two starve each other until deadlines of the daemon pass
/// (2 s for the upgrade of a shim), and take no less time than one after the other.
const THREADS: usize = 4;
const EMULATED_THREADS: usize = 1;

pub(crate) const USAGE: &str =
    "usage: suite vm [--node NODE]... [--only PART-OF-A-TEST'S-NAME]... [--short true] [--threads COUNT]";

/// Where the tests are run, and which.
#[derive(Debug, Default)]
pub(crate) struct Options {
    nodes: Vec<Node>,
    only: Vec<String>,
    /// One test per promise instead of all.
    is_short: bool,
    /// How many tests run at once in a node.
    threads: Option<usize>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
            match flag.as_str() {
                "--node" => {
                    let known = NODES.into_iter().find(|(name, _)| *name == value);
                    options.nodes.push(known.ok_or_else(|| format!("--node {value}: it is one of {NODES:?}"))?);
                }
                "--only" => options.only.push(value),
                "--threads" => {
                    options.threads = Some(value.parse().map_err(|error| format!("--threads {value}: {error}"))?);
                }
                "--short" => options.is_short = value.parse().map_err(|error| format!("--short {value}: {error}"))?,
                _ => return Err(format!("{flag} is not known")),
            }
        }
        if options.nodes.is_empty() {
            options.nodes = NODES.to_vec();
            options.nodes.retain(|(name, _)| !options.is_short || SHORT.contains(name));
        }
        Ok(options)
    }
}

/// The tests of one node, and their expected results.
#[derive(Debug)]
struct Plan {
    name: &'static str,
    job: Job,
    choice: Choice,
    expected: Expected,
}

/// Returns whether all nodes did as expected.
///
/// # Errors
/// When something cannot be built, made or started, or a file of ours is wrong.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = std::env::current_dir().map_err(|error| format!("find the working directory: {error}"))?;
    let here = build::build(None)?;
    let tests = choice::list(&binaries(&here)?)?;
    let promises = choice::promises(&root, &tests)?;
    let mut plans = Vec::new();
    for &(name, target) in &options.nodes {
        let expected = Expected::read(&root, name, &tests)?;
        let choice = Choice::make(&tests, &promises, options.is_short, &options.only)?;
        // Another machine's binaries have the same tests; only it can run them.
        let built = target.map(|target| build::build(Some(target))).transpose()?;
        make(&root, name)?;
        let built = built.as_ref().unwrap_or(&here);
        let is_emulated = is_emulated(target);
        let threads = options.threads.unwrap_or(if is_emulated { EMULATED_THREADS } else { THREADS });
        let slowness = if is_emulated { SLOWNESS } else { 1 };
        let node = node_job::NodeJob { root: &root, name, target, slowness, threads };
        let job = node.prepare(built, &binaries(built)?, &choice, &expected)?;
        plans.push(Plan { name, job, choice, expected });
    }
    let mut done = Vec::new();
    // One after the other: two emulated machines on two cores take longer than each alone, and starve until deadlines pass.
    for plan in &plans {
        let judge = |done: &mut Done| plan.expected.judge(plan.name, &mut done.events, &plan.choice);
        done.extend(schedule::run_all(vec![plan.job.clone()], judge)?);
    }
    let summary = Summary::of(done);
    summary.print();
    plans.iter().for_each(|plan| plan.expected.print(plan.name, &plan.choice));
    Ok(summary.is_green())
}

/// Checks the files that name tests, without a node: a test that was renamed is missed at once.
///
/// # Errors
/// When one names a test that does not exist, or a promise has none.
pub(crate) fn check(built: &Built) -> Result<(), String> {
    let root = std::env::current_dir().map_err(|error| format!("find the working directory: {error}"))?;
    let tests = choice::list(&binaries(built)?)?;
    choice::promises(&root, &tests)?;
    NODES.iter().try_for_each(|(name, _)| Expected::read(&root, name, &tests).map(drop))
}

/// The binaries whose tests are run in nodes.
fn binaries(built: &Built) -> Result<Vec<&TestBinary>, String> {
    let find = |name: &str| {
        built.tests.iter().find(|binary| binary.name == name).ok_or_else(|| format!("cargo has not built {name}"))
    };
    [END_TO_END, IN_A_NODE_ONLY].into_iter().map(find).collect()
}

/// Makes the disk and the kernel of a node, unless they are there.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make(root: &Path, name: &str) -> Result<(), String> {
    let status = Command::new(root.join("tests/vm/make.sh")).arg(name).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("make the node {name}: {status}")),
        Err(error) => Err(format!("run tests/vm/make.sh: {error}")),
    }
}

/// Tells whether the machine of a node is emulated, as tests/vm/run.sh decides.
fn is_emulated(target: Option<&str>) -> bool {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_kvm =
        Path::new("/dev/kvm").exists() && processor.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    target.is_some() || !has_kvm
}
