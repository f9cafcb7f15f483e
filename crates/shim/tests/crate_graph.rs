//! The crates that are linked into every node's most numerous process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

#[test]
fn the_shim_links_no_async_runtime_and_no_thread_pool() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "contd-shim", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let linked: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(linked.contains(&"contd-protocol"), "the tree was not read: {tree}");
    for banned in ["actix", "actix-rt", "tokio", "tracing", "rayon", "futures-util", "clap", "rusqlite"] {
        assert!(!linked.contains(&banned), "{banned} is linked");
    }
}
