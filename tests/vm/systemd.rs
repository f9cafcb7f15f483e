//! contd as `make install` puts it on a machine with systemd: its restart, its death, the socket that stands for it, and the unit that
//! its containers stand below.

use std::path::Path;
use std::process::Command;
use std::sync::MutexGuard;

use contd_test_harness::census::{cgroups_below, command_lines, members};
use contd_test_harness::eventually;
use contd_test_harness::node::Output;

use crate::{INSTALLED, Site, command, contd, inspect, install, kill, lines};

/// The unit that containers stand below, and its cgroup.
const UNIT: &str = "contd-containers.service";
const UNIT_CGROUP: &str = "system.slice/contd-containers.service";

impl Site {
    /// Installs, starts both units, and runs the container.
    #[track_caller]
    fn of_systemd() -> Self {
        let lock = machine();
        install();
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "contd.socket", "contd.service"]);
        Self::run(lock)
    }

    /// Lets the container end; demands every line, its true code, and that nothing is left once the daemon is stopped.
    #[track_caller]
    fn end_of_systemd(self) {
        self.end_container();
        systemctl(&["stop", "contd.service", "contd.socket"]);
        nothing_is_left(INSTALLED);
    }
}

/// Takes a machine with systemd for one test.
#[track_caller]
pub(crate) fn machine() -> MutexGuard<'static, ()> {
    let machine = crate::machine();
    assert!(Path::new("/run/systemd/system").exists(), "this node has no systemd");
    machine
}

/// Demands that no process of the programs that begin so is left, no mount and no container's cgroup.
#[track_caller]
pub(crate) fn nothing_is_left(programs: &str) {
    crate::nothing_is_left(programs, &["/run/contd", "/var/lib/contd"]);
    let cgroups = cgroups_below(&format!("{UNIT_CGROUP}/contd"));
    assert!(cgroups.iter().all(|cgroup| cgroup.ends_with("contd")), "cgroups are left: {cgroups:?}");
}

/// The cgroup of a process in v2.
fn cgroup_of(pid: impl std::fmt::Display) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    text.trim().strip_prefix("0::/").expect("v2 only").to_owned()
}

/// The processes in a cgroup.
fn processes_of(cgroup: &str) -> Vec<i32> {
    members(&Path::new("/sys/fs/cgroup").join(cgroup))
}

/// The holder of shims.
#[track_caller]
fn holder() -> i32 {
    eventually("a holder", || {
        let is_one = |(_, line): &(i32, String)| line.starts_with("/usr/local/bin/contd-shim --hold");
        command_lines().into_iter().find(is_one).map(|(pid, _)| pid)
    })
}

#[track_caller]
pub(crate) fn systemctl(args: &[&str]) -> String {
    let output = Output::of(&Command::new("systemctl").args(args).output().expect("run systemctl"));
    if output.code != 0 {
        let log = Command::new("journalctl").args(["-u", "contd*", "-n", "50", "--no-pager"]).output();
        let log = log.map(|log| String::from_utf8_lossy(&log.stdout).into_owned());
        assert_eq!(output.code, 0, "systemctl {args:?}: {output:?}\n{log:?}");
    }
    output.stdout.trim().to_owned()
}

/// The daemon's pid, as systemd knows it; 0 if there is none.
#[track_caller]
pub(crate) fn main_pid() -> i32 {
    systemctl(&["show", "-P", "MainPID", "contd.service"]).parse().expect("a pid")
}

#[test]
fn no_container_notices_that_systemd_restarts_the_daemon() {
    let site = Site::of_systemd();
    let before = main_pid();
    systemctl(&["restart", "contd.service"]);
    assert_ne!(main_pid(), before, "it is the same process");
    site.goes_on();
    site.end_of_systemd();
}

#[test]
fn systemd_starts_a_daemon_that_was_killed_again() {
    let site = Site::of_systemd();
    let before = main_pid();
    systemctl(&["kill", "--kill-who=main", "--signal=KILL", "contd.service"]);
    eventually("another daemon", || {
        let pid = main_pid();
        (pid != 0 && pid != before).then_some(())
    });
    site.goes_on();
    site.end_of_systemd();
}

#[test]
fn a_call_starts_the_daemon_whose_socket_systemd_holds() {
    let site = Site::of_systemd();
    systemctl(&["stop", "contd.service"]);
    assert_eq!(main_pid(), 0, "it is stopped");
    // A caller waits five seconds for it; on a slow node it is not there yet.
    eventually("the daemon to answer", || command(&["ps"]).stdout.contains("counts").then_some(()));
    assert_ne!(main_pid(), 0, "nobody has started it");
    site.goes_on();
    site.end_of_systemd();
}

