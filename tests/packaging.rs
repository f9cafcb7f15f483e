//! `make install` and `make uninstall`: what is put where, that it is all taken away again, and that nothing else is touched.
#![expect(clippy::expect_used, reason = "tests end loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A place to install to, without root's rights over the machine.
struct Place {
    dest: tempfile::TempDir,
    prefix: &'static str,
}

impl Place {
    fn new(prefix: &'static str) -> Self {
        Self { dest: tempfile::tempdir().expect("make a directory"), prefix }
    }

    fn script(&self, argument: &Path) -> Output {
        let mut script = Command::new(Path::new(ROOT).join("contrib/install.sh"));
        script.arg(argument).env("DESTDIR", self.dest.path()).env("PREFIX", self.prefix);
        // The tools that it needs are there: no cargo, no compiler, no network is asked for.
        let output = script.env("PATH", "/usr/bin:/bin").output().expect("run the script");
        assert!(output.status.success(), "{output:?}");
        output
    }

    fn install(&self) {
        self.script(Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory"));
    }

    fn uninstall(&self) {
        self.script(Path::new("--uninstall"));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dest.path().join(path)
    }

    /// Everything that is there, directories too.
    fn all(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut dirs = vec![self.dest.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).expect("list").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path.clone());
                }
                found.insert(path.strip_prefix(self.dest.path()).expect("below").display().to_string());
            }
        }
        found
    }
}

#[test]
fn all_that_a_node_needs_is_installed_and_nothing_of_the_tests() {
    let place = Place::new("/usr/local");
    place.install();
    let all = place.all();
    for path in [
        "bin/contd",
        "bin/contd-shim",
        "bin/contd-flistfs",
        "bin/contd-seccomp",
        "lib/systemd/system/contd.service",
        "lib/systemd/system/contd.socket",
        "lib/systemd/system/contd-containers.service",
        "share/bash-completion/completions/contd",
        "share/zsh/site-functions/_contd",
        "share/fish/vendor_completions.d/contd.fish",
        "share/man/man1/contd.1",
        "share/man/man1/contd-run.1",
        "share/man/man1/contd-flist-pack.1",
        "share/doc/contd/examples/config.toml",
        "share/doc/contd/examples/zinit/contd.yaml",
        "share/doc/contd/examples/zinit/contd_shutdown.yaml",
        "share/doc/contd/LICENSE",
        "share/doc/contd/README.md",
        "share/doc/contd/CHANGELOG.md",
        "share/doc/contd/docs/configuration.md",
    ] {
        assert!(all.contains(&format!("usr/local/{path}")), "{path} is missing in {all:#?}");
    }
    let of_tests = ["fake", "contd-launch", "floor", ".new", "tests/"];
    let strange: Vec<_> = all.iter().filter(|path| of_tests.iter().any(|part| path.contains(part))).collect();
    assert!(strange.is_empty(), "{strange:?}");
    // The files that documents point to are there as well.
    let doc = place.at("usr/local/share/doc/contd");
    let readme = fs::read_to_string(doc.join("README.md")).expect("read");
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(link.contains("://") || doc.join(link).exists(), "README.md points to {link}, which is not installed");
    }
    let page = fs::read_to_string(place.at("usr/local/share/man/man1/contd-run.1")).expect("read");
    assert!(page.contains(".TH contd-run 1") && page.contains("restart"), "{page}");
    let example = fs::read_to_string(doc.join("examples/config.toml")).expect("read");
    assert!(example.starts_with("version = 1\n") && example.contains("[limits]"), "{example}");
    example.parse::<toml::Table>().expect("the example is TOML");
    // The daemon takes it: it is the reference with every default.
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_contd"));
    doctor.args(["doctor", "--format", "json", "--config"]).arg(doc.join("examples/config.toml"));
    let output = doctor.output().expect("run doctor");
    assert_ne!(output.status.code(), Some(125), "it could not look: {output:?}");
}

