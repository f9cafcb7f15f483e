//! Operations at random, on several lanes at once, each with containers of its own; and the moment at which the power is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::link::Answer;
use super::machine::Machine;
use super::model::{Container, ENDS_WITH, End, Found, Lately, Model, Policy, TOLD_WITH, Unclear};
use super::seed;

/// Operations at once: two emulated processors bear no more.
const LANES: usize = 2;
/// Containers of one lane.
const NAMES: usize = 4;
/// Acknowledgements before the power may be lost.
const FEWEST: usize = 6;
const MORE: usize = 8;
/// How long the power is waited for at most, from the first operation on: then it is lost in the middle of whatever there is.
const LONGEST: Duration = Duration::from_secs(120);
/// How long an operation may take that has not been seen yet.
const UNSEEN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `contd run -d`.
    Run,
    Remove,
    Import,
    Stop,
    /// `contd run` of a container that ends by itself.
    Ends,
    Pack,
    Update,
    Create,
    Start,
    /// A container has said that it wrote and synced a file in its layer.
    Layer,
}

/// In the order in which the power is lost in the middle of them.
pub(super) const KINDS: [Kind; 10] = [
    Kind::Run,
    Kind::Remove,
    Kind::Import,
    Kind::Stop,
    Kind::Ends,
    Kind::Pack,
    Kind::Update,
    Kind::Create,
    Kind::Start,
    Kind::Layer,
];

/// Runs until it is told to end. In its first run it writes and syncs a file in its layer.
const RUNS: &str = "b=$(cat /proc/sys/kernel/random/boot_id); \
     if [ -e /kept ]; then echo $b kept; else echo x | dd of=/kept conv=fsync 2>/dev/null; echo $b synced; fi; \
     trap \"exit 9\" TERM; while :; do sleep 1000 & wait $!; done";

/// An operation under way.
#[derive(Debug)]
struct Operation {
    number: u64,
    begun: Instant,
    lane: usize,
    kind: Kind,
    /// Of the container or the flist.
    name: String,
    /// Its state when the operation has succeeded; `None` for flists and for what is removed.
    after: Option<Container>,
}

/// One round of operations.
pub(super) struct Workload<'a> {
    random: &'a mut Rng,
    model: &'a mut Model,
    /// How long an operation of each kind took the last time.
    took: &'a mut BTreeMap<Kind, Duration>,
    target: Kind,
    under_way: Vec<Operation>,
    acknowledged: Vec<Kind>,
}

impl<'a> Workload<'a> {
    /// The power is lost in the middle of an operation of the kind `target`.
    pub(super) fn new(
        random: &'a mut Rng,
        model: &'a mut Model,
        took: &'a mut BTreeMap<Kind, Duration>,
        target: Kind,
    ) -> Self {
        Self { random, model, took, target, under_way: Vec::new(), acknowledged: Vec::new() }
    }

    /// Works until the moment at which the power is to be lost.
    ///
    /// # Errors
    /// When the machine ends by itself.
    pub(super) fn run(&mut self, machine: &mut Machine) -> Result<(), String> {
        let begin = Instant::now();
        let fewest = FEWEST + self.random.usize(..MORE);
        let mut end = None;
        while end.is_none_or(|end| Instant::now() < end) && begin.elapsed() < LONGEST {
            for lane in 0..LANES {
                if self.under_way.iter().any(|operation| operation.lane == lane) {
                    continue;
                }
                let is_due = self.acknowledged.len() >= fewest && end.is_none();
                let Some((operation, command)) = self.choose(lane, is_due.then_some(self.target)) else { continue };
                if is_due && operation.kind == self.target {
                    // Somewhere in the middle, if it takes as long as the last one.
                    let took = self.took.get(&self.target).copied().unwrap_or(UNSEEN);
                    let thousandths = self.random.u32(..1000);
                    end = Some(Instant::now() + took * thousandths / 1000);
                }
                let number = machine.link.send(&command)?;
                self.under_way.push(Operation { number, begun: Instant::now(), ..operation });
            }
            if let Some(answer) = machine.link.next(LOOK)? {
                self.take(&answer);
            }
        }
        Ok(())
    }

    /// The power is lost: takes the answers that were given before that, and returns what was acknowledged and what was under way.
    pub(super) fn end(mut self, late: &[Answer]) -> (Vec<Kind>, Vec<Kind>) {
        late.iter().for_each(|answer| self.take(answer));
        let under_way = std::mem::take(&mut self.under_way);
        let kinds = under_way.iter().map(|operation| operation.kind).collect();
        for operation in under_way {
            self.become_unclear(operation);
        }
        (self.acknowledged, kinds)
    }

