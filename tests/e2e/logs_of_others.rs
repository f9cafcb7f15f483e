//! The log directory is the host's: what contd has not made there is left alone, and refused by its path.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::dead_fuse::DeadFuse;
use crate::harness::{Node, eventually};

/// The code of an engine error on `run`.
const ENGINE: i32 = 125;

/// All below a directory but what contd keeps of removed containers, with what tells it from another.
fn inventory(dir: &Path) -> Vec<(PathBuf, u32, u32, u64, Vec<u8>)> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("read a directory").flatten() {
            let there = entry.path().symlink_metadata().expect("look");
            if there.is_dir() {
                dirs.push(entry.path());
            }
            let content = if there.is_file() { fs::read(entry.path()).expect("read") } else { Vec::new() };
            found.push((entry.path(), there.mode(), there.uid(), there.ino(), content));
        }
    }
    found.sort();
    found
}

#[test]
fn what_others_have_in_the_log_directory_is_refused_and_stays() {
    let mut node = Node::start();
    node.announce("run rolled back");
    let flist = node.flist();
    let log = node.root.join("log");
    for dir in ["apt", "nginx", "mysql", "pipes", "links", "dirs"] {
        fs::create_dir(log.join(dir)).expect("make a directory");
    }
    fs::set_permissions(log.join("mysql"), fs::Permissions::from_mode(0o2750)).expect("set the mode");
    std::os::unix::fs::chown(log.join("mysql"), Some(12), Some(34)).expect("set the owner");
    for file in ["apt/term.log", "apt/other.log.1", "nginx/access.log", "nginx/access.log.1", "syslog"] {
        fs::write(log.join(file), format!("precious {file}")).expect("write a file");
    }
    assert!(Command::new("mkfifo").arg(log.join("pipes/fifo.log")).status().expect("mkfifo").success());
    symlink(node.root.join("made-by-root"), log.join("links/link.log")).expect("link");
    symlink(log.join("apt"), log.join("way")).expect("link");
    fs::create_dir(log.join("dirs/dir.log")).expect("make a directory");
    let before = inventory(&log);
    for (namespace, name, place) in [
        ("apt", "term", "apt/term.log"),
        ("apt", "other", "apt/other.log.1"),
        ("nginx", "access", "nginx/access.log"),
        ("pipes", "fifo", "pipes/fifo.log"),
        ("links", "link", "links/link.log"),
        ("dirs", "dir", "dirs/dir.log"),
        ("way", "x", "way"),
        ("syslog", "x", "syslog"),
    ] {
        // Not waited for: a log that is not made in time is refused in other words.
        let refused = node.contd(["-n", namespace, "run", "--name", name, flist.arg(), "/bin/echo", "hi"]);
        refused.fails_with(ENGINE, &log.join(place).display().to_string());
        assert!(refused.stderr.contains("choose another name or namespace"), "{}", refused.stderr);
        let refused = node.contd(["-n", namespace, "create", "--name", name, flist.arg(), "/bin/true"]);
        assert!(refused.code != 0 && refused.stderr.contains(place), "{refused:?}");
        assert_eq!(node.contd(["-n", namespace, "ps", "-aq"]).ok(), "", "something was made");
    }
    node.contd(["-n", "mysql", "run", "--rm", "--name", "x", flist.arg(), "/bin/true"]).ok();
    node.contd(["-n", "mysql", "run", "--name", "bad", "/nowhere.fl", "/bin/true"]).fails_with(ENGINE, "/nowhere.fl");
    eventually("they are gone", || node.contd(["-n", "mysql", "ps", "-aq"]).ok().is_empty().then_some(()));
    assert_eq!(inventory(&log), before);
    assert!(!node.root.join("made-by-root").exists());
    for planted in fs::read_dir(&log).expect("read the logs").flatten() {
        let is_dir = planted.file_type().expect("type").is_dir();
        let path = planted.path();
        if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("remove");
    }
    node.finish();
}