#[test]
fn systemd_shows_containers_and_helpers_at_their_unit_and_only_the_daemon_at_its_own() {
    let site = Site::of_systemd();
    let id = inspect("counts")["id"].as_str().expect("an id").to_owned();
    assert_eq!(cgroup_of(&site.pid), format!("{UNIT_CGROUP}/contd/{id}"));
    eventually("the flist server to have moved", || {
        (processes_of("system.slice/contd.service") == [main_pid()]).then_some(())
    });
    let helpers = processes_of(&format!("{UNIT_CGROUP}/helpers"));
    let lines: Vec<String> =
        command_lines().into_iter().filter(|(pid, _)| helpers.contains(pid)).map(|(_, line)| line).collect();
    for helper in ["contd-shim --hold ", "contd-shim --dir ", "contd-flistfs --dir "] {
        assert!(lines.iter().any(|line| line.contains(helper)), "{helper}is not among {lines:?}");
    }
    let shown = Command::new("systemd-cgls").args(["--no-pager", "--full", &format!("--unit={UNIT}")]).output();
    let shown = Output::of(&shown.expect("run systemd-cgls")).ok().to_owned();
    let container = format!("{} /bin/sh -c", site.pid);
    for shown in [shown, systemctl(&["status", "--no-pager", "--full", "--lines=0", UNIT])] {
        assert!(shown.contains(&container) && shown.contains("contd-shim --hold"), "{shown}");
    }
    // The journal of a restart.
    let cursor = site.scratch.path().join("cursor");
    let journal = || {
        let mut journal = Command::new("journalctl");
        journal.args(["--unit=contd.service", "--no-pager", "--output=cat", "--cursor-file"]).arg(&cursor);
        Output::of(&journal.output().expect("run journalctl")).ok().to_owned()
    };
    journal();
    systemctl(&["restart", "contd.service"]);
    eventually("systemd to have started it", || journal_says(&journal(), "Started contd.service").then_some(()));
    site.goes_on();
    site.end_of_systemd();
}

/// Demands that no process was left over when the unit was started, as far as the journal goes.
#[track_caller]
fn journal_says(journal: &str, words: &str) -> bool {
    assert!(!journal.contains("left-over"), "{journal}");
    journal.contains(words)
}

#[test]
fn a_limit_that_systemd_sets_on_the_unit_bounds_all_containers() {
    let site = Site::of_systemd();
    let used = std::fs::read_to_string(format!("/sys/fs/cgroup/{UNIT_CGROUP}/memory.current")).expect("read");
    let limit = used.trim().parse::<u64>().expect("a number") + (64 << 20);
    systemctl(&["set-property", "--runtime", UNIT, &format!("MemoryMax={limit}")]);
    // It may have a gibibyte by its own limit.
    let words = ["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    let eats = command(&[&["run", "--name", "eats", site.flist.arg()][..], &words].concat());
    let exit = inspect("eats")["exit"].clone();
    systemctl(&["set-property", "--runtime", UNIT, "MemoryMax=infinity"]);
    assert!(eats.code == 137 && exit["oom_kills"].as_u64() >= Some(1), "{eats:?} {exit}");
    assert_eq!(systemctl(&["is-active", UNIT]), "active");
    contd(&["rm", "eats"]);
    site.goes_on();
    site.end_of_systemd();
}

#[test]
fn systemd_hears_nothing_of_the_deaths_of_holders_and_the_next_holder_is_in_the_unit() {
    let site = Site::of_systemd();
    let since = || systemctl(&["show", "-P", "ActiveEnterTimestampMonotonic", UNIT]);
    let (began, first, daemon) = (since(), holder(), main_pid());
    let helpers = format!("{UNIT_CGROUP}/helpers");
    eventually("the holder to have moved", || (cgroup_of(first) == helpers).then_some(()));
    kill(first);
    // It takes a warm shim or starts one; another warm one follows.
    contd(&["run", "-d", "--name", "next", site.flist.arg(), "/bin/sleep", "1000"]);
    let second = eventually("another holder", || Some(holder()).filter(|pid| *pid != first));
    eventually("it to have moved", || (cgroup_of(second) == helpers).then_some(()));
    kill(second);
    kill(daemon);
    eventually("another daemon", || Some(main_pid()).filter(|pid| ![0, daemon].contains(pid)));
    site.goes_on();
    assert_eq!(inspect("next")["status"], "running");
    contd(&["rm", "-f", "-t", "0", "next"]);
    assert_eq!(since(), began, "the unit was restarted");
    site.end_of_systemd();
}

#[test]
fn systemd_ends_all_in_order_with_the_unit_and_the_next_start_goes_on_by_policy() {
    let site = Site::of_systemd();
    let polite = "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done";
    let run =
        ["run", "-d", "--name", "polite", "--restart", "always", "--stop-signal", "USR1", "--stop-timeout", "300"];
    contd(&[&run[..], &[site.flist.arg(), "/bin/sh", "-c", polite]].concat());
    let log = || std::fs::read_to_string("/var/log/default/polite.log").expect("read the log");
    eventually("it to be up", || log().contains(" up\n").then_some(()));
    let before = lines().len();
    systemctl(&["stop", UNIT, "contd.socket"]);
    assert!(log().ends_with(" stdout F bye\n"), "it had no signal of its own, or no time: {}", log());
    for unit in [UNIT, "contd.service"] {
        let property = |name| systemctl(&["show", "-P", name, unit]);
        assert_eq!((property("ActiveState"), property("Result")), ("inactive".into(), "success".into()), "{unit}");
    }
    assert!(!Path::new(&format!("/sys/fs/cgroup/{UNIT_CGROUP}")).exists(), "its cgroup is left");
    nothing_is_left(INSTALLED);
    systemctl(&["start", "contd.socket", "contd.service"]);
    let again = eventually("it to run again", || Some(inspect("polite")).filter(|info| info["status"] == "running"));
    assert_eq!(cgroup_of(&again["pid"]), format!("{UNIT_CGROUP}/contd/{}", again["id"].as_str().expect("an id")));
    // The other one has no policy; it does not hear SIGTERM, and had the ten seconds that everybody has.
    let counts = inspect("counts");
    assert_eq!((counts["status"].as_str(), counts["exit_code"].as_i64()), (Some("stopped"), Some(137)), "{counts}");
    assert!(lines().len() > before + 10, "it had no time");
    contd(&["rm", "-f", "-t", "0", "counts", "polite"]);
    systemctl(&["stop", UNIT, "contd.socket"]);
    nothing_is_left(INSTALLED);
}
