//! Users beside root, and what one of them may take: connections, followers, threads that hang. Nobody else notices.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::census::command_lines;
use crate::harness::dead_fuse::DeadFuse;
use crate::harness::{Node, eventually};

/// Users that nobody has.
const USERS: [u32; 3] = [64_001, 64_002, 64_003];

/// Lets any user reach the socket; who may do what is the daemon's to say.
fn open_to_all(node: &Node) {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set the mode");
    mode(&node.root, 0o711);
    mode(&node.socket(), 0o666);
}

fn as_user(node: &Node, uid: u32) -> Command {
    let mut command = node.command();
    command.uid(uid).gid(uid).current_dir("/").stdin(Stdio::null());
    command
}

/// A user who follows events: one connection and one follower.
struct Follower(Child);

impl Follower {
    /// Begins, and is there once it has been told the first event; otherwise the words of the refusal.
    fn begin(node: &Node, uid: u32) -> Result<Self, String> {
        let mut command = as_user(node, uid);
        command.args(["-n", "one", "events", "--from", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run contd events");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        if stdout.read_line(&mut line).expect("read") > 0 {
            child.stdout = Some(stdout.into_inner());
            return Ok(Self(child));
        }
        let mut words = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut words).expect("read");
        let status = child.wait().expect("wait");
        assert!(!status.success(), "it ended well without an event: {words}");
        Err(words)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Has a user begin as many as it may; returns them and why there are no more.
fn as_many_as_may(node: &Node, uid: u32) -> (Vec<Follower>, String) {
    let mut followers = Vec::new();
    loop {
        assert!(followers.len() < 20, "nothing stops uid {uid}");
        match Follower::begin(node, uid) {
            Ok(follower) => followers.push(follower),
            Err(words) => return (followers, words),
        }
    }
}

fn rules(extra: &str) -> String {
    let rule = |uid: &u32| format!("[[access]]\nuid = {uid}\nnamespaces = [\"one\"]\n{extra}");
    USERS.iter().map(rule).collect::<Vec<_>>().join("\n")
}

#[test]
fn users_that_take_all_they_may_leave_root_and_each_other_their_places() {
    let limits = "[limits]\nconnections = 10\nconnections_for_root = 3\nconnections_per_user = 4\n\
                  followers_per_user = 2\n";
    let node = Node::with_config(&[limits, rules("max_followers = 20\n").as_str()].concat());
    let flist = node.flist();
    node.contd(["-n", "one", "run", "--rm", flist.arg(), "/bin/true"]).ok();
    open_to_all(&node);
    let (first, words) = as_many_as_may(&node, USERS[0]);
    assert_eq!(first.len(), 4, "{words}");
    assert!(words.contains("limits.connections_per_user") && words.contains("hint: "), "{words}");
    let (second, words) = as_many_as_may(&node, USERS[1]);
    assert_eq!(second.len(), 3, "{words}");
    assert!(words.contains("(limits.connections)"), "{words}");
    // All that users may have is taken. Root acts as ever.
    node.contd(["-n", "one", "run", "--rm", flist.arg(), "/bin/true"]).ok();
    node.contd(["ps", "-a"]).ok();
    drop(second);
    let third = eventually("a place to be free", || Follower::begin(&node, USERS[2]).ok());
    drop((first, third));
    node.finish();
}

#[test]
fn a_users_followers_are_counted_apart_from_its_calls_and_a_rule_may_give_more() {
    let more = format!("[[access]]\nuid = {}\nnamespaces = [\"one\"]\nmax_followers = 3\n", USERS[1]);
    let less = format!("[[access]]\nuid = {}\nnamespaces = [\"one\"]\n", USERS[0]);
    let node = Node::with_config(&["[limits]\nfollowers_per_user = 2\n", &less, &more].concat());
    let flist = node.flist();
    node.contd(["-n", "one", "run", "--rm", flist.arg(), "/bin/true"]).ok();
    open_to_all(&node);
    for (uid, most, key) in [(USERS[0], 2, "limits.followers_per_user"), (USERS[1], 3, "limits.followers_per_user")] {
        let (followers, words) = as_many_as_may(&node, uid);
        assert_eq!(followers.len(), most, "{words}");
        assert!(words.contains(key) && words.contains(&format!("uid {uid}")), "{words}");
        let list = as_user(&node, uid).args(["-n", "one", "ps"]).output().expect("run contd ps");
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    }
    node.finish();
}

/// Returns how many threads the daemon has.
fn threads(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/task", node.daemon_pid())).expect("the daemon runs").count()
}

#[test]
fn a_namespaces_hung_roots_as_many_as_may_be_hold_up_no_other_namespace() {
    const MOST: usize = 24;
    let mut node = Node::with_config(&format!("[limits]\nruns_per_namespace = {MOST}\nruns = 26\n"));
    ["rolled back", "left at deletion", "not removed yet", "is in the way"]
        .into_iter()
        .for_each(|text| node.announce(text));
    let flist = node.flist();
    node.contd(["-n", "hung", "run", "-d", "--name", "old", flist.arg(), "/bin/sleep", "1000"]).ok();
    let point = node.root.join("input/dead");
    let dead = DeadFuse::mount(&point);
    let root = format!("dir:{}", point.display());
    let before = threads(&node);
    let run = |number: usize| {
        let mut command = node.command();
        command.args(["-n", "hung", "run", "-d", "--user", "app", "--name", &format!("c{number}"), &root, "/bin/true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run contd run")
    };
    let mut numbers = 0..;
    let mut begin = || run(numbers.next().expect("endless"));
    let mut hung: Vec<Child> = (0..MOST).map(|_| begin()).collect();
    eventually("the threads of the namespace to hang", || (threads(&node) >= before + 16).then_some(()));
    let creating = || {
        let list = node.contd(["-n", "hung", "ps", "-a"]);
        list.ok().lines().filter(|line| line.contains("Creating")).count()
    };
    eventually("all of them to be under way, and one more to be told why not", || {
        // Each has half a minute. On a slow machine that is over before the last one is under way: another takes its place.
        for run in &mut hung {
            if run.try_wait().expect("look at it").is_some() {
                let given_up = std::mem::replace(run, begin()).wait_with_output().expect("wait");
                let words = String::from_utf8_lossy(&given_up.stderr).into_owned();
                assert!(words.contains("not done within 30s"), "{words}");
            }
        }
        let busy = (creating() == MOST).then(|| begin().wait_with_output().expect("wait"))?;
        String::from_utf8_lossy(&busy.stderr).contains("limits.runs_per_namespace").then_some(())
    });
    for _ in 0..3 {
        node.contd(["-n", "well", "run", "--rm", flist.arg(), "/bin/true"]).ok();
    }
    node.contd(["-n", "hung", "rm", "-f", "-t", "0", "old"]).ok();
    // On a slow machine their own deadline may have passed.
    let is_given_up = || node.daemon_log().contains("not done within 30s");
    assert!(creating() == MOST || is_given_up(), "they do not hang any more");
    dead.end();
    for run in &mut hung {
        assert!(!run.wait().expect("wait").success(), "a root that is dead was run");
    }
    node.finish();
}

#[test]
fn a_hang_up_of_a_terminal_costs_nothing_of_ours_anything() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    let pid = node.inspect("stays")["pid"].clone();
    let root = node.root.display().to_string();
    let ours = || -> Vec<i32> {
        let all = command_lines().into_iter();
        let mut pids: Vec<i32> = all.filter(|(_, line)| line.contains(&root)).map(|(pid, _)| pid).collect();
        pids.sort_unstable();
        pids
    };
    let before = ours();
    assert!(before.len() >= 4, "daemon, shim, keeper and server: {before:?}");
    for pid in &before {
        node.signal(*pid, Signal::SIGHUP);
    }
    eventually("the daemon to have heard", || node.daemon_log().contains("configuration read again").then_some(()));
    assert_eq!(ours(), before, "somebody ended");
    assert_eq!(node.inspect("stays")["pid"], pid);
    node.contd(["run", "--rm", flist.arg(), "/bin/true"]).ok();
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}

#[test]
fn a_configuration_is_read_again_at_a_hang_up_and_a_wrong_one_changes_nothing() {
    let mut node = Node::start();
    let flist = node.flist();
    let drop_in = node.root.join("conf.d/test.toml");
    let hang_up = |text: &str, said: &str| {
        let count = node.daemon_log().matches(said).count();
        fs::write(&drop_in, text).expect("write the drop-in");
        node.signal(node.daemon_pid().cast_signed(), Signal::SIGHUP);
        eventually(said, || (node.daemon_log().matches(said).count() > count).then_some(()));
    };
    let run = |name| node.contd(["run", "-d", "--name", name, flist.arg(), "/bin/sleep", "1000"]);
    run("one").ok();
    hang_up("[limits]\ncontainers_per_namespace = 1\n", "configuration read again");
    run("two").fails_with(125, "limits.containers_per_namespace");
    for wrong in ["[limits]\nnonsense = 1\n", "[limits\n", "[limits]\nconnections = 0\n"] {
        hang_up(wrong, "configuration not taken over");
        run("two").fails_with(125, "limits.containers_per_namespace");
    }
    hang_up("cgroup_parent = \"contd-elsewhere\"\n", "wait for the next start");
    run("two").ok();
    for name in ["one", "two"] {
        node.contd(["rm", "-f", "-t", "0", name]).ok();
    }
    node.announce("configuration not taken over");
    node.announce("wait for the next start");
    node.finish();
}
