//! Kills the power of a node again and again while it works, and demands that it keeps what it has acknowledged; then reboots it in
//! order.
//!
//! ```text
//!  workload ── commands ──► node: contd on a disk of its own ── writes, flushes ──► nbdkit: keeps what was flushed only
//!     │  ◄── acknowledgements ──┘                                                      │
//!  model: what must be there     kill -9 of the machine, then of nbdkit: the next boot begins with what was flushed
//!     └──────► check of what is there, after the boot; contd doctor; again
//! ```
//!
//! - `machine`: the disk and the node, booted and killed; `link`: the commands. `model`: what was acknowledged; `workload`: commands at
//!   random; `check`: what is found. `reboot`: the ordered end. docs/decisions/0035 says what is simulated and what is not.

mod check;
mod link;
mod machine;
mod model;
mod reboot;
mod seed;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::vm;
use check::Checker;
use fastrand::Rng;
use machine::{FileSystem, Machine, Site};
use model::Model;
use workload::{KINDS, Kind, Workload};

pub(crate) const USAGE: &str = "usage: suite vm-power [--times COUNT] [--fs ext4|btrfs]... [--node NODE] [--seed NUMBER] \
     [--programs DIR] [--sabotage COMMAND]";

/// The programs of contd that lie in the node.
const PROGRAMS: [&str; 4] = ["contd", "contd-shim", "contd-flistfs", "contd-seccomp"];

/// How the power is lost.
#[derive(Debug)]
pub(crate) struct Options {
    /// How often, for each file system.
    times: usize,
    file_systems: Vec<FileSystem>,
    node: String,
    seed: u64,
    /// The directory of the programs.
    programs: PathBuf,
    /// Run in the node after each loss of power, before the daemon: to see that a check is red.
    sabotage: Option<String>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut options = Self {
            times: 20,
            file_systems: Vec::new(),
            node: "debian".to_owned(),
            seed: now,
            programs: "target/release".into(),
            sabotage: None,
        };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{flag} {value}: {error}"));
            match flag.as_str() {
                "--times" => options.times = usize::try_from(number()?).map_err(|error| error.to_string())?,
                "--seed" => options.seed = number()?,
                "--fs" => options.file_systems.push(value.parse()?),
                "--node" => options.node = value,
                "--programs" => options.programs = value.into(),
                "--sabotage" => options.sabotage = Some(value),
                _ => return Err(format!("{flag} is not known")),
            }
        }
        if options.file_systems.is_empty() {
            options.file_systems = FileSystem::ALL.to_vec();
        }
        Ok(options)
    }
}

/// Returns whether all was kept, on all file systems.
///
/// # Errors
/// When something cannot be made or started.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = std::env::current_dir().map_err(|error| format!("find the working directory: {error}"))?;
    vm::make(&root, &options.node)?;
    let mut is_green = true;
    for &file_system in &options.file_systems {
        let site = Site::new(&root, &options.node, file_system, programs(&root, &options.programs)?)?;
        println!("\n== {} on {}: {} losses of power, --seed {}", site.node, file_system, options.times, options.seed);
        let mut story = Story::begin(&site, options);
        if let Err(error) = story.tell() {
            is_green = false;
            println!(
                "\nFAILED on {file_system} after {} losses of power, --seed {}: {error}",
                story.losses, options.seed
            );
            println!("{}", story.model.describe());
            println!("the disk as the last loss of power left it: disk.lost in {}", site.dir.display());
        }
    }
    Ok(is_green)
}

/// The programs, by their paths here.
fn programs(root: &Path, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let find = |name: &str| {
        let path = root.join(dir).join(name);
        if path.exists() { Ok(path) } else { Err(format!("there is no {}: make build", path.display())) }
    };
    PROGRAMS.into_iter().map(find).collect()
}

/// All that happens to one disk.
struct Story<'a> {
    site: &'a Site,
    options: &'a Options,
    random: Rng,
    model: Model,
    took: BTreeMap<Kind, Duration>,
    losses: usize,
    /// Writes that were never synced, and how many of them were lost with the power.
    unsynced: [usize; 2],
    /// For each kind of operation: acknowledged, and under way when the power was lost.
    counts: Vec<(Kind, [usize; 2])>,
}

