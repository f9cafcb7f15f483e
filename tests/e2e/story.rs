//! The story of a container: one log, one id, every process.

use std::collections::BTreeSet;

use crate::harness::{Node, eventually};

/// In a line that the daemon has carried over from a shim's log, and from a flist server's.
const OF_SHIM: &str = "process: shim: ";
const OF_SERVER: &str = "server: flistfs: ";

/// The lines of the daemon's log with a text.
fn lines<'log>(log: &'log str, text: &str) -> Vec<&'log str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

/// The ids of requests in a line.
fn requests(line: &str) -> BTreeSet<&str> {
    line.split("request=").skip(1).filter_map(|rest| rest.get(..12)).collect()
}

#[test]
fn one_id_tells_a_containers_story_over_all_processes_and_daemons() {
    let mut node = Node::start();
    for text in ["shim lost", "shim dead, successor started"] {
        node.announce(text);
    }
    let flist = node.flist();
    let share = format!("{}:/data", node.root.join("input").display());
    let script = "while [ ! -e /data/go ]; do sleep 0.05; done; exit 7";
    node.contd(["run", "-d", "--name", "stays", flist.arg(), "/bin/sleep", "1000"]).ok();
    node.contd(["run", "-d", "--name", "told", "-v", &share, flist.arg(), "/bin/sh", "-c", script]).ok();
    let id = node.inspect("told")["id"].as_str().expect("an id").to_owned();
    let bystander = node.inspect("stays")["id"].as_str().expect("an id").to_owned();
    node.kill(node.shim_pid("told"));
    eventually("a successor serves it", || {
        lines(&node.daemon_log(), &id).iter().any(|line| line.contains("took over init")).then_some(())
    });
    node.kill_daemon();
    node.start_daemon();
    std::fs::write(node.root.join("input/go"), "").expect("let it end");
    assert_eq!(node.contd(["wait", "told"]).ok(), "7");
    node.contd(["rm", "told"]).ok();

    let log = node.daemon_log();
    let story = lines(&log, &id);
    let tells = |words: &[&str]| {
        let found = story.iter().filter(|line| words.iter().all(|word| line.contains(word))).count();
        assert!(found > 0, "no line tells {words:?} of\n{}", story.join("\n"));
        found
    };
    tells(&["run{", "event=accepted"]);
    tells(&[OF_SHIM, "created init"]);
    tells(&["run{", "event=started"]);
    tells(&["recover{"]);
    tells(&[OF_SHIM, "took over init"]);
    tells(&[OF_SHIM, "has ended", "code 7"]);
    tells(&["remove{", "event=deleted"]);
    for line in &story {
        assert!(!line.contains(&bystander), "a line is about two containers: {line}");
    }

    // Each request of a shim belongs to an operation of the daemon: to the span of a line, whoever said what follows it.
    let halves = || story.iter().map(|line| line.split_once(OF_SHIM).unwrap_or((line, "")));
    let of_daemon: BTreeSet<&str> = halves().flat_map(|(daemon, _)| requests(daemon)).collect();
    let of_shims: BTreeSet<&str> = halves().flat_map(|(_, shim)| requests(shim)).collect();
    let is_known = !of_shims.is_empty() && of_shims.is_subset(&of_daemon);
    assert!(is_known, "{of_shims:?} are not all in {of_daemon:?}:\n{}", story.join("\n"));

    // Each line of a shim comes once, over all daemons.
    let mut seen = BTreeSet::new();
    for line in story.iter().filter_map(|line| line.split(OF_SHIM).nth(1)) {
        assert!(seen.insert(line), "it came twice: {line}");
    }

    // The flist's server was started by the first run, and says by which.
    let served: Vec<&str> = lines(&log, OF_SERVER);
    let by: BTreeSet<&str> = served.iter().flat_map(|line| requests(line)).collect();
    let first: BTreeSet<&str> = lines(&log, &bystander).iter().flat_map(|line| requests(line)).collect();
    assert!(!by.is_empty() && by.is_subset(&first), "{by:?} is not of {first:?}\n{}", served.join("\n"));
    node.contd(["rm", "-f", "-t", "0", "stays"]).ok();
    node.finish();
}
