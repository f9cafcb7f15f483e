//! The flists that the real `rfs` made, run as containers.

use std::fs;
use std::path::Path;

use crate::harness::Node;

/// Copies a fixture into a node and points its route to its own store.
fn fixture(node: &Node, name: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fl").join(name);
    let copy = node.root.join("input").join(format!("{name}.fl"));
    fs::copy(data.join(format!("{name}.fl")), &copy).expect("copy the fixture");
    let store = format!("dir://{}", data.join("store").display());
    let database = rusqlite::Connection::open(&copy).expect("open the copy");
    let changed = database.execute("UPDATE route SET url = ?1", [&store]).expect("rewrite the route");
    assert!(changed > 0, "the fixture has a route");
    copy.display().to_string()
}

#[test]
fn a_container_boots_from_a_flist_that_rfs_made() {
    let node = Node::start();
    let flist = fixture(&node, "busybox");
    let seen = node.contd(["run", "--rm", &flist, "/bin/sh", "-c", "cat /.startup.toml | head -n 1; ls /bin | wc -l"]);
    let lines: Vec<&str> = seen.ok().lines().collect();
    assert!(lines[0].starts_with("[startup"), "{lines:?}");
    assert!(lines[1].parse::<u32>().expect("a count") > 50, "{lines:?}");
    node.finish();
}

#[test]
fn every_file_of_a_fixture_has_its_sum_inside_a_container() {
    let node = Node::start();
    let (flist, program) =
        (fixture(&node, "busybox"), "cd / && find . -xdev -type f ! -path './proc/*' -exec sha256sum {} +");
    let seen = node.contd(["run", "--rm", &flist, "/bin/sh", "-c", program]);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fl/busybox/manifest.jsonl");
    let mut checked = 0;
    for line in fs::read_to_string(manifest).expect("the manifest").lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let (Some(path), Some(sum)) = (entry["path"].as_str(), entry["sha256"].as_str()) else { continue };
        // The mounts that the runtime lays over the root hide what the flist has there.
        if ["/dev/", "/proc/", "/sys/", "/run/"].iter().any(|over| path.starts_with(over)) {
            continue;
        }
        let expected = format!("{sum}  .{path}");
        assert!(seen.stdout.lines().any(|line| line == expected), "{expected} is not in:\n{}", seen.stdout);
        checked += 1;
    }
    assert!(checked > 0, "the manifest names no file");
    node.finish();
}
