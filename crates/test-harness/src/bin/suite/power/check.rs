//! Looks at a node that has lost its power: whether all that it had acknowledged is there.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Deserializer, Value};

use super::link::Link;
use super::machine::Machine;
use super::model::{Container, ENDS_WITH, End, Found, Lately, Model, Policy};
use super::workload::TOLD_CODES;

/// How long the node may take to come to rest: emulated, beside a load. Nothing that is right is late by it.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);

/// States on the way to another one.
const PASSING: [&str; 6] = ["creating", "starting", "stopping", "backoff", "recovering", "deleting"];

/// The files on the disk; doctor and daemon look elsewhere for what they do not know.
const CENSUS: &str = "cd /var/lib/contd; ls -A default .removed 2>/dev/null; cd /var/log; ls default 2>/dev/null; true";

/// Errors of the disk itself: then nothing that is found means anything.
const DISK_ERRORS: &str = "dmesg | grep -E 'EXT4-fs error|BTRFS (error|critical|warning)|I/O error|Buffer I/O'; true";

/// The writes that nobody synced and that are there all the same: numbers of commands. They are removed.
///
/// # Errors
/// When the node does not answer.
pub(super) fn unsynced(link: &mut Link) -> Result<BTreeSet<u64>, String> {
    let text = link.ask_well("cd /data/unsynced && find . -type f -size +0 -printf '%f ' && find . -type f -delete")?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
}

/// The result of a good check.
#[derive(Debug)]
pub(super) struct Report {
    containers: usize,
    running: usize,
    flists: usize,
    mended: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { containers, running, flists, mended } = self;
        write!(f, "{containers} containers, {running} of them running, {flists} flists; the doctor mended {mended:?}")
    }
}

/// Looks at a node that has just booted, before its daemon is started.
pub(super) struct Checker<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) model: &'a mut Model,
}

