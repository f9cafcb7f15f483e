//! House rules that a machine can check: which crate may know which, and that every crate inherits the one lint table.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests end loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every edge between our crates. A new one is a decision: argue it in the commit that adds it here.
/// Floors, from below: failpoints, then words and files (types, durable), then identity and messages (lease, protocol), then one concern
/// each, then the actors, then a whole node, then the process.
const ALLOWED: [(&str, &[&str]); 33] = [
    ("contd-types", &[]),
    ("contd-access", &["contd-types"]),
    ("contd-mountinfo", &[]),
    ("contd-cgroup", &["contd-descriptors", "contd-mountinfo", "contd-types"]),
    ("contd-meters", &["contd-cgroup", "contd-types"]),
    ("contd-seccomp", &["contd-types"]),
    ("contd-launch", &["contd-cgroup", "contd-descriptors", "contd-process", "contd-types"]),
    ("contd-failpoint", &[]),
    ("contd-test-harness", &["contd-flist"]),
    ("contd-durable", &["contd-failpoint"]),
    ("contd-descriptors", &[]),
    ("contd-per-key", &[]),
    ("contd-process", &[]),
    ("contd-service-manager", &["contd-descriptors"]),
    ("contd-session", &["contd-descriptors", "contd-protocol", "contd-types"]),
    ("contd-session-tokio", &["contd-descriptors", "contd-protocol", "contd-types"]),
    ("contd-lease", &["contd-descriptors", "contd-durable"]),
    ("contd-protocol", &["contd-types"]),
    ("contd-logs", &["contd-failpoint", "contd-types"]),
    ("contd-flist", &["contd-types"]),
    ("contd-flist-legacy", &["contd-flist"]),
    ("contd-image", &["contd-flist"]),
    ("contd-store", &["contd-durable", "contd-types"]),
    ("contd-bundle", &["contd-durable", "contd-types"]),
    ("contd-client", &["contd-lease", "contd-protocol", "contd-session-tokio", "contd-types"]),
    (
        "contd-flistfs",
        &[
            "contd-durable",
            "contd-flist",
            "contd-flist-legacy",
            "contd-lease",
            "contd-mountinfo",
            "contd-process",
            "contd-protocol",
            "contd-session",
            "contd-types",
        ],
    ),
    (
        "contd-rootfs",
        &[
            "contd-access",
            "contd-cgroup",
            "contd-durable",
            "contd-flist",
            "contd-lease",
            "contd-mountinfo",
            "contd-per-key",
            "contd-protocol",
            "contd-session",
            "contd-types",
        ],
    ),
    (
        "contd-shim",
        &[
            "contd-cgroup",
            "contd-descriptors",
            "contd-durable",
            "contd-failpoint",
            "contd-launch",
            "contd-lease",
            "contd-logs",
            "contd-process",
            "contd-protocol",
            "contd-session",
            "contd-types",
        ],
    ),
    (
        "contd-shim-client",
        &[
            "contd-cgroup",
            "contd-descriptors",
            "contd-durable",
            "contd-failpoint",
            "contd-lease",
            "contd-per-key",
            "contd-protocol",
            "contd-session-tokio",
            "contd-types",
        ],
    ),
    (
        "contd-actors",
        &[
            "contd-bundle",
            "contd-failpoint",
            "contd-logs",
            "contd-meters",
            "contd-per-key",
            "contd-protocol",
            "contd-rootfs",
            "contd-shim-client",
            "contd-store",
            "contd-types",
        ],
    ),
    (
        "contd-node",
        &[
            "contd-access",
            "contd-actors",
            "contd-bundle",
            "contd-descriptors",
            "contd-durable",
            "contd-flist",
            "contd-lease",
            "contd-meters",
            "contd-protocol",
            "contd-rootfs",
            "contd-service-manager",
            "contd-shim-client",
            "contd-store",
            "contd-types",
        ],
    ),
    (
        "contd-doctor",
        &[
            "contd-actors",
            "contd-bundle",
            "contd-cgroup",
            "contd-client",
            "contd-durable",
            "contd-lease",
            "contd-logs",
            "contd-node",
            "contd-protocol",
            "contd-rootfs",
            "contd-shim-client",
            "contd-store",
            "contd-types",
        ],
    ),
    (
        "contd",
        &[
            "contd-access",
            "contd-actors",
            "contd-client",
            "contd-descriptors",
            "contd-doctor",
            "contd-failpoint",
            "contd-flist",
            "contd-flist-legacy",
            "contd-image",
            "contd-lease",
            "contd-node",
            "contd-protocol",
            "contd-rootfs",
            "contd-service-manager",
            "contd-session",
            "contd-session-tokio",
            "contd-shim-client",
            "contd-types",
        ],
    ),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The packages of the workspace with their normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let packages = metadata()["packages"].as_array().expect("packages").clone();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|dependency| dependency["kind"].is_null()).map(|dependency| text(&dependency["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn crates_depend_only_on_what_lies_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let found = dependencies();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, allowed.keys().copied().collect::<Vec<_>>(), "the list of crates");
    for (package, dependencies) in &found {
        let ours = dependencies.iter().filter(|name| name.starts_with("contd"));
        for dependency in ours {
            let may = allowed[package.as_str()].contains(&dependency.as_str());
            assert!(may, "{package} must not depend on {dependency}: see docs/decisions/0001");
        }
    }
}

#[test]
fn only_the_actors_and_what_starts_them_know_actix() {
    for (package, dependencies) in dependencies() {
        let knows = dependencies.contains("actix") || dependencies.contains("actix-rt");
        assert!(
            !knows || ["contd", "contd-actors", "contd-node"].contains(&package.as_str()),
            "{package} depends on actix"
        );
    }
}

/// The whole tree below a package, as cargo resolves it.
fn tree(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

#[test]
fn the_shim_and_the_flist_server_link_no_async_runtime() {
    for package in ["contd-shim", "contd-flistfs"] {
        for line in tree(package).lines() {
            let name = line.split(' ').next().unwrap_or_default();
            assert!(!["actix", "actix-rt", "tokio", "mio"].contains(&name), "{package} links {name}");
        }
    }
}

#[test]
fn the_flist_server_links_nothing_that_makes_flists_of_images() {
    let tree = tree("contd-flistfs");
    for name in ["contd-image", "ruzstd"] {
        let links = tree.lines().any(|line| line.split(' ').next() == Some(name));
        assert!(!links, "contd-flistfs links {name}: docs/decisions/0026");
    }
}

/// The rooms of the program: who of them may name whom. `main` puts them together.
const ROOMS: [(&str, &[&str]); 3] = [("cli", &["config"]), ("daemon", &["config"]), ("config", &[])];

#[test]
fn the_rooms_of_the_program_do_not_know_each_other() {
    fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }
    for (room, may_name) in ROOMS {
        let mut sources = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut sources);
        assert!(!sources.is_empty(), "{room}");
        for source in sources {
            let text = std::fs::read_to_string(&source).expect("read");
            for (other, _) in ROOMS.iter().filter(|(other, _)| *other != room && !may_name.contains(other)) {
                assert!(!text.contains(&format!("crate::{other}")), "{} names {other}", source.display());
            }
        }
    }
}

#[test]
fn every_crate_inherits_the_lint_table() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let table: toml::Table = std::fs::read_to_string(manifest).expect("read").parse().expect("TOML");
        let inherits = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{manifest}");
    }
}

