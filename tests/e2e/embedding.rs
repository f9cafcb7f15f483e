//! docs/embedding.md and its examples: the code in the text is the examples', and these do what they say and leave nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::census::{cgroups_below, command_lines, mounts};
use crate::harness::node::{Output, binary};
use crate::harness::{Flist, Node, busybox_tree, eventually};

/// The examples, which `cargo test --workspace` builds.
fn example(name: &str) -> PathBuf {
    let built = binary("contd").with_file_name("examples").join(name);
    assert!(built.exists(), "{} is missing: run `cargo build --workspace --examples`", built.display());
    built
}

#[test]
fn the_code_in_the_text_is_that_of_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/embedding.md")).expect("read");
    let mut blocks = 0;
    for part in text.split("<!-- from ").skip(1) {
        let (file, rest) = part.split_once(" -->\n```rust\n").expect("a block of Rust behind the name of its file");
        let (block, _) = rest.split_once("```").expect("the end of the block");
        let example = fs::read_to_string(root.join(file)).expect(file);
        assert!(example.contains(block), "{file} has no such lines:\n{block}");
        blocks += 1;
    }
    assert_eq!(blocks, text.matches("```rust").count(), "a block of Rust that is from no example");
    assert!(blocks >= 4, "{blocks} blocks");
}

#[test]
fn a_program_opens_a_node_of_its_own_and_leaves_nothing() {
    let scratch = tempfile::Builder::new().prefix("contd-t-").tempdir_in("/tmp").expect("make a directory");
    busybox_tree(&scratch.path().join("root"));
    let mut command = Command::new(example("node"));
    command.arg(scratch.path()).arg(binary("contd").parent().expect("a directory"));
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let child = child.expect("the example starts");
    let parent = format!("contd-example-{}", child.id());
    let output = Output::of(&child.wait_with_output().expect("it ends"));
    assert_eq!(output.ok(), "hello from process 1\nit ended with 3");
    assert_eq!(cgroups_below(&parent), [].into(), "cgroups are left");
    assert_eq!(mounts(scratch.path()), [].into(), "mounts are left");
    let place = scratch.path().to_str().expect("utf-8");
    // The holder of the shims waits a moment for another daemon.
    let left = || command_lines().into_iter().any(|(_, line)| line.contains(place));
    eventually("no process to be left", || (!left()).then_some(()));
}

#[test]
fn a_program_runs_a_container_by_the_daemon() {
    let node = Node::start();
    let flist = Flist::busybox(&node.root.join("input"));
    let mut command = Command::new(example("run"));
    command.arg(node.socket()).arg(flist.arg()).args(["/bin/sh", "-c", "echo out; exit 4"]);
    let output = Output::of(&command.output().expect("the example starts"));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(output.ok(), format!("contd {version} answers\nout\nit ended with 4"));
    node.finish();
}
