//! The programs that the containers execute, built once for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use contd_test_harness::built;

/// The paths of the programs.
pub(crate) struct Programs {
    /// The directory of the programs and the scenes: one file system, so that programs can be linked.
    pub(crate) dir: PathBuf,
    /// The program of `attack.rs`.
    pub(crate) attack: PathBuf,
    /// The program of `loader.rs`.
    pub(crate) loader: PathBuf,
    pub(crate) busybox: PathBuf,
    /// The program `contd-seccomp`.
    pub(crate) compiler: PathBuf,
}

/// Builds the programs at the first call, and returns their paths.
pub(crate) fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "this makes containers and wants root");
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let busybox = dir.join("escape-busybox");
        let copied = busybox.with_extension("new");
        fs::copy("/usr/bin/busybox", &copied).unwrap();
        fs::rename(&copied, &busybox).unwrap();
        let whole = ["-C", "target-feature=+crt-static"];
        let bare = [
            "-C",
            "target-feature=+crt-static",
            "-C",
            "panic=abort",
            "-C",
            "opt-level=1",
            "-C",
            "relocation-model=static",
            "-C",
            "link-args=-nostartfiles -nostdlib -static",
        ];
        let attack = compile(&dir, "attack", &whole);
        let loader = compile(&dir, "loader", &bare);
        Programs { attack, loader, busybox, compiler: built("contd-seccomp"), dir }
    })
}

fn compile(dir: &Path, name: &str, options: &[&str]) -> PathBuf {
    let source = format!("{}/tests/escape/{name}.rs", env!("CARGO_MANIFEST_DIR"));
    let program = dir.join(format!("escape-{name}"));
    // Write to a new file: one that is being executed cannot be written.
    let new = program.with_extension("new");
    let status = Command::new("rustc")
        .args(["--edition", "2024", "-A", "warnings"])
        .args(options)
        .arg("-o")
        .args([new.as_os_str(), source.as_ref()])
        .status();
    assert!(status.unwrap().success(), "compile {name}");
    fs::rename(new, &program).unwrap();
    program
}