    /// Chooses an operation for a lane, of this kind if there is one that can be done.
    fn choose(&mut self, lane: usize, kind: Option<Kind>) -> Option<(Operation, String)> {
        // Flists are made less often: that syncs all of the disk, and what was done before could not be lost any more.
        let often =
            [Kind::Run, Kind::Remove, Kind::Stop, Kind::Ends, Kind::Update, Kind::Create, Kind::Start, Kind::Layer];
        let mut kinds: Vec<Kind> = kind.into_iter().collect();
        if kinds.is_empty() && self.random.usize(..12) == 0 {
            kinds.push(one_of(self.random, &[Kind::Pack, Kind::Import]));
        }
        // A choice that cannot be made now is made anew.
        kinds.extend((0..4 * often.len()).map(|_| one_of(self.random, &often)));
        kinds.into_iter().find_map(|kind| self.try_kind(lane, kind))
    }

    fn try_kind(&mut self, lane: usize, kind: Kind) -> Option<(Operation, String)> {
        let made = |name: &str, after: Option<Container>| Operation {
            number: 0,
            begun: Instant::now(),
            lane,
            kind,
            name: name.to_owned(),
            after,
        };
        match kind {
            Kind::Pack | Kind::Import => {
                let (path, command) = self.flist(kind);
                Some((made(&path, None), command))
            }
            Kind::Run | Kind::Ends | Kind::Create => {
                let name = self.free_name(lane)?;
                let (after, command) = self.container(kind, &name);
                Some((made(&name, Some(after)), command))
            }
            Kind::Start | Kind::Stop | Kind::Update | Kind::Remove | Kind::Layer => {
                let (name, before) = self.container_for(lane, kind)?;
                let (after, command) = self.change(kind, &name, &before);
                Some((made(&name, after), command))
            }
        }
    }

    fn names(lane: usize) -> impl Iterator<Item = String> {
        (0..NAMES).map(move |number| format!("c{lane}{number}"))
    }

    fn free_name(&mut self, lane: usize) -> Option<String> {
        let is_free =
            |name: &String| !self.model.containers.contains_key(name) && !self.model.unclear.contains_key(name);
        let free: Vec<String> = Self::names(lane).filter(is_free).collect();
        if free.is_empty() { None } else { Some(one_of(self.random, &free)) }
    }

    /// Finds a container that this can be done to.
    fn container_for(&mut self, lane: usize, kind: Kind) -> Option<(String, Container)> {
        let is_fit = |container: &Container| match kind {
            Kind::Start => matches!(container.lately, Lately::Created | Lately::Told | Lately::WentDown),
            Kind::Stop => container.lately == Lately::Runs,
            Kind::Layer => container.lately == Lately::Runs && !container.has_layer,
            // Started again by its policy, it would end again and again.
            Kind::Update => container.lately != Lately::Ended,
            _ => true,
        };
        let fit: Vec<(String, Container)> = Self::names(lane)
            .filter_map(|name| Some((name.clone(), self.model.containers.get(&name)?.clone())))
            .filter(|(_, container)| is_fit(container))
            .collect();
        if fit.is_empty() { None } else { Some(one_of(self.random, &fit)) }
    }

    fn flist(&mut self, kind: Kind) -> (String, String) {
        self.model.serial += 1;
        let serial = self.model.serial;
        let path = format!("/data/flists/{serial:05}.fl");
        // Blocks that were there already would need no disk.
        let command = if kind == Kind::Import {
            format!("contd flist import {} {path} --store dir:///data/stores/{serial}", seed::IMAGE)
        } else {
            format!(
                "t=/run/tree-{serial}; cp -a {} $t && head -c 1200000 /dev/urandom >$t/content && sha256sum <$t/content && \
                 contd flist pack $t {path} --store {}; code=$?; rm -rf $t; exit $code",
                seed::TREE,
                seed::STORE
            )
        };
        self.model.unclear_flists.insert(path.clone());
        (path, command)
    }

    fn container(&mut self, kind: Kind, name: &str) -> (Container, String) {
        self.model.serial += 1;
        let flists: Vec<String> = self.model.flists.keys().cloned().collect();
        let flist = one_of(self.random, &flists);
        let policy = if kind == Kind::Ends { Policy::No } else { one_of(self.random, &Policy::ALL) };
        let lately = match kind {
            Kind::Create => Lately::Created,
            Kind::Ends => Lately::Ended,
            _ => Lately::Runs,
        };
        let container = Container { serial: self.model.serial, flist, policy, lately, has_layer: false };
        let (verb, script) = match kind {
            Kind::Create => ("create", RUNS.to_owned()),
            Kind::Ends => ("run", format!("exit {ENDS_WITH}")),
            _ => ("run -d", RUNS.to_owned()),
        };
        let Container { serial, flist, policy, .. } = &container;
        let command = format!(
            "contd {verb} --name {name} --label serial={serial} -m 48m --restart {policy} {flist} /bin/sh -c '{script}'"
        );
        (container, command)
    }

