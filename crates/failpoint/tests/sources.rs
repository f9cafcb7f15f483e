//! Compares the table of failpoints with the code: each is used at exactly one place.
#![expect(clippy::expect_used, reason = "tests end loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use contd_failpoint::Failpoint;

/// Lists the sources that are linked into our programs. This crate is left out: it only names the failpoints.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut dirs = vec![root.join("src"), root.join("actors/src")];
    for entry in fs::read_dir(root.join("crates")).expect("the crates").flatten() {
        if entry.file_name() != "failpoint" {
            dirs.push(entry.path().join("src"));
        }
    }
    let mut found = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Finds `Failpoint::Name` in all of these sources.
fn uses() -> BTreeMap<String, Vec<PathBuf>> {
    let mut uses: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in sources() {
        let text = fs::read_to_string(&path).expect("a source");
        for (at, found) in text.match_indices("Failpoint::") {
            let name = text[at + found.len()..].chars().take_while(|c| c.is_alphanumeric()).collect();
            uses.entry(name).or_default().push(path.clone());
        }
    }
    uses
}

#[test]
fn each_failpoint_is_used_at_exactly_one_place() {
    let uses = uses();
    for point in Failpoint::ALL {
        let places = uses.get(point.variant()).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(places.len(), 1, "{} is come by at {places:?}", point.variant());
    }
    let known: BTreeSet<&str> = Failpoint::ALL.iter().map(|point| point.variant()).collect();
    let unknown: Vec<_> = uses.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
}

#[test]
fn names_are_unique_and_say_which_process_comes_by() {
    let names: BTreeSet<&str> = Failpoint::ALL.iter().map(|point| point.name()).collect();
    assert_eq!(names.len(), Failpoint::ALL.len());
    for name in names {
        let process = name.split('.').next().unwrap_or_default();
        assert!(["fs", "daemon", "shim"].contains(&process), "{name}");
    }
}