#[test]
fn uninstall_takes_all_of_it_away_and_nothing_else() {
    let place = Place::new("/usr/local");
    let foreign = ["usr/local/bin/other", "usr/local/share/man/man1/other.1", "usr/local/share/doc/contd/notes.txt"];
    fs::create_dir_all(place.at("usr/local/bin")).expect("make");
    // Empty, and not ours.
    fs::create_dir_all(place.at("usr/local/share/zsh/site-functions")).expect("make");
    fs::write(place.at(foreign[0]), "other").expect("write");
    let before = place.all();
    place.install();
    // A second time, as for an upgrade; an earlier version had one file more.
    let manifest = place.at("usr/local/share/doc/contd/install_manifest.txt");
    let known = fs::read_to_string(&manifest).expect("read the manifest");
    fs::write(place.at("usr/local/bin/contd-earlier"), "").expect("write");
    fs::write(&manifest, format!("{known}file usr/local/bin/contd-earlier\n")).expect("write");
    place.install();
    assert!(!place.at("usr/local/bin/contd-earlier").exists(), "what is no longer part is removed");
    place.uninstall();
    assert_eq!(place.all(), before);
    place.install();
    for path in &foreign[1..] {
        fs::write(place.at(path), "other").expect("write");
    }
    place.uninstall();
    for path in foreign {
        assert_eq!(fs::read_to_string(place.at(path)).expect(path), "other");
    }
    place.uninstall();
    let empty = Place::new("/usr/local");
    empty.install();
    empty.uninstall();
    assert_eq!(empty.all(), BTreeSet::new());
}

#[test]
fn another_prefix_is_written_into_the_units() {
    let place = Place::new("/opt/contd");
    place.install();
    assert!(place.all().iter().all(|path| path.starts_with("opt")), "{:?}", place.all());
    for file in ["lib/systemd/system/contd.service", "share/doc/contd/examples/zinit/contd_shutdown.yaml"] {
        let text = fs::read_to_string(place.at(&format!("opt/contd/{file}"))).expect("read");
        assert!(text.contains("/opt/contd/bin/contd") && !text.contains("/usr/local"), "{text}");
    }
}

#[test]
fn the_package_has_the_version_of_the_programs_and_its_configuration_changes_nothing() {
    let debian = Path::new(ROOT).join("contrib/debian");
    let changelog = fs::read_to_string(debian.join("changelog")).expect("read");
    // A version that is not final yet is below it: 1.0.0-rc.1 is 1.0.0~rc.1.
    let wanted = format!("contd ({}-", env!("CARGO_PKG_VERSION").replace('-', "~"));
    assert!(changelog.starts_with(&wanted), "contrib/debian/changelog does not begin with {wanted:?}");
    let config = fs::read_to_string(debian.join("config.toml")).expect("read");
    let table: toml::Table = config.parse().expect("it is TOML");
    assert_eq!(table, [("version".to_owned(), 1.into())].into_iter().collect());
}

#[test]
fn the_readme_says_which_rust() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("read");
    let wanted = format!("Rust {} or newer", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.contains(&wanted), "README.md does not say {wanted:?}");
}

#[test]
fn make_does_both_by_the_script_and_passes_its_directories_on() {
    for (target, argument) in [("install", "target/release"), ("uninstall", "--uninstall")] {
        let mut make = Command::new("make");
        make.args(["--dry-run", target, "DESTDIR=/d", "PREFIX=/p"]).current_dir(ROOT);
        let output = make.output().expect("run make");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = format!("DESTDIR=\"/d\" PREFIX=\"/p\" contrib/install.sh {argument}");
        assert!(output.status.success() && said.contains(&wanted), "{output:?}");
    }
}

#[test]
fn make_packs_what_it_has_built_for_the_machine_that_is_named() {
    let mut make = Command::new("make");
    make.args(["--dry-run", "deb", "TARGET=aarch64-unknown-linux-gnu"]).current_dir(ROOT);
    let output = make.output().expect("run make");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for wanted in
        ["cargo build --release --locked --target aarch64-", "contrib/deb.sh target/aarch64-unknown-linux-gnu/release"]
    {
        assert!(output.status.success() && said.contains(wanted), "{wanted} is not in {output:?}");
    }
}
