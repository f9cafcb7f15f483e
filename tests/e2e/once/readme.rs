//! The examples of README.md, run in order, as they are written, by a shell that stands in a mount namespace of its own: what
//! they name below /srv, /var and /run is there and nowhere else.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use crate::harness::census::{cgroups_below, command_lines};
use crate::harness::{SOON, eventually};

/// Directories that the examples use, each a tmpfs here.
const OWN: [&str; 6] = ["/srv", "/run", "/var/lib", "/var/log", "/var/cache", "/etc/contd"];
/// The mark of the line behind a command's output, which holds its exit code.
const MARK: &str = "@@ended ";

/// Returns the commands of the first block of shell below a heading.
fn commands(readme: &str, heading: &str) -> Vec<String> {
    let section = readme.split_once(heading).expect("the heading is there").1;
    let block =
        section.split_once("\n```sh\n").and_then(|(_, rest)| rest.split_once("\n```")).expect("a block of shell").0;
    block.lines().map(str::to_owned).collect()
}

/// A shell in surroundings of its own.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    place: tempfile::TempDir,
    cgroup_parent: String,
}

impl Shell {
    fn start() -> Self {
        let place = tempfile::Builder::new().prefix("contd-readme-").tempdir_in("/tmp").expect("make a directory");
        let binaries = Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory");
        let cgroup_parent = format!("contd-t-readme-{}", std::process::id());
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binaries.display());
        let errors = fs::File::create(place.path().join("stderr")).expect("make a file");
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-euc",
            "for own; do mkdir -p $own; mount -t tmpfs own $own; done; exec bash",
        ]);
        command.arg("bash").args(OWN).env_clear().env("PATH", path).env("HOME", place.path()).current_dir(place.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().expect("start a shell");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut shell = Self { child, input, output: receiver, place, cgroup_parent };
        let config = format!("echo 'cgroup_parent = \"{}\"' > /etc/contd/config.toml", shell.cgroup_parent);
        shell.run(&config).expect("write the configuration");
        shell
    }

    /// Runs a line and returns its output; the error is what it said when its code was not 0.
    fn run(&mut self, line: &str) -> Result<Vec<String>, String> {
        writeln!(self.input, "{line}\ncode=$?; echo; echo \"{MARK}$code\"").map_err(|error| error.to_string())?;
        let mut said = Vec::new();
        loop {
            let next =
                self.output.recv_timeout(*SOON).map_err(|error| format!("{line}: {error}: {}", self.errors()))?;
            match next.strip_prefix(MARK) {
                None => said.push(next),
                Some(code) => {
                    said.retain(|line| !line.is_empty());
                    return if code == "0" {
                        Ok(said)
                    } else {
                        Err(format!("{line}: code {code}: {said:?} {}", self.errors()))
                    };
                }
            }
        }
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.place.path().join("stderr")).unwrap_or_default()
    }

    /// Runs all lines as a person does: the next one when the one before has done what it is for.
    fn run_all(&mut self, lines: &[String]) -> Result<(), String> {
        for line in lines {
            let said = self.run(line)?;
            // A comment that is a number is what the line prints last.
            let comment = line.rsplit_once(" # ").map_or("", |(_, comment)| comment.trim());
            if comment.parse::<u32>().is_ok() && said.last().is_none_or(|last| last != comment) {
                return Err(format!("{line}: it printed {said:?}"));
            }
            if line.contains(" daemon &") {
                let awaits =
                    "for i in $(seq 600); do contd version >/dev/null 2>&1 && break; sleep 0.1; done; contd version";
                self.run(awaits)?;
            }
        }
        Ok(())
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Each process that the examples have started is in its cgroups or was started below its directory.
        // An example that has failed leaves containers, and the servers of their roots with them.
        let _ended = self.run("contd shutdown >/dev/null 2>&1; kill $(jobs -p) 2>/dev/null; wait; exit 0");
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let name = format!("/proc/{}", self.child.id());
        eventually("the shell to be gone", || (!Path::new(&name).exists()).then_some(()));
    }
}

#[test]
fn the_examples_run_in_order_as_they_are_written() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("read");
    let lines = commands(&readme, "\n## Using it\n");
    assert!(lines.len() > 10, "{lines:?}");
    let mut shell = Shell::start();
    shell.run_all(&lines).unwrap_or_else(|error| panic!("{error}"));
    let parent = shell.cgroup_parent.clone();
    let namespace = fs::read_link(format!("/proc/{}/ns/mnt", shell.child.id())).expect("its namespace");
    drop(shell);
    eventually("nothing of the examples to run", || {
        let left = command_lines().into_iter().find(|(pid, command)| {
            let is_there = fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|one| one == namespace);
            is_there && command.contains("contd")
        });
        left.is_none().then_some(())
    });
    eventually("no cgroup of the examples to be left", || cgroups_below(&parent).is_empty().then_some(()));
}

#[test]
fn an_example_that_does_not_work_is_found_out() {
    let mut shell = Shell::start();
    for (wrong, why) in [
        ("contd run --no-such-flag app.fl", "code"),
        ("echo 4; echo $?   # 3", "it printed"),
        ("contd ps", "code 1"),
        ("no-such-program", "code 127"),
    ] {
        let error = shell.run_all(&["true".to_owned(), wrong.to_owned()]).expect_err(wrong);
        assert!(error.contains(why) && error.contains(wrong), "{error}");
    }
    shell.run_all(&["echo 3   # 3".to_owned()]).expect("right");
}