    fn change(&mut self, kind: Kind, name: &str, before: &Container) -> (Option<Container>, String) {
        let mut after = before.clone();
        let command = match kind {
            Kind::Start => {
                after.lately = Lately::Runs;
                format!("contd start {name}")
            }
            Kind::Stop => {
                after.lately = Lately::Told;
                format!("contd stop {name}")
            }
            Kind::Update => {
                after.policy = one_of(self.random, &Policy::ALL);
                format!("contd update --restart {} {name}", after.policy)
            }
            Kind::Layer => {
                after.has_layer = true;
                // It says so at once, or has been slow.
                format!(
                    "for n in $(seq 600); do contd logs {name} | grep -q ' synced$' && exit 0; sleep 0.5; done; exit 1"
                )
            }
            _ => return (None, format!("contd rm --force {name}")),
        };
        (Some(after), command)
    }

    /// Takes an answer. One that says that it failed leaves open what has become of it, as if there had been none.
    fn take(&mut self, answer: &Answer) {
        let Some(at) = self.under_way.iter().position(|operation| operation.number == answer.number) else { return };
        let operation = self.under_way.remove(at);
        let wanted = if operation.kind == Kind::Ends { i32::from(ENDS_WITH) } else { 0 };
        if answer.code != wanted {
            println!("  {:?} {} failed with {}: {}", operation.kind, operation.name, answer.code, answer.output);
            self.become_unclear(operation);
            return;
        }
        self.acknowledged.push(operation.kind);
        self.took.insert(operation.kind, operation.begun.elapsed());
        let Operation { kind, name, after, .. } = operation;
        match kind {
            Kind::Pack | Kind::Import => {
                self.model.unclear_flists.remove(&name);
                let sum = match kind {
                    Kind::Import => seed::content_sum(),
                    _ => answer.output.split_whitespace().next().unwrap_or_default().to_owned(),
                };
                self.model.flists.insert(name, sum);
            }
            _ => match after {
                Some(after) => drop(self.model.containers.insert(name, after)),
                None => drop(self.model.containers.remove(&name)),
            },
        }
    }

    fn become_unclear(&mut self, operation: Operation) {
        let Operation { kind, name, after, .. } = operation;
        let before = self.model.containers.get(&name).cloned();
        let Some(as_container) = before.clone().or(after.clone()) else { return };
        if kind == Kind::Layer {
            return;
        }
        let unclear = unclear(kind, before.as_ref(), after.as_ref(), as_container);
        self.model.containers.remove(&name);
        self.model.unclear.insert(name, unclear);
    }
}

/// Returns what an operation that was not acknowledged may have come to.
fn unclear(kind: Kind, before: Option<&Container>, after: Option<&Container>, as_container: Container) -> Unclear {
    let of = |container: &Container| (container.policy, container.after_boot());
    let mut may_be: Vec<(Policy, Found)> = before.into_iter().chain(after).map(of).collect();
    let policy = as_container.policy;
    let went_down = (policy, Found::Stopped(End::Reboot));
    match kind {
        Kind::Ends => may_be.push(went_down),
        // It was being made again; by which request is not known after the boot.
        Kind::Start => may_be.push((policy, Found::Failed)),
        // It was told to end, and had not when the power was lost.
        Kind::Stop => may_be.push(went_down),
        Kind::Remove if before.is_some_and(|before| before.lately == Lately::Runs) => {
            let told = Container { lately: Lately::Told, ..as_container.clone() };
            may_be.extend([of(&told), went_down]);
        }
        _ => {}
    }
    let may_be_absent = before.is_none() || kind == Kind::Remove;
    Unclear { may_be_absent, may_be, as_container }
}

/// The exit codes that scripts of [`RUNS`] have when they are told to end: their own, or that of SIGKILL.
pub(super) const TOLD_CODES: [u8; 2] = [TOLD_WITH, 137];

/// Returns one of several; there must be one.
fn one_of<T: Clone>(random: &mut Rng, all: &[T]) -> T {
    all[random.usize(..all.len())].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_acknowledged_may_be_before_or_after_and_nothing_else() {
        let runs = Container {
            serial: 1,
            flist: "/f".to_owned(),
            policy: Policy::UnlessStopped,
            lately: Lately::Runs,
            has_layer: false,
        };
        let policy = Policy::UnlessStopped;
        let made = unclear(Kind::Run, None, Some(&runs), runs.clone());
        assert_eq!((made.may_be_absent, made.may_be), (true, vec![(policy, Found::Running)]));
        let told = Container { lately: Lately::Told, ..runs.clone() };
        let stopped = unclear(Kind::Stop, Some(&runs), Some(&told), runs.clone());
        let ends = [End::Told, End::Reboot].map(|end| (policy, Found::Stopped(end)));
        assert_eq!((stopped.may_be_absent, stopped.may_be), (false, [&[(policy, Found::Running)][..], &ends].concat()));
        let removed = unclear(Kind::Remove, Some(&told), None, told.clone());
        assert_eq!((removed.may_be_absent, removed.may_be), (true, vec![(policy, Found::Stopped(End::Told))]));
        let updated = Container { policy: Policy::No, ..runs.clone() };
        let updated = unclear(Kind::Update, Some(&runs), Some(&updated), runs.clone());
        let either = vec![(policy, Found::Running), (Policy::No, Found::Stopped(End::Reboot))];
        assert_eq!((updated.may_be_absent, updated.may_be), (false, either));
    }
}