impl Checker<'_> {
    /// Starts the daemon and demands what was acknowledged; the model then has what is there.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn check(mut self) -> Result<Report, String> {
        let errors = self.link().ask_well(DISK_ERRORS)?;
        if !errors.trim().is_empty() {
            return Err(format!("the disk itself is damaged:\n{errors}"));
        }
        self.link().ask_well("systemctl start contd.socket contd.service")?;
        let result = self.check_all();
        result.map_err(|error| {
            let log = self.link().ask("journalctl -D /run/node-log/journal -b -u contd.service --no-pager -n 200");
            format!("{error}\nthe log of the daemon:\n{}", log.map_or_else(|why| why, |answer| answer.output))
        })
    }

    fn check_all(&mut self) -> Result<Report, String> {
        self.as_acknowledged()?;
        self.check_layers()?;
        let flists = self.check_flists()?;
        let mended = self.heal()?;
        // Since then no container has come or gone, by itself or by the doctor.
        let seen = self.as_acknowledged()?;
        adopt(self.model, &seen);
        self.tidy()?;
        let running = seen.iter().filter(|seen| seen["status"] == "running").count();
        Ok(Report { containers: seen.len(), running, flists, mended })
    }

    /// Waits until the containers are those that were acknowledged: one that is to be started is stopped until its turn comes.
    fn as_acknowledged(&mut self) -> Result<Vec<Value>, String> {
        let begin = Instant::now();
        loop {
            let seen = self.settled()?;
            let complaints = judge(self.model, &seen);
            if complaints.is_empty() {
                return Ok(seen);
            }
            if begin.elapsed() > PATIENCE {
                return Err(complaints.join("\n"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Demands what containers that run again had synced in their layers.
    fn check_layers(&mut self) -> Result<(), String> {
        let boot_id = self.link().boot_id.trim().to_owned();
        for (name, container) in &self.model.containers {
            let is_running = container.after_boot() == Found::Running;
            if container.has_layer && is_running && !has_said(&mut self.machine.link, name, &boot_id)? {
                return Err(format!("{name}: what it had synced in its layer is lost"));
            }
        }
        Ok(())
    }

    fn link(&mut self) -> &mut Link {
        &mut self.machine.link
    }

    /// All containers, once none is on the way to another state.
    fn settled(&mut self) -> Result<Vec<Value>, String> {
        let begin = Instant::now();
        loop {
            let text = self.link().ask_well(
                "ids=$(contd ps --all --quiet --no-trunc) && for id in $ids; do contd inspect $id || exit; done",
            );
            // One that was gone before it was inspected is looked for again.
            let seen: Result<Vec<Value>, String> = text.and_then(|text| {
                let all: Result<Vec<Value>, _> = Deserializer::from_str(&text).into_iter().collect();
                all.map_err(|error| format!("read what inspect says: {error}\n{text}"))
            });
            let passing = |seen: &Value| PASSING.iter().any(|status| seen["status"] == **status);
            match seen {
                Ok(seen) if !seen.iter().any(passing) => return Ok(seen),
                Ok(seen) if begin.elapsed() > PATIENCE => {
                    let passing: Vec<&Value> = seen.iter().filter(|seen| passing(seen)).collect();
                    return Err(format!("these do not come to rest: {passing:#?}"));
                }
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                _ => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Demands that acknowledged flists can be used, and that the others are whole or not there.
    fn check_flists(&mut self) -> Result<usize, String> {
        let (mut checked, mut complaints) = (0, Vec::new());
        for path in std::mem::take(&mut self.model.unclear_flists) {
            if self.link().ask(&format!("test -e {path}"))?.code != 0 {
                continue;
            }
            let sum = self.use_flist(&path)?;
            match sum {
                Ok(sum) => drop(self.model.flists.insert(path, sum)),
                Err(why) => complaints.push(format!("{path} was not acknowledged and is there, not whole: {why}")),
            }
            checked += 1;
        }
        for (path, sum) in self.model.flists.clone() {
            match self.use_flist(&path)? {
                Ok(found) if found == sum => {}
                Ok(found) => complaints.push(format!("{path}: another content: {found}, not {sum}")),
                Err(why) => complaints.push(format!("{path} was acknowledged: {why}")),
            }
            checked += 1;
        }
        // The oldest have been looked at often enough; containers run on from them.
        while self.model.flists.len() > MAX_FLISTS {
            let oldest = self.model.flists.keys().find(|path| *path != super::seed::BASE).cloned();
            let Some(oldest) = oldest else { break };
            self.model.flists.remove(&oldest);
        }
        if complaints.is_empty() { Ok(checked) } else { Err(complaints.join("\n")) }
    }

    /// Fetches and checks each block; returns the sum of the file `/content`, or why there is none.
    fn use_flist(&mut self, path: &str) -> Result<Result<String, String>, String> {
        let command = format!(
            "rm -rf /run/unpacked; contd flist unpack {path} /run/unpacked >/run/unpacked.out 2>&1 || {{ cat /run/unpacked.out; exit 1; }}; \
             sha256sum </run/unpacked/content"
        );
        let answer = self.link().ask(&command)?;
        let sum = answer.output.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(if answer.code == 0 { Ok(sum) } else { Err(answer.output) })
    }

    /// Has the doctor mend what it finds; demands that it then finds nothing, and that nothing else is on the disk. Returns what it mended.
    fn heal(&mut self) -> Result<Vec<String>, String> {
        let begin = Instant::now();
        let mut mended = Vec::new();
        loop {
            let fixed = self.link().ask("contd doctor --fix --format json")?;
            let findings = fixed.output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            mended
                .extend(findings.filter(|finding| finding["fixed"] == true).map(|finding| finding["what"].to_string()));
            let found = self.link().ask("contd doctor")?;
            let census = self.link().ask_well(CENSUS)?;
            let ids = self.ids()?;
            let strangers = strangers(&census, self.model, &ids);
            if found.code == 0 && strangers.is_empty() {
                return Ok(mended);
            }
            // Layers of removed containers go in the background, and what is younger than a minute may be in the making.
            if begin.elapsed() > PATIENCE {
                return Err(format!("left on the disk: {strangers:?}\nthe doctor:\n{}", found.output));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn ids(&mut self) -> Result<BTreeSet<String>, String> {
        let ids = self.link().ask_well("contd ps --all --quiet --no-trunc")?;
        Ok(ids.split_whitespace().map(str::to_owned).collect())
    }

    /// Removes containers of which it cannot be said what they would be after the next boot.
    fn tidy(&mut self) -> Result<(), String> {
        for name in std::mem::take(&mut self.model.unclear).into_keys() {
            self.link().ask_well(&format!("contd rm --force {name}"))?;
        }
        Ok(())
    }
}

/// How many flists are looked at in each boot.
const MAX_FLISTS: usize = 3;

/// Waits until a container has said in this boot what became of its layer.
fn has_said(link: &mut Link, name: &str, boot_id: &str) -> Result<bool, String> {
    let command = format!(
        "for n in $(seq 1200); do line=$(contd logs {name} | grep '^{boot_id} ') && break; sleep 0.5; done; echo \"$line\""
    );
    Ok(link.ask_well(&command)?.trim().ends_with(" kept"))
}

/// Compares what is there with what was acknowledged.
pub(super) fn judge(model: &Model, seen: &[Value]) -> Vec<String> {
    let mut complaints = Vec::new();
    for one in seen {
        let name = one["name"].as_str().unwrap_or_default();
        let Some(expected) = model.expected(name) else {
            complaints.push(format!("{name} was removed, or never made, and is there: {one}"));
            continue;
        };
        let found = found(one);
        let policy = one["restart"].as_str().and_then(Policy::parse);
        let is_expected = |(wanted, state): &(Policy, Found)| policy == Some(*wanted) && found == Some(*state);
        if !expected.may_be.iter().any(is_expected) {
            complaints.push(format!("{name} may be {:?}, and is {found:?}: {one}", expected.may_be));
        }
        let Container { serial, flist, .. } = &expected.as_container;
        let serial = serial.to_string();
        let is_same = one["labels"]["serial"] == serial.as_str() && one["flist"] == **flist;
        if !is_same || one["memory_bytes"] != 48 * 1024 * 1024 {
            complaints.push(format!("{name} is not what was asked for, {:?}: {one}", expected.as_container));
        }
    }
    let is_seen = |name: &String| seen.iter().any(|one| one["name"] == **name);
    let unclear = model.unclear.iter().filter(|(_, unclear)| !unclear.may_be_absent).map(|(name, _)| name);
    let lost = model.containers.keys().chain(unclear).filter(|name| !is_seen(name));
    complaints.extend(lost.map(|name| format!("{name} was acknowledged, and is not there")));
    let mut names: Vec<&str> = seen.iter().filter_map(|one| one["name"].as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
    complaints.extend(twice.map(|pair| format!("{} is there twice", pair[0])));
    complaints
}

/// Reads the state of a container; `None` for one that none may have.
fn found(seen: &Value) -> Option<Found> {
    let exit = &seen["exit"];
    let code = exit["shell_code"].as_u64().and_then(|code| u8::try_from(code).ok());
    match seen["status"].as_str()? {
        "created" => Some(Found::Created),
        "running" => seen["pid"].is_number().then_some(Found::Running),
        "failed" => Some(Found::Failed),
        "stopped" if exit["reason"] == "reboot" => Some(Found::Stopped(End::Reboot)),
        "stopped" if !exit["reason"].is_null() => None,
        "stopped" if code == Some(ENDS_WITH) => Some(Found::Stopped(End::Itself)),
        "stopped" if code.is_some_and(|code| TOLD_CODES.contains(&code)) => Some(Found::Stopped(End::Told)),
        _ => None,
    }
}

/// Takes over what was found. What was unclear and is there stays in `unclear`, to be removed, unless its state says all.
fn adopt(model: &mut Model, seen: &[Value]) {
    let seen_as = |name: &str| seen.iter().find(|one| one["name"] == *name).and_then(found);
    for (name, container) in &mut model.containers {
        container.lately = match seen_as(name) {
            Some(Found::Running) => Lately::Runs,
            Some(Found::Stopped(End::Reboot)) => Lately::WentDown,
            _ => container.lately,
        };
    }
    for (name, unclear) in std::mem::take(&mut model.unclear) {
        let lately = match seen_as(&name) {
            None => {
                model.loose_logs.insert(name);
                continue;
            }
            Some(Found::Running) => Lately::Runs,
            Some(Found::Created) => Lately::Created,
            Some(Found::Failed | Found::Stopped(_)) => {
                model.unclear.insert(name, unclear);
                continue;
            }
        };
        let policy = seen.iter().find(|one| one["name"] == *name).and_then(|one| one["restart"].as_str());
        let policy = policy.and_then(Policy::parse).unwrap_or(unclear.as_container.policy);
        let container = Container { policy, lately, ..unclear.as_container };
        model.containers.insert(name, container);
    }
}

/// Finds in a listing of the disk what belongs to no container: directories in `default`, layers in `.removed`, logs.
fn strangers(census: &str, model: &Model, ids: &BTreeSet<String>) -> Vec<String> {
    let is_log_of_ours = |name: &str| {
        let owner = name.split_once(".log").map_or(name, |(owner, _)| owner);
        model.containers.contains_key(owner) || model.unclear.contains_key(owner) || model.loose_logs.contains(owner)
    };
    let is_ours = |line: &str| ids.contains(line) || is_log_of_ours(line);
    let is_heading = |line: &str| line.is_empty() || line.ends_with(':');
    census.lines().filter(|line| !is_heading(line) && !is_ours(line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::model::Unclear;
    use serde_json::json;

    fn container(policy: Policy, lately: Lately) -> Container {
        Container { serial: 1, flist: "/f.fl".to_owned(), policy, lately, has_layer: false }
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.containers.insert("always".to_owned(), container(Policy::Always, Lately::Runs));
        model.containers.insert("never".to_owned(), container(Policy::No, Lately::Runs));
        model.containers.insert("ended".to_owned(), container(Policy::No, Lately::Ended));
        let as_container = container(Policy::No, Lately::Runs);
        let may_be = vec![(Policy::No, Found::Stopped(End::Reboot))];
        model.unclear.insert("half".to_owned(), Unclear { may_be_absent: true, may_be, as_container });
        model
    }

    fn seen(name: &str, status: &str, restart: &str, exit: &Value) -> Value {
        let pid = if status == "running" { json!(7) } else { Value::Null };
        json!({ "name": name, "status": status, "restart": restart, "exit": exit, "pid": pid, "flist": "/f.fl",
            "memory_bytes": 50_331_648, "labels": { "serial": "1" } })
    }

    fn good() -> Vec<Value> {
        vec![
            seen("always", "running", "always", &Value::Null),
            seen("never", "stopped", "no", &json!({ "reason": "reboot", "shell_code": 255 })),
            seen("ended", "stopped", "no", &json!({ "reason": null, "shell_code": 7 })),
        ]
    }

    #[test]
    fn what_was_acknowledged_is_no_complaint_and_each_thing_that_is_wrong_is_one() {
        assert_eq!(judge(&model(), &good()), [""; 0]);
        let wrong = |change: &dyn Fn(&mut Vec<Value>)| {
            let mut all = good();
            change(&mut all);
            judge(&model(), &all).len()
        };
        assert_eq!(wrong(&|all| drop(all.remove(0))), 1, "one is lost");
        assert_eq!(wrong(&|all| all.push(seen("removed", "running", "no", &Value::Null))), 1, "one came back");
        assert_eq!(wrong(&|all| all.push(all[0].clone())), 1, "one is there twice");
        assert_eq!(wrong(&|all| all[0]["status"] = "stopped".into()), 1, "its policy was not applied");
        assert_eq!(wrong(&|all| all[1]["status"] = "running".into()), 1, "it has no policy");
        assert_eq!(wrong(&|all| all[0]["restart"] = "no".into()), 1, "its policy is another");
        assert_eq!(wrong(&|all| all[2]["exit"]["shell_code"] = 255.into()), 1, "its exit is another");
        assert_eq!(wrong(&|all| all[2]["exit"]["reason"] = "nobody watched".into()), 1, "its exit was forgotten");
        assert_eq!(wrong(&|all| all[0]["labels"]["serial"] = "2".into()), 1, "it is another container");
        assert_eq!(wrong(&|all| all[0]["memory_bytes"] = 1.into()), 1, "its limit is another");
        let half = |status: &str| seen("half", status, "no", &json!({ "reason": "reboot" }));
        assert_eq!(wrong(&|all| all.push(half("stopped"))), 0, "it may be there");
        assert_eq!(wrong(&|all| all.push(half("creating"))), 1, "it may not be there by halves");
    }

    #[test]
    fn what_nobody_knows_on_the_disk_is_a_stranger() {
        let ids = BTreeSet::from(["0123".to_owned()]);
        let census = "default:\n0123\n\n.removed:\n\ndefault:\nalways.log\nalways.log.1\nhalf.log\n";
        assert_eq!(strangers(census, &model(), &ids), [""; 0]);
        let census = "default:\n0123\n4567\n\n.removed:\nx.0\ndefault:\ngone.log\n";
        assert_eq!(strangers(census, &model(), &ids), ["4567", "x.0", "gone.log"]);
    }
}
