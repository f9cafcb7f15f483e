//! A command that is typed means what people of docker and podman think, and a command that is said can be typed.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::node::{Output, binary};
use crate::harness::{Node, eventually};

/// The command that a hint ends with.
#[track_caller]
fn command_of(output: &Output) -> String {
    let hint = output.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_default();
    let at = hint.find("contd ").unwrap_or_else(|| panic!("no command in: {}", output.stderr));
    hint[at..].to_owned()
}

/// Runs a line in a shell as somebody would who has pasted it.
fn paste(line: &str) -> i32 {
    let bin = binary("contd").parent().expect("a directory").display().to_string();
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().env("PATH", format!("{bin}:/usr/bin:/bin")).args(["-c", line]).stdout(Stdio::null());
    shell.status().expect("run a shell").code().unwrap_or(-1)
}

#[test]
fn hints_can_be_pasted_as_they_stand() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["-n", "blue", "run", "-d", "--name", "web", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["-n", "blue", "create", "--name", "job", flist.arg(), "/bin/true"]).ok();

    // Known elsewhere: by name, by id, and of several each one.
    let id = node.inspect_in("blue", "web")["id"].as_str().expect("an id").to_owned();
    for reference in ["web", &id[..12]] {
        for verb in ["inspect", "stop", "kill", "logs", "wait", "start", "rm"] {
            let output = node.contd([verb, reference]);
            output.fails_with(1, "namespace blue (running) has one");
            assert_eq!(
                command_of(&output),
                format!("contd -n blue --address {} inspect {reference}", node.socket().display())
            );
        }
    }
    assert_eq!(paste(&command_of(&node.contd(["inspect", "web"]))), 0);
    let several = node.contd(["rm", "web", "job", "nobody"]);
    several.fails_with(1, "namespace blue (created) has one");
    assert!(several.stderr.contains("list what there is: contd -n default"), "{}", several.stderr);

    // Taken, running, unknown everywhere: whatever is said leads somewhere, and ends nothing.
    for (output, code) in [
        (node.contd(["-n", "blue", "run", "-d", "--name", "web", flist.arg(), "/bin/true"]), 125),
        (node.contd(["-n", "blue", "create", "--name", "job", flist.arg(), "/bin/true"]), 125),
        (node.contd(["-n", "blue", "rm", "web"]), 1),
        (node.contd(["-n", "blue", "stop", "job"]), 1),
        (node.contd(["-n", "blue", "kill", "job"]), 1),
        (node.contd(["-n", "red", "inspect", "nobody"]), 1),
    ] {
        assert_eq!(output.code, code, "{}", output.stderr);
        let command = command_of(&output);
        assert!(!["rm", "stop", "kill"].iter().any(|verb| command.contains(&format!(" {verb} "))), "{command}");
        assert_eq!(paste(&command), 0, "{command}");
    }
    let taken = node.contd(["-n", "blue", "create", "--name", "job", flist.arg(), "/bin/true"]);
    assert!(taken.stderr.contains("has one of this name, which is created"), "{}", taken.stderr);
    node.contd(["-n", "blue", "rm", "-f", "-t", "0", "web", "job"]).ok();
    node.finish();
}

#[test]
fn a_signal_is_understood_however_it_is_written() {
    let node = Node::start();
    let flist = node.flist();
    let script = "trap 'exit 5' 37; echo ready; while :; do sleep 0.05; done";
    for spelling in ["SIGRTMIN+3", "rtmin+3", "37", "SIGRTMAX-27"] {
        let run = ["run", "-d", "--name", "s", "--stop-signal", spelling, flist.arg(), "/bin/sh", "-c", script];
        node.contd(run).ok();
        eventually("the trap to be set", || node.contd(["logs", "s"]).stdout.contains("ready").then_some(()));
        assert_eq!(node.inspect("s")["stop_signal"], "SIGRTMIN+3");
        node.contd(["stop", "-t", "20", "s"]).ok();
        assert_eq!(node.contd(["wait", "s"]).ok(), "5", "{spelling}");
        node.contd(["start", "s"]).ok();
        eventually("the trap to be set again", || {
            (node.contd(["logs", "s"]).stdout.matches("ready").count() == 2).then_some(())
        });
        node.contd(["kill", "-s", spelling, "s"]).ok();
        assert_eq!(node.contd(["wait", "s"]).ok(), "5", "{spelling}");
        node.contd(["rm", "s"]).ok();
    }
    node.finish();
}

