//! The comparisons: a glance after every step, everything at a quiet point, and nothing left at the end.

use std::collections::{BTreeMap, BTreeSet};

use contd_types::{ContainerId, ContainerInfo, State, StateName};

use super::model::{Being, Model, Stopped};
use super::plan::PLACES;

/// Checks the rules that must hold at every moment.
pub(super) fn glance(model: &mut Model) {
    model.listen();
    let records: BTreeSet<ContainerId> = model.node.records().into_iter().map(|record| record.id).collect();
    let parts = model.node.parts();
    let live = model.node.shims.live_containers();
    let mut wrong = Vec::new();
    for (id, known) in &model.known {
        match known.being {
            Being::There if !records.contains(id) => wrong.push(format!("{id} was acknowledged and has no record")),
            Being::Gone if records.contains(id) => wrong.push(format!("{id} was deleted and has a record")),
            Being::Gone => {
                let left = parts.iter().filter(|(_, of)| of == id);
                wrong.extend(left.map(|(what, id)| format!("{id} was deleted and {what} is left")));
            }
            Being::There | Being::MayGo => {}
        }
        if known.stopped != Stopped::No && live.contains(id) {
            wrong.push(format!("{id} was stopped and runs"));
        }
    }
    // A container without a record is not known here: the quiet point finds it.
    let mut of_place: BTreeMap<(String, String), Vec<ContainerId>> = BTreeMap::new();
    for record in model.node.records().into_iter().filter(|record| live.contains(&record.id)) {
        let place = (record.namespace.to_string(), record.spec.name.to_string());
        of_place.entry(place).or_default().push(record.id);
    }
    let double = of_place.into_iter().filter(|(_, ids)| ids.len() > 1);
    wrong.extend(double.map(|(place, ids)| format!("{place:?} runs more than once: {ids:?}")));
    wrong.into_iter().for_each(|what| model.accuse(what));
}

/// Finds what differs between promises, disk, view and node when nothing moves. Empty is right.
pub(super) fn differences(model: &Model, view: &[ContainerInfo]) -> Vec<String> {
    let records = model.node.records();
    let recorded: BTreeSet<&ContainerId> = records.iter().map(|record| &record.id).collect();
    let shown: BTreeSet<&ContainerId> = view.iter().map(|info| &info.id).collect();
    let mut wrong = Vec::new();
    wrong.extend(recorded.difference(&shown).map(|id| format!("{id} has a record and is not shown")));
    for info in view {
        // A roll-back whose last step is said to have failed, and was done: it was never acknowledged, and can be deleted.
        let is_remains = matches!(info.state.name(), StateName::Failed | StateName::Stopped);
        if !recorded.contains(&info.id) && !is_remains {
            wrong.push(format!("{} is shown as {} and has no record", info.id, info.state.name()));
        }
        wrong.extend(compare_with_node(model, info));
        let policies = model.known.get(&info.id).map(|known| &known.policies);
        if policies.is_some_and(|possible| !possible.contains(&info.spec.restart)) {
            wrong.push(format!("{} has the policy {}, of {policies:?}", info.id, info.spec.restart));
        }
    }
    for (id, known) in &model.known {
        if known.being == Being::There && !shown.contains(id) {
            wrong.push(format!("{id} was acknowledged and is not shown"));
        }
        if known.being == Being::Gone && shown.contains(id) {
            wrong.push(format!("{id} was deleted and is shown"));
        }
    }
    // A roll-back that got stuck is shown as failed until it is deleted, or as stopped when somebody has stopped it.
    let is_stuck = |id: &ContainerId| {
        // One that ran when it was found is kept; a disk that refuses to have that written hears of it with the next change.
        let is_kept = |state: &State| state.pid().is_some() && model.node.disk.refused() > 0;
        let is_over = |state: &State| matches!(state.name(), StateName::Failed | StateName::Stopped) || is_kept(state);
        view.iter().any(|info| info.id == *id && is_over(&info.state))
    };
    for record in records.iter().filter(|record| !record.is_acknowledged && !is_stuck(&record.id)) {
        wrong.push(format!("{} was never acknowledged and lies there as {}", record.id, record.state.name()));
    }
    // A shim that came late and could not be ended is left to the next start, which the end of the schedule is.
    let is_late = |what: &str, id: &ContainerId| what == "a lease" && model.node.shims.pid_of(id).is_none();
    let is_orphan = |id: &ContainerId| !recorded.contains(id) && !shown.contains(id);
    let orphans = model.node.parts().into_iter().filter(|(what, id)| is_orphan(id) && !is_late(what, id));
    wrong.extend(orphans.map(|(what, id)| format!("{what} of {id} belongs to no record")));
    wrong
}

