//! An ordered reboot by systemd: each container gets its signal and its time, no process of ours has to be killed, and the next boot
//! starts what its policy says.
//!
//! No time is measured. A container that was given its time has left a mark that it makes three seconds after its signal; a process
//! that systemd waited for in vain is named on the console, since systemd says whom it kills.

use std::fs;

use super::check::Checker;
use super::machine::{Machine, Site};
use super::model::{Container, Lately, Model, Policy};
use super::seed;

/// Writes to the console whatever systemd, its last process and the kernel say.
const LOUD: &str = "dmesg -n 6; systemctl log-level info && systemctl log-target console && kill -s RTMIN+20 1";

/// The effect of the signal on a container.
const MARKED: &str = "echo $b >/data/told; sleep 3; echo $b >/data/done; exit 9";
const DEAF: &str = "echo $b >/data/told";

/// A container of this test.
struct Guest {
    name: &'static str,
    policy: Policy,
    at_signal: &'static str,
    /// Until it is killed, in seconds.
    time: u32,
    /// Whether a user stops it before.
    is_stopped: bool,
}

const fn guest(name: &'static str, policy: Policy, at_signal: &'static str, time: u32, is_stopped: bool) -> Guest {
    Guest { name, policy, at_signal, time, is_stopped }
}

/// Their own time is far above the three seconds that they take; the deaf one has little, and takes it all.
const GUESTS: [Guest; 6] = [
    guest("g-always", Policy::Always, MARKED, 50, false),
    guest("g-unless-stopped", Policy::UnlessStopped, MARKED, 50, false),
    guest("g-on-failure", Policy::OnFailure, MARKED, 50, false),
    guest("g-never", Policy::No, MARKED, 50, false),
    guest("g-deaf", Policy::No, DEAF, 10, false),
    guest("g-stopped", Policy::UnlessStopped, MARKED, 50, true),
];