#[test]
fn every_library_without_kernel_calls_forbids_unsafe_code() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let source = manifest.with_file_name("src");
        for root in ["lib.rs", "main.rs"].map(|name| source.join(name)) {
            let Ok(text) = std::fs::read_to_string(&root) else { continue };
            let has_rule = text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]");
            assert!(has_rule, "{} neither forbids nor denies unsafe code", root.display());
        }
    }
}

/// Tells whether a source has an example that rustdoc compiles.
fn has_example(source: &str) -> bool {
    let lines = source.lines().filter_map(|line| line.trim().strip_prefix("//")?.get(1..));
    // Every second one closes a block.
    let mut fences = lines.filter_map(|line| line.trim().strip_prefix("```")).step_by(2);
    fences.any(|language| !["text", "toml", "yaml", "ignore"].contains(&language))
}

/// Examples in comments are files below `examples/`, which the one build compiles. rustdoc would compile every library once more
/// to find them, and all that it depends on, with other features.
#[test]
fn examples_in_comments_are_files_that_the_build_compiles() {
    assert!(has_example("//! ```text\n//! a\n//! ```\n/// ```\n/// f();\n/// ```\n"));
    for (name, text) in sources(&[".rs"]) {
        assert!(!has_example(&text), "{name}: put it into examples/, and include_str! it");
    }
    for package in metadata()["packages"].as_array().expect("packages") {
        let mut targets = package["targets"].as_array().expect("targets").iter();
        let Some(library) = targets.find(|target| target["kind"][0] == "lib") else { continue };
        assert_eq!(library["doctest"], false, "[lib] doctest of {}", package["name"]);
    }
}

