//! Standard input and terminals of containers themselves: several who are attached, those who part, and the deaths around them.

use std::io::Write as _;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{Flist, Node, eventually, said};
use crate::screen::{Screen, read_line};

/// Says what it is told, one line each, until the end.
const ECHO: &str = "while read line; do echo \"heard $line\"; done; echo end; exit 9";

/// A node with a container that must not notice.
struct Stage {
    node: Node,
    flist: Flist,
    bystander: serde_json::Value,
}

impl Stage {
    fn set() -> Self {
        let node = Node::start();
        let flist = node.flist();
        node.contd(["run", "-d", "-i", "-t", "--name", "stays", flist.arg(), "/bin/sh"]).ok();
        let bystander = node.inspect("stays")["pid"].clone();
        Self { node, flist, bystander }
    }

    fn end(self) {
        assert_eq!(self.node.inspect("stays")["pid"], self.bystander);
        self.node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
        self.node.finish();
    }

    /// Runs a command with pipes.
    fn piped(&self, args: &[&str]) -> Talk {
        let mut command = self.node.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run contd");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Talk { child, stdin, stdout }
    }

    fn log(&self, name: &str) -> Vec<String> {
        said(&self.node.log_file("default", name))
    }
}

/// A command that is talked to.
struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Talk {
    fn says(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("write");
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        assert_eq!(read_line(&mut self.stdout), line);
    }

    fn code(self) -> Option<i32> {
        let Self { mut child, stdin, stdout } = self;
        drop(stdin);
        let code = child.wait().expect("its end").code();
        drop(stdout);
        code
    }
}

#[test]
fn what_is_piped_in_is_read_to_its_end_and_without_input_there_is_none() {
    let stage = Stage::set();
    let mut cat = stage.piped(&["run", "-i", "--rm", stage.flist.arg(), "/bin/sh", "-c", ECHO]);
    // More than a pipe holds.
    let text = "x".repeat(4000);
    let lines = 100;
    let writer = std::thread::spawn({
        let mut stdin = cat.stdin;
        move || (0..lines).for_each(|_| writeln!(stdin, "{}", "x".repeat(4000)).expect("write"))
    });
    for _ in 0..lines {
        assert_eq!(read_line(&mut cat.stdout), format!("heard {text}"));
    }
    writer.join().expect("it has written");
    assert_eq!(read_line(&mut cat.stdout), "end");
    assert_eq!(cat.child.wait().expect("its end").code(), Some(9));
    // No -i: the end comes at once, whatever this command could read.
    let mut none = stage.piped(&["run", "--rm", stage.flist.arg(), "/bin/sh", "-c", ECHO]);
    none.says("not heard");
    none.hears("end");
    assert_eq!(none.code(), Some(9));
    stage.end();
}

#[test]
fn several_are_attached_at_once_and_those_who_go_leave_it_running() {
    let stage = Stage::set();
    let node = &stage.node;
    node.contd(["run", "-d", "-i", "--name", "web", stage.flist.arg(), "/bin/sh", "-c", ECHO]).ok();
    let (mut one, mut other) = (stage.piped(&["attach", "web"]), stage.piped(&["attach", "web"]));
    one.says("one");
    one.hears("heard one");
    other.says("two");
    // Each hears what comes since it is attached: the other's words, too.
    one.hears("heard two");
    let heard = read_line(&mut other.stdout);
    if heard == "heard one" {
        other.hears("heard two");
    } else {
        assert_eq!(heard, "heard two");
    }
    // A death closes nothing.
    other.child.kill().expect("kill it");
    assert_eq!(other.code(), None);
    one.says("three");
    one.hears("heard three");
    assert_eq!(node.inspect("web")["status"], "running");
    // The end of its own input is that of the container's.
    let Talk { mut child, stdin, mut stdout } = one;
    drop(stdin);
    assert_eq!(read_line(&mut stdout), "end");
    assert_eq!(child.wait().expect("its end").code(), Some(9));
    assert_eq!(stage.log("web"), ["heard one", "heard two", "heard three", "end"]);
    node.contd(["attach", "web"]).fails_with(125, "stopped");
    node.contd(["rm", "web"]).ok();
    stage.end();
}

#[test]
fn a_container_is_started_attached_and_its_earlier_output_is_not_shown_again() {
    let stage = Stage::set();
    let node = &stage.node;
    node.contd(["create", "-i", "--name", "web", stage.flist.arg(), "/bin/sh", "-c", ECHO]).ok();
    for word in ["first", "second"] {
        let mut talk = stage.piped(&["start", "-a", "-i", "web"]);
        talk.says(word);
        talk.hears(&format!("heard {word}"));
        assert_eq!(talk.code(), Some(9));
    }
    assert_eq!(stage.log("web"), ["heard first", "end", "heard second", "end"]);
    // Without -i its input stays open, and nobody writes.
    let talk = stage.piped(&["start", "-a", "web"]);
    eventually("it to run", || (node.inspect("web")["status"] == "running").then_some(()));
    node.contd(["start", "-a", "web"]).fails_with(1, "contd attach");
    node.contd(["stop", "-t", "0", "web"]).ok();
    assert_eq!(talk.code(), Some(137));
    node.contd(["rm", "web"]).ok();
    stage.end();
}