/// The view says of a container what is true of it.
fn compare_with_node(model: &Model, info: &ContainerInfo) -> Option<String> {
    let live = model.node.shims.pid_of(&info.id);
    let is_right = match (&info.state, live) {
        (State::Running { pid } | State::Paused { pid }, Some(live)) => *pid == live,
        // SIGKILL did not reach it; whoever asked was told so.
        (State::Stopping { .. }, Some(_)) => true,
        (
            State::Stopped { .. } | State::Backoff { .. } | State::Failed { .. } | State::Prepared | State::Deleting,
            None,
        ) => true,
        _ => false,
    };
    (!is_right).then(|| format!("{} is shown as {:?}, its init is {live:?}", info.id, info.state))
}

/// Learns at a quiet point what no answer has told.
pub(super) fn learn(model: &mut Model, view: &[ContainerInfo]) {
    model.listen();
    let records: BTreeMap<_, _> = model.node.records().into_iter().map(|record| (record.id.clone(), record)).collect();
    let is_gone = |id: &ContainerId| !records.contains_key(id);
    for known in model.known.iter_mut().filter(|(id, known)| known.being == Being::MayGo && is_gone(id)) {
        known.1.being = Being::Gone;
    }
    for info in view {
        if let Some(exit) = &info.last_exit {
            model.told_exit(&info.id.clone(), exit, "the view");
        }
        let Some(record) = records.get(&info.id).filter(|record| record.is_acknowledged) else { continue };
        let place = PLACES
            .iter()
            .find(|place| place.namespace == info.namespace.as_str() && place.name == info.spec.name.as_str());
        let fresh = super::model::Known {
            place: *place.unwrap(),
            being: if info.spec.is_auto_removed { Being::MayGo } else { Being::There },
            is_auto_removed: info.spec.is_auto_removed,
            stopped: Stopped::No,
            is_told_to_end: true,
            seen: None,
            // A change that could not be written holds until the daemon ends, and whoever asked was told of it.
            policies: vec![record.spec.restart, info.spec.restart],
        };
        let known = model.known.entry(info.id.clone()).or_insert(fresh);
        if known.being == Being::MayGo && !known.is_auto_removed && info.state != State::Deleting {
            known.being = Being::There;
        }
        if known.stopped == Stopped::WhileRemembered {
            known.stopped = Stopped::Yes;
        }
        if matches!(info.state, State::Running { .. }) && record.desired == contd_store::Desired::Run {
            known.is_told_to_end = false;
        }
        model.see_state(&info.id, &info.state);
    }
}

/// After the last deletion nothing is left anywhere.
pub(super) fn leftovers(model: &Model) -> Vec<String> {
    let node = &model.node;
    let mut left: Vec<String> = node.records().iter().map(|record| format!("the record of {}", record.id)).collect();
    left.extend(node.parts().into_iter().map(|(what, id)| format!("{what} of {id}")));
    left.extend(node.shims.live_containers().into_iter().map(|id| format!("the init of {id}")));
    left.extend(node.logs().into_iter().map(|log| format!("the log {log}")));
    left
}