/// The tracked files with one of these endings, and their text.
fn sources(endings: &[&str]) -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run git ls-files");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("utf-8");
    let chosen = names.split('\0').filter(|name| endings.iter().any(|ending| name.ends_with(ending)));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A file that is deleted and not yet committed is still listed.
    chosen.filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root.join(name)).ok()?))).collect()
}

#[test]
fn documents_and_comments_refer_only_to_what_is_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for (name, text) in sources(&[".md", ".rs", ".toml"]) {
        let dir = root.join(&name).parent().expect("a directory").to_path_buf();
        if name.ends_with(".md") {
            for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                if !link.is_empty() && !link.contains("://") && !dir.join(link).exists() {
                    wrong.push(format!("{name}: the link {link} leads nowhere"));
                }
            }
        }
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c))) {
            if word.starts_with("docs/") && word.ends_with(".md") && !root.join(word).exists() {
                wrong.push(format!("{name}: {word} does not exist"));
            }
        }
        let elsewhere = [concat!("FA", "CTS"), concat!("DES", "IGN"), concat!("STY", "LE.md")];
        wrong.extend(
            elsewhere.iter().filter(|word| text.contains(**word)).map(|word| format!("{name}: {word} is not here")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Words that begin a comment without naming its subject.
const GUESSED: [&str; 8] = ["What", "Whoever", "Nobody", "Whatever", "Whichever", "Who", "Whose", "Nothing"];

/// The text of a line that is a comment and nothing else.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.strip_prefix(['/', '!']).unwrap_or(text).trim())
}

/// The first lines of blocks of comments that leave their subject to be guessed, with their numbers. An empty line of comment
/// ends a block.
fn guessed(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for (number, line) in (1..).zip(text.lines()) {
        let said = comment(line).unwrap_or_default();
        let word = said.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        if !is_inside && GUESSED.contains(&word) {
            found.push((number, said));
        }
        is_inside = !said.is_empty();
    }
    found
}

#[test]
fn no_comment_begins_with_a_word_whose_subject_must_be_guessed() {
    let planted =
        "//! Who.\n//!\n//! What is it?\n// Nobody begins here.\nlet x = 1; // Nothing\n    /// Whose?\n/// Whoever.\n";
    assert_eq!(guessed(planted), [(1, "Who."), (3, "What is it?"), (6, "Whose?")]);
    let mut wrong = Vec::new();
    for (name, text) in sources(&[".rs"]) {
        wrong.extend(guessed(&text).into_iter().map(|(number, said)| format!("{name}:{number}: {said}")));
    }
    assert!(wrong.is_empty(), "comments that do not name their subject:\n{}", wrong.join("\n"));
}

/// The tests of a crate are one binary, so a file that its `main.rs` does not name would never be run.
#[test]
fn every_file_of_tests_is_part_of_a_test_binary() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let dir = Path::new(package["manifest_path"].as_str().expect("a path")).with_file_name("tests");
        let Ok(main) = std::fs::read_to_string(dir.join("main.rs")) else { continue };
        for entry in std::fs::read_dir(&dir).expect("list").flatten() {
            let path = entry.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("utf-8");
            let is_module = path.extension().is_some_and(|end| end == "rs") || path.join("mod.rs").exists();
            let is_named = name == "main" || main.lines().any(|line| line == format!("mod {name};"));
            assert!(!is_module || is_named, "{} is not named in main.rs", path.display());
        }
    }
}