#[test]
fn a_file_of_others_that_takes_the_place_of_a_log_is_not_read_written_or_removed() {
    let mut node = Node::start();
    node.announce("its log");
    let flist = node.flist();
    let log = node.root.join("log/default");
    node.contd(["run", "--name", "c", flist.arg(), "/bin/echo", "mine"]).ok();
    let path = log.join("c.log");
    fs::rename(&path, log.join("c.away")).expect("move the log away");
    fs::write(&path, "precious\n").expect("write another");
    let place = path.display().to_string();
    node.contd(["start", "c"]).fails_with(1, &place);
    node.contd(["logs", "c"]).fails_with(1, &place);
    fs::write(log.join("c.log.1"), "precious, too\n").expect("write another");
    node.contd(["rm", "c"]).ok();
    assert_eq!(fs::read_to_string(&path).expect("it is there"), "precious\n");
    assert_eq!(fs::read_to_string(log.join("c.log.1")).expect("it is there"), "precious, too\n");
    // The directory is ours, and goes with what is in it.
    for file in [&path, &log.join("c.log.1"), &log.join("c.away")] {
        fs::remove_file(file).expect("remove");
    }
    node.contd(["run", "--rm", "--name", "c", flist.arg(), "/bin/true"]).ok();
    eventually("our own directory to go", || (!log.exists()).then_some(()));
    node.finish();
}

#[test]
fn logs_from_before_there_were_marks_stay_those_of_their_records() {
    let mut node = Node::start();
    let flist = node.flist();
    node.contd(["run", "--name", "c", flist.arg(), "/bin/echo", "old"]).ok();
    node.stop_daemon();
    // As a version without marks left it.
    let path = node.root.join("log/default/c.log");
    let text = fs::read(&path).expect("read the log");
    fs::remove_file(&path).expect("remove it");
    fs::write(&path, text).expect("write it without a mark");
    let id_dir = fs::read_dir(node.root.join("state/default")).expect("records").flatten().next().expect("a record");
    let record = id_dir.path().join("record.json");
    let text = fs::read_to_string(&record).expect("read the record");
    assert!(text.contains("\"has_log_marks\":true"), "{text}");
    fs::write(&record, text.replace("\"has_log_marks\":true,", "")).expect("write the record");
    node.start_daemon();
    assert_eq!(node.contd(["logs", "c"]).ok(), "old");
    node.contd(["start", "c"]).ok();
    node.contd(["wait", "c"]).ok();
    assert_eq!(node.contd(["logs", "c"]).ok(), "old\nold");
    node.contd(["rm", "c"]).ok();
    assert!(!path.exists(), "its log is left");
    node.finish();
}

#[test]
fn a_log_directory_that_hangs_holds_up_no_other_namespace() {
    let mut node = Node::start();
    for text in
        ["run rolled back", "make the log", "a call that hangs is in the way", "not removed yet", "left at deletion"]
    {
        node.announce(text);
    }
    let flist = node.flist();
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sh", "-c", "echo said; sleep 1000"]).ok();
    let dead = DeadFuse::mount(&node.root.join("log/hung"));
    let mut stuck: Vec<_> = (0..24)
        .map(|number| {
            let name = format!("c{number}");
            let mut run = node.command();
            run.args(["-n", "hung", "run", "-d", "--name", &name, flist.arg(), "/bin/true"]);
            run.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
            run.stderr(std::process::Stdio::null()).spawn().expect("start a run")
        })
        .collect();
    eventually("all of them to be on their way", || {
        (node.contd(["-n", "hung", "ps", "-aq"]).ok().lines().count() == 24).then_some(())
    });
    for round in 0..3 {
        let name = format!("other{round}");
        node.contd(["run", "--rm", "--name", &name, flist.arg(), "/bin/echo", "hi"]).ok();
        assert_eq!(node.contd(["logs", "stays"]).ok(), "said");
        // It did not come in its turn behind them: they hang still.
        let ended = stuck.iter_mut().filter_map(|run| run.try_wait().expect("look at it")).count();
        assert_eq!(ended, 0, "round {round}");
    }
    dead.end();
    for mut run in stuck {
        run.wait().expect("it ends");
    }
    // One that was tried again found the directory below.
    for id in node.contd(["-n", "hung", "ps", "-aq", "--no-trunc"]).ok().lines() {
        node.contd(["-n", "hung", "rm", "-f", "-t", "0", id]);
    }
    eventually("what was half made is gone", || node.contd(["-n", "hung", "ps", "-aq"]).ok().is_empty().then_some(()));
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    fs::remove_dir(node.root.join("log/hung")).expect("remove the mount point");
    node.finish();
}