impl<'a> Story<'a> {
    fn begin(site: &'a Site, options: &'a Options) -> Self {
        let counts = KINDS.map(|kind| (kind, [0, 0])).to_vec();
        let (random, model) = (Rng::with_seed(options.seed), Model::default());
        Self { site, options, random, model, took: BTreeMap::new(), losses: 0, unsynced: [0, 0], counts }
    }

    /// Returns why it did not end well.
    fn tell(&mut self) -> Result<(), String> {
        seed::make_disk(self.site)?;
        let mut machine = Machine::boot(self.site)?;
        self.prepare(&mut machine)?;
        while self.losses < self.options.times {
            machine = self.lose_power(machine)?;
        }
        self.demand_that_it_was_real()?;
        reboot::reboot(self.site, machine, &mut self.model)
    }

    /// Starts the first daemon, and makes the flist that all begin with.
    fn prepare(&mut self, machine: &mut Machine) -> Result<(), String> {
        let link = &mut machine.link;
        link.ask_well("systemctl start contd.socket contd.service")?;
        link.ask_well(&format!("contd flist pack {0} {1} --store {2}", seed::TREE, seed::BASE, seed::STORE))?;
        self.model.flists.insert(seed::BASE.to_owned(), seed::content_sum());
        let found = link.ask("contd doctor")?;
        if found.code == 0 { Ok(()) } else { Err(format!("the doctor finds fault with a new node:\n{}", found.output)) }
    }

    /// Has the node work, takes its power in the middle of that, and looks at it after the next boot.
    fn lose_power(&mut self, mut machine: Machine) -> Result<Machine, String> {
        let begin = Instant::now();
        let target = KINDS[self.losses % KINDS.len()];
        let mut workload = Workload::new(&mut self.random, &mut self.model, &mut self.took, target);
        workload.run(&mut machine)?;
        machine.lose_power()?;
        self.site.keep_disk()?;
        let late = machine.link.rest();
        let (acknowledged, under_way) = workload.end(&late);
        self.losses += 1;
        for (kind, counts) in &mut self.counts {
            let count = |kinds: &[Kind]| kinds.iter().filter(|other| *other == kind).count();
            counts[0] += count(&acknowledged);
            counts[1] += count(&under_way);
        }
        let answered = machine.link.answered();
        println!(
            "[{}/{}] lost after {} acknowledgements, in the middle of {under_way:?}",
            self.losses,
            self.options.times,
            acknowledged.len()
        );
        let mut machine = Machine::boot(self.site)?;
        let kept = check::unsynced(&mut machine.link)?;
        let lost = answered.iter().filter(|number| !kept.contains(number)).count();
        self.unsynced = [self.unsynced[0] + answered.len(), self.unsynced[1] + lost];
        if let Some(sabotage) = &self.options.sabotage {
            println!("  sabotage: {:?}", machine.link.ask(sabotage)?);
        }
        let report = Checker { machine: &mut machine, model: &mut self.model }.check()?;
        println!(
            "  {report}; {lost} of {} unsynced writes lost ({:.0} s)",
            answered.len(),
            begin.elapsed().as_secs_f32()
        );
        Ok(machine)
    }

    /// A loss of power that loses nothing would prove nothing.
    fn demand_that_it_was_real(&self) -> Result<(), String> {
        let [written, lost] = self.unsynced;
        println!("{lost} of {written} unsynced writes were lost with the power");
        for (kind, [acknowledged, under_way]) in &self.counts {
            println!("  {kind:?}: {acknowledged} acknowledged, {under_way} under way when the power was lost");
        }
        if self.losses > 0 && lost == 0 {
            return Err("no unsynced write was lost: the power was not".to_owned());
        }
        let missing = self.counts.iter().find(|(_, [acknowledged, _])| *acknowledged == 0);
        match missing {
            Some((kind, _)) if self.losses >= KINDS.len() => Err(format!("no {kind:?} was ever acknowledged")),
            _ => Ok(()),
        }
    }
}
