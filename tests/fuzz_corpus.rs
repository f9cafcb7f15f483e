//! The corpora of `fuzz/` through the same checks, without a fuzzer: what it has found once stays found.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests end loudly; the checks are shared with fuzz/, where each module is public"
)]

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::Path;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() >= 2, "{} has hardly anything", dir.display());
    for name in names {
        println!("{}", name.display());
        check(&std::fs::read(&name).unwrap());
    }
}

#[test]
fn frames_of_the_api_socket() {
    replay("api_frames", targets::api_frames::check);
}

#[test]
fn frames_and_files_of_shims_and_flist_servers() {
    replay("shim_frames", targets::shim_frames::check);
}

#[test]
fn records_and_the_journal() {
    replay("store_records", targets::store_records::check);
}

#[test]
fn configurations_of_bundles() {
    replay("oci_config", targets::oci_config::check);
}

#[test]
fn container_logs() {
    replay("log_reader", targets::log_reader::check);
}

#[test]
fn flists() {
    replay("flist_metadata", targets::flist_metadata::check);
}

#[test]
fn blocks_of_flists() {
    replay("flist_block", targets::flist_block::check);
}

#[test]
fn layers_and_archives_of_images() {
    replay("flist_import", targets::flist_import::check);
}

#[test]
fn spools() {
    replay("spool", targets::spool::check);
}
