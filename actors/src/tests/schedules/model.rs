//! The promises, derived from what was asked and what was answered, and compared with what is. The model knows nothing of
//! how the actors work.
//!
//! A promise begins with an answer. A request that may still have an effect (not answered yet, given up, or lost with its
//! daemon) excuses what it could have done, until the next quiet point.

use std::collections::{BTreeMap, BTreeSet};

use contd_shim_client::fake::{EndedBy, InitEvent};
use contd_types::{ContainerId, Exit, ExitCause, Pid, RestartPolicy, State};

use super::plan::{Ask, PLACES, Place};
use super::world::Node;

/// Whether a container must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Being {
    /// It was acknowledged and nobody has asked for its deletion.
    There,
    /// Its deletion was asked for, or it deletes itself.
    MayGo,
    /// Its deletion was acknowledged.
    Gone,
}

/// How firmly a container is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    No,
    /// The disk refused something meanwhile: only until the actor or the daemon is lost.
    WhileRemembered,
    Yes,
}

/// One container that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) place: Place,
    pub(super) being: Being,
    pub(super) is_auto_removed: bool,
    pub(super) stopped: Stopped,
    /// Somebody has asked for its end since it was last seen to run in peace.
    pub(super) is_told_to_end: bool,
    /// The init that callers have seen.
    pub(super) seen: Option<Pid>,
    /// The policies that it may have.
    pub(super) policies: Vec<RestartPolicy>,
}

/// Requests about a place that may still have an effect.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    pub(super) makes: u32,
    pub(super) starts: u32,
    pub(super) ends: u32,
    pub(super) deletes: u32,
    /// The policies that were asked for while something was being made here.
    pub(super) policies: Vec<RestartPolicy>,
    /// How many starts and makes were ever begun.
    pub(super) begun: u32,
}

/// One init of a container, as the node knows it.
#[derive(Debug, Clone)]
pub(super) struct Init {
    pub(super) pid: Pid,
    pub(super) end: Option<(EndedBy, Option<Exit>)>,
}

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Ticket {
    pub(super) place: Place,
    pub(super) ask: Ask,
    /// Which container it is about, where it names one.
    pub(super) id: Option<ContainerId>,
    begun: u32,
    /// Whether something was on its way already that may start a container here, and may still come later.
    is_beside_a_start: bool,
    refused: usize,
    /// The containers that were there when it began.
    was_there: BTreeSet<ContainerId>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) node: Node,
    pub(super) known: BTreeMap<ContainerId, Known>,
    pub(super) open: BTreeMap<Place, Open>,
    pub(super) inits: BTreeMap<ContainerId, Vec<Init>>,
    pub(super) reboots: u32,
    /// Callers who wait for an answer of the daemon that lives.
    pub(super) callers: u32,
    /// Which container a key belongs to.
    keys: BTreeMap<(Place, u8), ContainerId>,
    seen_inits: usize,
    pub(super) violations: Vec<String>,
    /// The course of events, for the reader of a violation.
    pub(super) story: Vec<String>,
}

impl Model {
    pub(super) fn new(node: Node) -> Self {
        Self {
            node,
            known: BTreeMap::new(),
            open: PLACES.into_iter().map(|place| (place, Open::default())).collect(),
            inits: BTreeMap::new(),
            reboots: 0,
            callers: 0,
            keys: BTreeMap::new(),
            seen_inits: 0,
            violations: Vec::new(),
            story: Vec::new(),
        }
    }

    pub(super) fn accuse(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(format!("VIOLATION: {what}"));
        self.violations.push(what);
    }

    pub(super) fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn at(&mut self, place: Place) -> impl Iterator<Item = &mut Known> {
        self.known.values_mut().filter(move |known| known.place == place && known.being != Being::Gone)
    }

    fn open_at(&mut self, place: Place) -> &mut Open {
        self.open.get_mut(&place).unwrap()
    }

