//! The example of this crate runs, and says what it is there to say.
#![expect(clippy::expect_used, reason = "a test ends loudly")]

use std::path::PathBuf;
use std::process::Command;

/// The example, which `cargo test` builds beside the tests unless one of these is named.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("the directory of the build").join("examples").join(name);
    assert!(built.exists(), "{} is missing: run `cargo build --workspace --examples`", built.display());
    built
}

#[test]
fn a_supervisor_on_the_fakes_runs_a_container_without_root() {
    let output = Command::new(example("fakes")).output().expect("the example starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "web is running\nit ended with 143\ncontainers left: 0\n");
}
