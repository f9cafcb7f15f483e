//! What the containers execute, made once for all tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::built::built;

/// The programs.
pub(crate) struct Programs {
    /// Where they lie, and the scenes beside them: one file system, so that they can be linked.
    pub(crate) dir: PathBuf,
    /// `attack.rs`.
    pub(crate) attack: PathBuf,
    /// `loader.rs`.
    pub(crate) loader: PathBuf,
    pub(crate) busybox: PathBuf,
    /// `contd-seccomp`.
    pub(crate) compiler: PathBuf,
}

/// Builds them, or returns them.
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
    // A program that is being executed cannot be written.
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