/// Reads a limit of a container's cgroup, in whichever hierarchy the controller is.
#[test]
fn addresses_with_our_scheme_work_wherever_one_is_taken() {
    let node = Node::start();
    let address = format!("unix://{}", node.socket().display());
    let contd = |words: &[&str], env: &str| {
        let mut command = Command::new(binary("contd"));
        command.env_clear().env("CONTD_ADDRESS", env).args(words).stdin(Stdio::null()).stderr(Stdio::null());
        command.stdout(Stdio::null()).status().expect("run contd").code()
    };
    assert_eq!(contd(&["ps"], &address), Some(0));
    assert_eq!(contd(&["--address", &address, "ps"], "/nowhere"), Some(0));
    assert_eq!(contd(&["ps"], "tcp://localhost:1"), Some(2));
    node.finish();
}

/// Starts a daemon that is to be refused, and returns what it says.
#[track_caller]
fn refused(root: &Path, config: &str, flags: &[&str]) -> String {
    let file = root.join("config.toml");
    let base = format!(
        "cgroup_parent = \"contd-t-refused\"\nstate_dir = \"{0}/state\"\nrun_dir = \"{0}/run\"\nlog_dir = \"{0}/log\"\ncache_dir = \"{0}/cache\"\n",
        root.display()
    );
    let base: String = base
        .lines()
        .filter(|line| !config.contains(line.split(' ').next().unwrap_or_default()))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&file, base + config).expect("write the configuration");
    let mut command = Command::new(binary("contd"));
    command.env_clear().arg("daemon").arg("--config").arg(&file).args(flags).stdin(Stdio::null());
    let output = command.output().expect("run the daemon");
    assert_eq!(output.status.code(), Some(1), "{config}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory that is mounted over another, until it is dropped.
struct Bound(std::path::PathBuf);

impl Bound {
    fn mount(source: &Path, point: &Path) -> Self {
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(source), point, None::<&str>, flags, None::<&str>).expect("bind");
        Self(point.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        crate::harness::mounted::unmount(&self.0);
    }
}

#[test]
fn a_daemon_with_a_wrong_configuration_says_where_and_touches_nothing() {
    let temp = tempfile::Builder::new().prefix("contd-t-").tempdir_in("/tmp").expect("make a directory");
    let root = temp.path();
    let at = |line: &str| line.replace('~', &root.display().to_string());
    for (config, parts) in [
        ("log_dir = \"~/state/log\"", ["log_dir", "lies in state_dir"]),
        ("cache_dir = \"~/state\"", ["cache_dir", "is the same as"]),
        ("state_dir = \"~/run/state\"", ["state_dir", "lies in run_dir"]),
        ("state_dir = \"/\"", ["state_dir", "root of the file system"]),
        ("[defaults]\nmemory_mib = 0", ["defaults.memory_mib", "would be no limit"]),
        ("[limits]\nruns = \"many\"", ["config.toml, line 7, column 8", "invalid type"]),
        ("nonsense = 1", ["config.toml, line 6, column 1", "nonsense"]),
    ] {
        let said = refused(root, &at(config), &[]);
        for part in parts {
            assert!(said.contains(part), "{config}: {part:?} is not in: {said}");
        }
    }
    let link = root.join("link");
    std::os::unix::fs::symlink(root.join("elsewhere"), &link).expect("link");
    std::fs::create_dir(root.join("elsewhere")).expect("make a directory");
    let flags = ["--state-dir", &at("~/link/s"), "--cache-dir", &at("~/elsewhere")];
    let said = refused(root, "", &flags);
    assert!(said.contains("state_dir") && said.contains("cache_dir") && said.contains("--state-dir"), "{said}");
    // One directory by two names, without a link to see through.
    let bound = root.join("bound");
    std::fs::create_dir(&bound).expect("make a directory");
    let _mounted = Bound::mount(&root.join("elsewhere"), &bound);
    let said = refused(root, "", &["--state-dir", &at("~/bound"), "--cache-dir", &at("~/elsewhere/cache")]);
    assert!(said.contains("cache_dir") && said.contains("lies in state_dir"), "{said}");
    let mut there: Vec<_> = std::fs::read_dir(root).expect("read").flatten().map(|entry| entry.file_name()).collect();
    there.sort();
    assert_eq!(there, ["bound", "config.toml", "elsewhere", "link"], "something was made");
}