    /// A request is about to be sent.
    pub(super) fn begin(&mut self, place: Place, ask: Ask, id: Option<ContainerId>) -> Ticket {
        let Open { begun, makes, starts, .. } = *self.open_at(place);
        let was_there: BTreeSet<_> = self.node.records().into_iter().map(|record| record.id).collect();
        let is_beside_a_start = makes + starts > 0;
        let refused = self.node.disk.refused();
        let ticket = Ticket { place, ask, id, begun, is_beside_a_start, refused, was_there };
        let open = self.open_at(place);
        match ask {
            Ask::Run { .. } | Ask::Create { .. } => (open.makes, open.begun) = (open.makes + 1, begun + 1),
            Ask::Start => {
                (open.starts, open.begun) = (open.starts + 1, begun + 1);
                self.at(place).for_each(|known| known.stopped = Stopped::No);
            }
            Ask::Restart { .. } => {
                (open.ends, open.starts, open.begun) = (open.ends + 1, open.starts + 1, begun + 1);
                self.at(place).for_each(|known| (known.is_told_to_end, known.stopped) = (true, Stopped::No));
            }
            Ask::Stop { .. } | Ask::Kill { .. } => {
                open.ends += 1;
                self.at(place).for_each(|known| known.is_told_to_end = true);
            }
            Ask::Delete { .. } => {
                (open.ends, open.deletes) = (open.ends + 1, open.deletes + 1);
                self.at(place).for_each(|known| (known.is_told_to_end, known.being) = (true, Being::MayGo));
            }
            Ask::Update { policy } => {
                if open.makes > 0 {
                    open.policies.push(policy);
                }
                self.at(place).for_each(|known| known.policies.push(policy));
            }
            Ask::Wait | Ask::Upgrade | Ask::Inspect | Ask::List | Ask::Pause { .. } => {}
        }
        ticket
    }

    /// [`Self::begin`] for the deletion of whatever has this id.
    pub(super) fn begin_deletion(&mut self, id: &ContainerId) -> Option<Ticket> {
        let place = PLACES.into_iter().find(|place| self.node.id_at(*place).as_ref() == Some(id))?;
        Some(self.begin(place, Ask::Delete { force: true, timeout: None }, Some(id.clone())))
    }

    /// It was answered, well or not.
    pub(super) fn close(&mut self, ticket: &Ticket) {
        let open = self.open_at(ticket.place);
        let counters: &mut [&mut u32] = match ticket.ask {
            Ask::Run { .. } | Ask::Create { .. } => &mut [&mut open.makes],
            Ask::Start => &mut [&mut open.starts],
            Ask::Stop { .. } | Ask::Kill { .. } => &mut [&mut open.ends],
            Ask::Delete { .. } => &mut [&mut open.ends, &mut open.deletes],
            Ask::Restart { .. } => &mut [&mut open.ends, &mut open.starts],
            Ask::Update { .. } | Ask::Wait | Ask::Upgrade | Ask::Inspect | Ask::List | Ask::Pause { .. } => &mut [],
        };
        for counter in counters {
            **counter = counter.saturating_sub(1);
        }
        if open.makes == 0 {
            open.policies.clear();
        }
    }

    /// Requests that were begun have no effect any more: everything is quiet, or the daemon is gone.
    pub(super) fn forget_open(&mut self) {
        for open in self.open.values_mut() {
            *open = Open { begun: open.begun, ..Open::default() };
        }
    }

    /// A daemon or an actor is lost: what it only remembered is lost as well.
    pub(super) fn lose_memory(&mut self) {
        for known in self.known.values_mut().filter(|known| known.stopped == Stopped::WhileRemembered) {
            known.stopped = Stopped::No;
        }
    }

    /// The node restarts.
    pub(super) fn reboot(&mut self) {
        self.reboots += 1;
        for known in self.known.values_mut() {
            if known.policies.contains(&RestartPolicy::Always) {
                known.stopped = Stopped::No;
            }
        }
    }

    /// A run or creation was acknowledged.
    pub(super) fn made(&mut self, ticket: &Ticket, id: &ContainerId) {
        let (policy, key, is_auto_removed) = match ticket.ask {
            Ask::Run { policy, key, is_auto_removed } => (policy, key, is_auto_removed),
            Ask::Create { policy } => (policy, None, false),
            other => return self.accuse(format!("{other:?} was answered with {id}")),
        };
        let open = self.open_at(ticket.place).clone();
        if self.known.get(id).is_some_and(|known| known.being == Being::Gone) {
            return self.accuse(format!("a run was answered with {id}, which was deleted"));
        }
        if let Some(key) = key {
            let first = self.keys.insert((ticket.place, key), id.clone());
            let is_there = |first: &ContainerId| self.known.get(first).is_some_and(|known| known.being == Being::There);
            if let Some(first) = first.filter(|first| first != id && is_there(first)) {
                return self.accuse(format!("the key of {first} made {id} as well"));
            }
        }
        let excused = is_auto_removed || open.deletes > 0;
        let fresh = Known {
            place: ticket.place,
            being: if excused { Being::MayGo } else { Being::There },
            is_auto_removed,
            stopped: Stopped::No,
            is_told_to_end: open.ends > 0,
            seen: None,
            policies: vec![policy],
        };
        let known = self.known.entry(id.clone()).or_insert(fresh);
        known.policies.extend(open.policies);
        self.see(id, self.node.shims.pid_of(id));
    }

    /// A caller was told that this container runs, or was answered so that it must.
    pub(super) fn see_state(&mut self, id: &ContainerId, state: &State) {
        if let State::Running { pid } | State::Paused { pid } = state {
            self.see(id, Some(*pid));
        }
    }