#[test]
fn a_terminal_is_parted_from_and_attached_to_again_and_what_it_shows_is_logged() {
    let stage = Stage::set();
    let mut command = stage.node.command();
    command.args(["run", "-it", "--name", "web", stage.flist.arg(), "/bin/sh"]);
    let (mut screen, mut run) = Screen::before(&command);
    screen.type_in("stty size; echo $TERM; test -t 0 && test -c /dev/console && echo has a con\"\"sole\r");
    screen.shows("30 100\r\nxterm\r\nhas a console\r\n");
    screen.resize(50, 132);
    screen.type_in("sh -c 'trap \"stty size\" WINCH; echo wa\"\"its; while :; do sleep 0.1; done'\r");
    screen.shows("waits\r\n");
    screen.resize(20, 70);
    screen.shows("20 70\r\n");
    screen.type_in("\x03");
    screen.type_in("echo interrupted $?\r");
    screen.shows("interrupted 130");
    screen.type_in("\x10\x11");
    assert_eq!(run.wait().expect("its end").code(), Some(0), "{}", screen.seen);
    let pid = stage.node.inspect("web")["pid"].clone();
    let mut command = stage.node.command();
    command.args(["attach", "--detach-keys", "ctrl-x", "web"]);
    let (mut screen, mut attach) = Screen::before(&command);
    screen.type_in("echo aga\"\"in\r");
    screen.shows("again\r\n");
    screen.type_in("\x18");
    assert_eq!(attach.wait().expect("its end").code(), Some(0), "{}", screen.seen);
    assert_eq!(stage.node.inspect("web")["pid"], pid);
    let mut command = stage.node.command();
    command.args(["attach", "web"]);
    let (mut screen, mut attach) = Screen::before(&command);
    screen.type_in("exit 5\r");
    assert_eq!(attach.wait().expect("its end").code(), Some(5), "{}", screen.seen);
    let log = stage.log("web").join("\n");
    assert!(log.contains("interrupted 130") && log.contains("again"), "{log}");
    stage.node.contd(["rm", "web"]).ok();
    stage.node.contd(["run", "-it", stage.flist.arg(), "/bin/sh"]).fails_with(125, "no terminal");
    stage.end();
}

#[test]
fn input_and_output_go_on_when_the_shim_the_daemon_or_both_in_turn_die() {
    let mut stage = Stage::set();
    let mut talk = stage.piped(&["run", "-i", "--name", "web", stage.flist.arg(), "/bin/sh", "-c", ECHO]);
    talk.says("one");
    talk.hears("heard one");
    let pid = stage.node.inspect("web")["pid"].clone();
    let shim = stage.node.shim_pid("web");
    stage.node.announce("shim lost");
    stage.node.announce("shim dead, successor started");
    stage.node.signal(shim, Signal::SIGKILL);
    talk.says("two");
    talk.hears("heard two");
    eventually("another shim", || (stage.node.inspect("web")["status"] == "running").then_some(()));
    stage.node.kill_daemon();
    talk.says("three");
    stage.node.start_daemon();
    talk.hears("heard three");
    stage.node.contd(["shim", "upgrade", "web"]).ok();
    talk.says("four");
    talk.hears("heard four");
    assert_eq!(stage.node.inspect("web")["pid"], pid);
    let Talk { mut child, stdin, mut stdout } = talk;
    drop(stdin);
    assert_eq!(read_line(&mut stdout), "end");
    assert_eq!(child.wait().expect("its end").code(), Some(9));
    assert_eq!(stage.log("web"), ["heard one", "heard two", "heard three", "heard four", "end"]);
    stage.node.contd(["rm", "web"]).ok();
    stage.end();
}

#[test]
fn a_terminal_goes_on_when_the_shim_or_the_daemon_dies_or_is_replaced() {
    let mut stage = Stage::set();
    let mut command = stage.node.command();
    command.args(["run", "-it", "--name", "web", stage.flist.arg(), "/bin/sh"]);
    let (mut screen, mut run) = Screen::before(&command);
    screen.type_in("echo on\"\"e\r");
    screen.shows("one\r\n");
    let pid = stage.node.inspect("web")["pid"].clone();
    for turn in ["two", "three"] {
        let shim = stage.node.shim_pid("web");
        stage.node.announce("shim lost");
        stage.node.announce("shim dead, successor started");
        stage.node.signal(shim, Signal::SIGKILL);
        screen.type_in(&format!("echo {}\"\"{}\r", &turn[..1], &turn[1..]));
        screen.shows(&format!("{turn}\r\n"));
        eventually("another shim", || (stage.node.inspect("web")["status"] == "running").then_some(()));
    }
    // While the shim is dead and its daemon does nothing, no process reads what is typed: it waits.
    let shim = stage.node.shim_pid("web");
    let daemon = i32::try_from(stage.node.daemon_pid()).expect("a pid");
    stage.node.signal(daemon, Signal::SIGSTOP);
    stage.node.signal(shim, Signal::SIGKILL);
    screen.type_in("echo wai\"\"ted\r");
    // The keys are in the FIFO by then. Were they not, this would find less, and not be red.
    std::thread::sleep(std::time::Duration::from_millis(300));
    stage.node.signal(daemon, Signal::SIGCONT);
    screen.shows("waited\r\n");
    stage.node.kill_daemon();
    screen.type_in("echo fo\"\"ur\r");
    stage.node.start_daemon();
    screen.shows("four\r\n");
    stage.node.contd(["shim", "upgrade", "web"]).ok();
    screen.type_in("echo fi\"\"ve\r");
    screen.shows("five\r\n");
    // The daemon has the terminal still, for one more death.
    let shim = stage.node.shim_pid("web");
    stage.node.announce("shim lost");
    stage.node.announce("shim dead, successor started");
    stage.node.signal(shim, Signal::SIGKILL);
    screen.type_in("echo si\"\"x\r");
    screen.shows("six\r\n");
    assert_eq!(stage.node.inspect("web")["pid"], pid);
    screen.type_in("exit 6\r");
    assert_eq!(run.wait().expect("its end").code(), Some(6), "{}", screen.seen);
    stage.node.contd(["rm", "web"]).ok();
    stage.end();
}
