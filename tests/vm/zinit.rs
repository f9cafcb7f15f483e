//! contd as a service of zinit, by the files in `contrib/zinit`, under the program of zinit's own crate, which `suite vm` installs.
//!
//! zinit is no init here, so its end ends no machine.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use contd_test_harness::census::command_lines;
use contd_test_harness::eventually;
use contd_test_harness::node::Output;

use crate::{INSTALLED, Site, contd, inspect, install, kill, lines, machine, nothing_is_left};

/// Where it looks for services, below its home directory.
const SERVICES: &str = "hero/cfg/zinit";

/// Where it leaves what it and the services say, below its home directory.
const OUTPUT: &str = "output";

/// Where the service keeps everything.
const ROOT: &str = "/var/cache/modules/contd";

/// A zinit that has started contd.
struct Zinit {
    home: tempfile::TempDir,
    process: Child,
}

/// The crate's program, beside those that are tested.
fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory");
    built.join("zinit/bin/zinit")
}

impl Zinit {
    #[track_caller]
    fn start() -> Self {
        let home = tempfile::tempdir().expect("make a directory");
        let services = home.path().join(SERVICES);
        fs::create_dir_all(&services).expect("make a directory");
        for service in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/zinit")).expect("list the services") {
            let path = service.expect("list the services").path();
            fs::copy(&path, services.join(path.file_name().expect("a file"))).expect("copy it");
        }
        let output = File::create(home.path().join(OUTPUT)).expect("make a file");
        let mut start = Command::new(program());
        start.arg("start").env("HOME", home.path()).stdin(Stdio::null());
        let process = start.stderr(output.try_clone().expect("copy it")).stdout(output).spawn().expect("start zinit");
        let zinit = Self { home, process };
        eventually("its socket", || zinit.home.path().join("hero/var/zinit.sock").exists().then_some(()));
        for service in ["contd", "contd_shutdown"] {
            let is_running = format!("zinit_is_running(\"{service}\")");
            eventually(&is_running, || (zinit.says(&is_running) == "true").then_some(()));
        }
        zinit
    }

    /// Runs a script of zinit's language, and returns its value.
    #[track_caller]
    fn says(&self, script: &str) -> String {
        let mut command = Command::new(program());
        command.arg("-i").env("HOME", self.home.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run zinit");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("say it");
        Output::of(&child.wait_with_output().expect("wait for zinit")).ok().trim().to_owned()
    }

    /// Stops the daemon, which runs no container any more, and zinit.
    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.says("zinit_stop(\"contd_shutdown\")"), "true");
        assert_eq!(self.says("zinit_stop(\"contd\")"), "true");
        nothing_is_left(INSTALLED, &["/run/contd", ROOT]);
        self.process.kill().and_then(|()| self.process.wait()).expect("end zinit");
    }
}

impl Drop for Zinit {
    fn drop(&mut self) {
        let _: Result<(), std::io::Error> = self.process.kill();
        let _: Result<_, std::io::Error> = self.process.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.home.path().join(OUTPUT)).unwrap_or_default());
        }
    }
}

/// The daemon, if it runs.
fn daemon() -> Option<i32> {
    let is_one = |(_, line): &(i32, String)| line.starts_with("/usr/local/bin/contd daemon");
    command_lines().into_iter().find(is_one).map(|(pid, _)| pid)
}

/// Another daemon than that one.
#[track_caller]
fn another_than(before: i32) -> i32 {
    eventually("another daemon", || daemon().filter(|pid| *pid != before))
}

#[test]
fn no_container_notices_that_zinit_restarts_stops_and_starts_the_daemon() {
    let lock = machine();
    install();
    let zinit = Zinit::start();
    let first = eventually("the daemon", daemon);
    let site = Site::run(lock);

    assert_eq!(zinit.says("zinit_restart(\"contd\")"), "true");
    let second = another_than(first);
    site.goes_on();

    kill(second);
    another_than(second);
    site.goes_on();

    assert_eq!(zinit.says("zinit_stop(\"contd\")"), "true");
    eventually("the daemon to be gone", || daemon().is_none().then_some(()));
    let before = lines().len();
    eventually("it to go on alone", || (lines().len() > before + 5).then_some(()));
    // One that is just being stopped cannot be started.
    eventually("zinit to have noticed", || (zinit.says("zinit_is_running(\"contd\")") == "false").then_some(()));
    assert_eq!(zinit.says("zinit_start(\"contd\")"), "true");
    eventually("the daemon", daemon);
    site.goes_on();

    site.end_container();
    zinit.end();
}

#[test]
fn the_shutdown_service_of_zinit_ends_containers_in_order_and_the_next_daemon_goes_on_by_policy() {
    let lock = machine();
    install();
    let zinit = Zinit::start();
    let first = eventually("the daemon", daemon);
    let site = Site::run(lock);
    // Longer than zinit waits before it kills a service.
    let polite = "trap 'sleep 2; echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done";
    let run =
        ["run", "-d", "--name", "polite", "--restart", "always", "--stop-signal", "USR1", "--stop-timeout", "300"];
    contd(&[&run[..], &[site.flist.arg(), "/bin/sh", "-c", polite]].concat());
    let log = || fs::read_to_string("/var/log/default/polite.log").expect("read the log");
    eventually("it to be up", || log().contains(" up\n").then_some(()));

    assert_eq!(zinit.says("zinit_stop(\"contd_shutdown\")"), "true");
    eventually("it to have ended in order", || log().ends_with(" stdout F bye\n").then_some(()));
    eventually("the other one to have ended", || (inspect("counts")["status"] == "stopped").then_some(()));
    assert_eq!(inspect("polite")["status"], "stopped");

    assert_eq!(zinit.says("zinit_restart(\"contd\")"), "true");
    another_than(first);
    eventually("it to run again", || (inspect("polite")["status"] == "running").then_some(()));
    assert_eq!(inspect("counts")["exit_code"], 137, "it has no policy, and does not hear SIGTERM");
    contd(&["rm", "-f", "-t", "0", "counts", "polite"]);
    zinit.end();
}