/// Reboots the node and demands all of that.
///
/// # Errors
/// What was not so.
pub(super) fn reboot(site: &Site, mut machine: Machine, model: &mut Model) -> Result<(), String> {
    println!("an ordered reboot");
    for guest in &GUESTS {
        begin(&mut machine, model, guest)?;
    }
    let boot_id = machine.link.boot_id.trim().to_owned();
    machine.link.ask_well(LOUD)?;
    machine.link.send("systemctl reboot")?;
    let status = machine.wait()?;
    let path = site.dir.join("console.txt");
    let console = fs::read(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let console = String::from_utf8_lossy(&console).into_owned();
    let _kept_for_people = fs::write(site.dir.join("reboot.txt"), &console);
    let complaints = judge(&console);
    if !status.success() || !complaints.is_empty() {
        return Err(format!(
            "the reboot ({status}): {}\nthe console: reboot.txt in {}",
            complaints.join("\n"),
            site.dir.display()
        ));
    }
    for container in model.containers.values_mut() {
        // It was told to end, and nothing starts it again.
        if (container.lately, container.policy) == (Lately::Runs, Policy::No) {
            container.lately = Lately::Told;
        }
    }
    let mut machine = Machine::boot(site)?;
    let report = Checker { machine: &mut machine, model }.check()?;
    let marks = marks(&mut machine, &boot_id)?;
    if !marks.is_empty() {
        return Err(marks.join("\n"));
    }
    println!("  {report}");
    Ok(())
}

/// Starts a container, and waits until it hears.
fn begin(machine: &mut Machine, model: &mut Model, guest: &Guest) -> Result<(), String> {
    model.serial += 1;
    let Guest { name, policy, at_signal, time, is_stopped } = guest;
    let (serial, flist) = (model.serial, seed::BASE);
    let script = format!(
        "b=$(cat /proc/sys/kernel/random/boot_id); trap \"{at_signal}\" TERM; echo ready; while :; do sleep 1000 & wait $!; done"
    );
    machine.link.ask_well(&format!(
        "mkdir -p /data/marks/{name} && contd run -d --name {name} --label serial={serial} -m 48m --restart {policy} \
         --stop-timeout {time} -v /data/marks/{name}:/data {flist} /bin/sh -c '{script}'"
    ))?;
    let ready = format!("for n in $(seq 600); do contd logs {name} | grep -q ready && exit 0; sleep 0.5; done; exit 1");
    machine.link.ask_well(&ready)?;
    if *is_stopped {
        // Its output then is of no interest.
        machine.link.ask_well(&format!("contd stop {name} && rm -rf /data/marks/{name}"))?;
    }
    let lately = if *is_stopped { Lately::Told } else { Lately::Runs };
    let container = Container { serial, flist: flist.to_owned(), policy: *policy, lately, has_layer: false };
    model.containers.insert((*name).to_owned(), container);
    Ok(())
}

/// Compares the marks with those that a container makes which had its signal, and its time.
fn marks(machine: &mut Machine, boot_id: &str) -> Result<Vec<String>, String> {
    let mut complaints = Vec::new();
    for Guest { name, at_signal, is_stopped, .. } in &GUESTS {
        let text = machine.link.ask_well(&format!("cd /data/marks/{name} 2>/dev/null && grep -H . *; true"))?;
        let wanted: Vec<String> = match (*is_stopped, *at_signal == MARKED) {
            (true, _) => Vec::new(),
            (false, true) => ["done", "told"].map(|mark| format!("{mark}:{boot_id}")).to_vec(),
            (false, false) => vec![format!("told:{boot_id}")],
        };
        let found: Vec<&str> = text.lines().filter(|line| line.contains(boot_id)).collect();
        if found != wanted {
            complaints.push(format!("{name} was to leave {wanted:?}, and has left {text:?}"));
        }
    }
    let exit = machine.link.ask_well("contd inspect g-deaf")?;
    let exit: serde_json::Value = serde_json::from_str(&exit).map_err(|error| format!("read {exit}: {error}"))?;
    if exit["exit"]["signal"] != "SIGKILL" {
        complaints.push(format!("g-deaf does not hear, and was to be killed when its time was over: {exit}"));
    }
    Ok(complaints)
}

/// Reads on the console how the node went down.
fn judge(console: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    // Without these words the absence of others would say nothing. One of each group is enough.
    let said = [
        ("that contd.service was stopped", ["Stopped contd.service", "contd.service: Deactivated"]),
        ("that all other processes were told to end", ["Sending SIGTERM to remaining processes"; 2]),
        ("that all file systems were unmounted", ["All filesystems unmounted"; 2]),
        ("that the machine restarts", ["Restarting system"; 2]),
    ];
    for (what, words) in said {
        if !words.iter().any(|word| console.contains(word)) {
            complaints.push(format!("it does not say {what}"));
        }
    }
    let of_ours = ["contd", "flistfs", "(sh)", "(sleep)", "(busybox)"];
    let is_bad = |line: &&str| {
        let is_forced = ["timed out", "Killing", "SIGKILL to PID"].iter().any(|word| line.contains(word));
        is_forced && of_ours.iter().any(|name| line.contains(name))
    };
    complaints.extend(console.lines().filter(is_bad).map(|line| format!("it says: {}", line.trim())));
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[  OK  ] Stopped contd.service - contd, the container supervisor.\n\
         contd.service: Unit process 93 (contd-shim) remains running after unit stopped.\n\
         Sending SIGTERM to remaining processes...\nSending SIGKILL to remaining processes...\nAll filesystems unmounted.\n\
         [   93.1] reboot: Restarting system\n";

    #[test]
    fn who_had_to_be_killed_is_named_and_silence_is_no_proof() {
        assert_eq!(judge(GOOD), [""; 0]);
        for bad in [
            "contd.service: State 'stop-sigterm' timed out. Killing.",
            "contd.service: Killing process 93 (contd) with signal SIGKILL.",
            "[FAILED] Failed to stop contd.service: timed out",
            "Sending SIGKILL to PID 93 (contd-flistfs).",
            "Sending SIGKILL to PID 94 (sleep).",
            "Sending SIGKILL to PID 95 (flistfs-keeper).",
        ] {
            assert_eq!(judge(&format!("{bad}\n{GOOD}")).len(), 1, "{bad}");
        }
        assert_eq!(judge("").len(), 4);
    }
}