    /// [`Self::see_state`], by its init.
    pub(super) fn see(&mut self, id: &ContainerId, pid: Option<Pid>) {
        self.listen();
        if let (Some(pid), Some(known)) = (pid, self.known.get_mut(id)) {
            let is_alive = |init: &Init| init.pid == pid && init.end.is_none();
            if self.inits.get(id).is_some_and(|inits| inits.iter().any(is_alive)) {
                known.seen = Some(pid);
            }
        }
    }

    /// A stop was acknowledged.
    pub(super) fn stopped(&mut self, ticket: &Ticket, id: &ContainerId) {
        let is_refused = self.node.disk.refused() != ticket.refused;
        let open = self.open_at(ticket.place);
        if ticket.is_beside_a_start || open.starts + open.makes > 0 || open.begun != ticket.begun {
            return;
        }
        if let Some(known) = self.known.get_mut(id) {
            known.stopped = if is_refused { Stopped::WhileRemembered } else { Stopped::Yes };
        }
    }

    /// A deletion was acknowledged.
    pub(super) fn deleted(&mut self, ticket: &Ticket) {
        let here: Vec<ContainerId> =
            self.known.iter().filter(|(_, known)| known.place == ticket.place).map(|(id, _)| id.clone()).collect();
        let records: BTreeSet<_> = self.node.records().into_iter().map(|record| record.id).collect();
        for id in here {
            let is_meant = match &ticket.id {
                Some(meant) => *meant == id,
                // By its name: what was there before and is not any more.
                None => ticket.was_there.contains(&id) && !records.contains(&id),
            };
            if is_meant && let Some(known) = self.known.get_mut(&id) {
                known.being = Being::Gone;
            }
        }
    }

    /// A caller was told how a container ended: it must be true.
    pub(super) fn told_exit(&mut self, id: &ContainerId, exit: &Exit, to: &str) {
        self.listen();
        let inits = self.inits.get(id).map(Vec::as_slice).unwrap_or_default();
        let is_true = match &exit.cause {
            ExitCause::Code(_) | ExitCause::Signal(_) => {
                inits.iter().any(|init| matches!(&init.end, Some((_, Some(end))) if end == exit))
            }
            ExitCause::Reboot => self.reboots > 0 && !inits.is_empty(),
            ExitCause::Unknown(reason) if reason.starts_with("it ended while nobody watched") => {
                // The end was not seen, or we brought it about on the way of taking back what was never acknowledged.
                inits.iter().any(|init| matches!(&init.end, Some((EndedBy::Verb(_), _) | (_, None))))
            }
            ExitCause::Unknown(reason) => !reason.is_empty(),
        };
        if !is_true {
            self.accuse(format!("{to} of {id} was told an exit that never was: {exit:?}, of {inits:?}"));
        }
    }

    /// Hears what happened to inits.
    pub(super) fn listen(&mut self) {
        let events = self.node.shims.inits_since(self.seen_inits);
        self.seen_inits += events.len();
        for event in events {
            match event {
                InitEvent::Began { id, pid } => self.init_began(&id, pid),
                InitEvent::Ended { id, pid, by, exit } => self.init_ended(&id, pid, by, exit.as_ref()),
            }
        }
    }

    fn init_began(&mut self, id: &ContainerId, pid: Pid) {
        self.tell(format!("init {pid} of {id} begins"));
        match self.known.get(id) {
            Some(known) if known.being == Being::Gone => self.accuse(format!("{id} was deleted and is made again")),
            Some(known) if known.stopped != Stopped::No => self.accuse(format!("{id} was stopped and is made again")),
            _ => {}
        }
        let inits = self.inits.entry(id.clone()).or_default();
        let has_other = inits.iter().any(|init| init.end.is_none());
        inits.push(Init { pid, end: None });
        if has_other {
            self.accuse(format!("{id} has two inits"));
        }
    }

    fn init_ended(&mut self, id: &ContainerId, pid: Pid, by: EndedBy, exit: Option<&Exit>) {
        self.tell(format!("init {pid} of {id} ends by {by:?}: {exit:?}"));
        let inits = self.inits.entry(id.clone()).or_default();
        for init in inits.iter_mut().filter(|init| init.pid == pid) {
            init.end = Some((by, exit.cloned()));
        }
        let Some(known) = self.known.get(id) else { return };
        let was_peaceful = known.seen == Some(pid) && !known.is_told_to_end;
        let is_asked = self.open.get(&known.place).is_some_and(|open| open.ends > 0);
        if matches!(by, EndedBy::Verb(_)) && was_peaceful && !is_asked {
            self.accuse(format!("{id} ran as {pid}, and was ended by {by:?} although nobody had asked for it"));
        }
    }
}
