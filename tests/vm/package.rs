//! The Debian package: installed, upgraded under a running container, removed, installed again, and purged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use contd_test_harness::node::Output;
use contd_test_harness::{Flist, eventually, said};

use crate::systemd::{machine, main_pid, nothing_is_left, systemctl};
use crate::{INSTALLED, Site, contd};

/// Where a package, contd and its containers leave files.
const PLACES: [&str; 7] = ["/etc", "/usr", "/var", "/opt", "/srv", "/root", "/run/contd"];

/// Where a container leaves what is the user's: all of the logs, and a directory for each container that was not removed.
const LOGS: &str = "/var/log/default";
const RECORDS: &str = "/var/lib/contd/default";

const CONFIG: &str = "/etc/contd/config.toml";

/// Says whether it has run before, ends in order when it is told to, and leaves a file in its layer.
const KEEP: &str =
    "[ ! -e /kept ] || echo again; touch /kept; trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().expect("run it");
    Output::of(&output).ok().to_owned()
}

/// The package of the programs that are tested, which `suite vm` has made.
#[track_caller]
fn package() -> String {
    let built = Path::new(env!("CARGO_BIN_EXE_contd")).parent().expect("a directory");
    let files = fs::read_dir(built.join("deb")).expect("list the packages").flatten();
    let found: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| path.extension() == Some("deb".as_ref())).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].display().to_string()
}

/// The same package, as the next version.
#[track_caller]
fn next_version(package: &str, dir: &Path) -> String {
    let (tree, made) = (dir.join("next").display().to_string(), dir.join("next.deb").display().to_string());
    let version = run("dpkg-deb", &["--field", package, "Version"]);
    run("dpkg-deb", &["--raw-extract", package, &tree]);
    let path = Path::new(&tree).join("DEBIAN/control");
    let control = fs::read_to_string(&path).expect("read the control file");
    let next = control.replace(&format!("\nVersion: {version}\n"), &format!("\nVersion: {version}+1\n"));
    assert_ne!(next, control);
    fs::write(path, next).expect("write the control file");
    run("dpkg-deb", &["-Znone", "--root-owner-group", "--build", &tree, &made]);
    made
}

/// Takes away what tests before this one have installed and left.
#[track_caller]
fn clear() {
    if Path::new(INSTALLED).exists() {
        systemctl(&["stop", "contd.service", "contd.socket"]);
        run(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/install.sh"), &["--uninstall"]);
        systemctl(&["daemon-reload"]);
    }
    for dir in ["/var/lib/contd", "/var/cache/contd", "/run/contd", LOGS] {
        if Path::new(dir).exists() {
            fs::remove_dir_all(dir).expect("remove what is left");
        }
    }
}

/// All files and directories of [`PLACES`].
fn files() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).filter(|dir| dir.exists()).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
            found.insert(entry.path());
        }
        found.insert(dir);
    }
    found
}

/// The lines of the container that is kept.
fn lines() -> Vec<String> {
    said(&fs::read_to_string(Path::new(LOGS).join("keeps.log")).unwrap_or_default())
}

fn kept() -> serde_json::Value {
    serde_json::from_str(&contd(&["inspect", "keeps"])).expect("inspect prints JSON")
}

/// Upgrades to the next version while a container counts, which must not notice.
#[track_caller]
fn upgrade(site: &Site, package: &str) {
    let next = next_version(package, site.scratch.path());
    let mine = "version = 1 # mine\n";
    fs::write(CONFIG, mine).expect("edit the configuration");
    let socket = || systemctl(&["show", "-P", "InvocationID", "contd.socket"]);
    let before = (main_pid(), socket());
    run("dpkg", &["--install", &next]);
    let daemon = main_pid();
    assert!(daemon != 0 && daemon != before.0, "the daemon was not restarted: {daemon}");
    assert_eq!(socket(), before.1, "the socket was closed, callers were refused");
    assert_eq!(fs::read_to_string(CONFIG).expect("read the configuration"), mine);
    site.goes_on();
    site.end_container();
}

#[test]
fn no_container_notices_an_upgrade_and_a_purge_leaves_only_what_is_the_users() {
    let machine = machine();
    clear();
    let before = files();
    let package = package();
    run("dpkg", &["--install", &package]);
    assert_eq!(systemctl(&["is-enabled", "contd.service", "contd.socket"]), "enabled\nenabled");
    let site = Site::run(machine);
    upgrade(&site, &package);

    // Removal ends containers in order, and leaves nothing that runs.
    let flist = Flist::another(site.scratch.path(), "keeps");
    contd(&["run", "-d", "--name", "keeps", "--restart", "always", flist.arg(), "/bin/sh", "-c", KEEP]);
    eventually("it to be ready", || (lines() == ["ready"]).then_some(()));
    let record = Path::new(RECORDS).join(kept()["id"].as_str().expect("an id"));
    run("dpkg", &["--remove", "contd"]);
    assert_eq!(lines(), ["ready", "bye"]);
    nothing_is_left("/usr/bin/contd");
    assert!(!Path::new("/usr/bin/contd").exists() && Path::new(CONFIG).exists());

    // Record, layer and log are there: it goes on by its policy.
    run("dpkg", &["--install", &package]);
    eventually("it to run again", || (lines() == ["ready", "bye", "again", "ready"]).then_some(()));

    run("dpkg", &["--purge", "contd"]);
    assert_eq!(lines()[4..], ["bye"]);
    nothing_is_left("/usr/bin/contd");
    let left: BTreeSet<PathBuf> = files().difference(&before).cloned().collect();
    let is_the_users =
        |path: &PathBuf| [&record, Path::new(LOGS)].iter().any(|kept| path.starts_with(kept) || kept.starts_with(path));
    let strange: Vec<_> = left.iter().filter(|path| !is_the_users(path)).collect();
    assert!(strange.is_empty(), "left by the package: {strange:#?}");
    for name in ["record.json", "kept"] {
        let is_there = left.iter().any(|path| path.starts_with(&record) && path.ends_with(name));
        assert!(is_there, "{name} is the user's, and is gone: {left:#?}");
    }
    // The container that the next test would find.
    fs::remove_dir_all("/var/lib/contd").expect("remove it");
    drop(site);
}
