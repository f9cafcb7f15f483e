//! Looking at containers and choosing among them: `ps`, `logs`, `inspect`, `events`, `wait` and `prune`, and what a shell completes.

use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::harness::Node;
use crate::harness::node::binary;

/// Makes `web`, which goes on, and `job` and `late`, which have ended with 3 and 0. Returns when `job` had ended, and when both had:
/// output and events have times of their own, a little later than the exit's.
fn three(node: &Node) -> [String; 2] {
    let flist = node.flist();
    let run = |flags: &[&str], script: &str| {
        let args = [&["run", "-d"][..], flags, &[flist.arg(), "/bin/sh", "-c", script]].concat();
        node.contd(args).ok();
    };
    run(&["--name", "web", "--label", "tier=front", "--tag", "blue"], "echo web says; exec sleep 1000");
    run(&["--name", "job", "--label", "tier=back"], "echo job says; exit 3");
    node.contd(["wait", "job"]).ok();
    let between = now();
    run(&["--name", "late"], "echo late says");
    node.contd(["wait", "late"]).ok();
    [between, now()]
}

/// Now, in seconds since 1970.
fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

#[test]
fn containers_are_chosen_by_what_they_are_and_pruned_when_they_have_ended() {
    let node = Node::start();
    three(&node);
    let names = |args: &[&str]| {
        let args = [&["ps", "--format", "json"][..], args].concat();
        let output = node.contd(args);
        let lines = output.ok().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines.map(|line| line["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    for (args, expected) in [
        (&["-a"][..], &["late", "job", "web"][..]),
        (&["-n", "2"], &["late", "job"]),
        (&["-l"], &["late"]),
        (&["-f", "status=exited"], &["late", "job"]),
        (&["-f", "exited=3"], &["job"]),
        (&["-f", "tag=blue"], &["web"]),
        (&["-a", "-f", "label=tier"], &["job", "web"]),
        (&["-a", "-f", "before=late", "-f", "name=^j"], &["job"]),
    ] {
        assert_eq!(names(args), expected, "{args:?}");
    }
    let table = node.contd(["ps"]);
    assert!(table.ok().contains("/bin/sh -c 'echo web says; ex…"), "{table:?}");
    let removed = node.contd(["prune", "--force", "--filter", "label=tier=back"]);
    assert_eq!(removed.ok().lines().count(), 1);
    assert_eq!(names(&["-a"]), ["late", "web"]);
    node.contd(["prune", "-f"]).ok();
    assert_eq!(names(&["-a"]), ["web"], "what runs stays");
    node.contd(["rm", "-f", "-t", "0", "web"]).ok();
    node.finish();
}

#[test]
fn output_and_events_are_shown_of_several_and_for_a_while() {
    let node = Node::start();
    let [between, end] = three(&node);
    assert_eq!(node.contd(["logs", "web", "job"]).ok(), "web | web says\njob | job says");
    // Follows until the last of them has ended; what runs would go on.
    assert_eq!(node.contd(["logs", "-f", "job", "late"]).ok().lines().count(), 2);
    node.contd(["logs", "job", "nobody"]).fails_with(1, "nobody");
    assert_eq!(node.contd(["logs", "--since", &between, "job"]).ok(), "");
    assert_eq!(
        node.contd(["logs", "-t", "--until", &between, "-n", "1", "job"]).ok().split_once(' ').expect("a time").1,
        "job says"
    );
    assert_eq!(node.contd(["logs", "--since", &between, "late"]).ok(), "late says");

    // Events of the past: the stream ends by itself once all of it was given.
    let seen = |args: &[&str]| {
        let args = [&["events", "--until", &end, "--format", "json"][..], args].concat();
        let output = node.contd(args);
        let lines = output.ok().lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        lines
            .map(|line| {
                format!("{} {}", line["name"].as_str().expect("a name"), line["event"].as_str().expect("a word"))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(&["-f", "event=started"]), ["web started", "job started", "late started"]);
    assert_eq!(
        seen(&["-f", "event=started", "-f", "event=exited", "-f", "container=job"]),
        ["job started", "job exited"]
    );
    assert_eq!(seen(&["--since", &between, "-f", "event=started"]), ["late started"]);

    assert_eq!(
        node.contd(["inspect", "-f", "name,status,exit.code,labels.tier", "web", "job"]).ok(),
        "web\trunning\tnull\tfront\njob\tstopped\t3\tback"
    );
    node.contd(["inspect", "-f", "nothing", "web"]).fails_with(1, "status");
    node.contd(["rm", "-f", "-t", "0", "web", "job", "late"]).ok();
    node.finish();
}

#[test]
fn a_state_is_waited_for_and_one_that_is_there_is_no_wait() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["create", "--name", "web", flist.arg(), "/bin/sleep", "1000"]).ok();
    assert_eq!(node.contd(["wait", "--condition", "created", "web"]).ok(), "created");
    for (condition, verb) in [("running", "start"), ("paused", "pause"), ("running", "unpause"), ("exited", "kill")] {
        let mut command = node.command();
        command.args(["wait", "--condition", condition, "--condition", "failed", "web"]).stdout(Stdio::piped());
        let waiting = command.spawn().expect("run contd");
        node.contd([verb, "web"]).ok();
        let output = waiting.wait_with_output().expect("it ends");
        let expected = if condition == "exited" { "137" } else { condition };
        assert_eq!((output.status.success(), String::from_utf8_lossy(&output.stdout).trim_end()), (true, expected));
    }
    node.contd(["rm", "web"]).ok();
    node.contd(["wait", "--condition", "running", "web"]).fails_with(1, "web");
    node.finish();
}

#[test]
fn a_shell_completes_verbs_and_the_names_of_containers() {
    let node = Node::start();
    let flist = node.flist();
    node.contd(["create", "--name", "frontend", flist.arg(), "/bin/true"]).ok();
    node.contd(["-n", "blue", "create", "--name", "backend", flist.arg(), "/bin/true"]).ok();
    let programs = binary("contd").parent().expect("a directory").display().to_string();
    // The script of `contd completion`, in a real shell, as a TAB calls it.
    let complete = |address: &str, words: &str| {
        let script = format!(
            "source <(contd completion bash); COMP_WORDS=(contd {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _clap_complete_contd contd \"${{COMP_WORDS[COMP_CWORD]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).env("CONTD_ADDRESS", address).env("PATH", format!("{programs}:/usr/bin:/bin"));
        let output = shell.output().expect("run bash");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().filter(|word| !word.is_empty() && !word.starts_with('-')).map(str::to_owned).collect::<Vec<_>>()
    };
    let socket = node.socket().display().to_string();
    assert_eq!(complete(&socket, "insp"), ["inspect"]);
    assert_eq!(complete(&socket, "rm ''"), ["frontend"]);
    assert_eq!(complete(&socket, "logs fr"), ["frontend"]);
    assert_eq!(complete(&socket, "-n blue exec b"), ["backend"]);
    assert_eq!(complete(&socket, "rm --namespace blue ''"), ["backend"]);
    // Without a daemon there is nothing to say, and nothing is said.
    assert_eq!(complete("/nowhere", "rm ''"), Vec::<String>::new());
    node.contd(["rm", "frontend"]).ok();
    node.contd(["-n", "blue", "rm", "backend"]).ok();
    node.finish();
}
