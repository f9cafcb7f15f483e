//! Temp files of writers that were interrupted: the name tells the writer, and a dead one will not go on.

use std::path::{Path, PathBuf};

use contd_lease::ProcessIdentity;
use contd_types::Timestamp;

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::fix::Fix;
use crate::known::container_dirs;
use crate::node::Node;
use crate::process::Boot;
use contd_node::EVENTS_DIR;

/// The text before the writer's pid in every name: `.<name>.tmp-<pid>-<n>` for state, `.tmp-<pid>-<n>` for flists.
const MARK: &str = ".tmp-";

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let boot = Boot::read()?;
    let mut findings = Vec::new();
    for dir in dirs(node)? {
        for path in entries(&dir)? {
            let Some(pid) = writer(&path) else { continue };
            if !is_being_written(&boot, pid, &path)? {
                findings.push(
                    Finding::warning("a temp file of an interrupted write")
                        .at(&path)
                        .because("it takes space; its writer is dead, and what it was to replace is whole")
                        .fixed_by(Fix::RemoveFile { path: path.clone() }),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("no temp files of interrupted writes"));
    }
    Ok(findings)
}

/// Lists the directories in which contd replaces files.
fn dirs(node: &Node<'_>) -> Result<Vec<PathBuf>, LookError> {
    let mut dirs = vec![node.state.clone(), node.state.join(EVENTS_DIR), node.run.clone()];
    for (_, _, dir) in container_dirs(&node.state)? {
        dirs.push(dir.join("bundle"));
        dirs.push(dir);
    }
    for lease in ["s", "f"].map(|name| node.run.join(name)) {
        for dir in entries(&lease)? {
            dirs.push(dir.join("users"));
            dirs.push(dir);
        }
    }
    // Flists and filters lie on the first level of a cache, blocks on the second; there may be millions of them.
    dirs.push(node.cache.clone());
    for dir in subdirectories(&node.cache)? {
        dirs.extend(subdirectories(&dir)?);
        dirs.push(dir);
    }
    Ok(dirs)
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, LookError> {
    let failed = |source| LookError::path("list", dir, source);
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(failed(source)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // The directory tells the kind; a symlink is none.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Returns the pid of the writer if the name is that of a temp file.
pub(crate) fn writer(path: &Path) -> Option<i32> {
    let name = path.file_name()?.to_str()?;
    let (before, numbers) = name.rsplit_once(MARK)?;
    let is_ours = before.is_empty() || (before.starts_with('.') && before.len() > 1);
    let (pid, count) = numbers.split_once('-')?;
    (is_ours && count.parse::<u64>().is_ok()).then(|| pid.parse().ok()).flatten()
}

/// Tells whether the writer lives, and lived already when the file was written.
fn is_being_written(boot: &Boot, pid: i32, path: &Path) -> Result<bool, LookError> {
    let Some(process) = ProcessIdentity::of(pid)? else { return Ok(false) };
    let Ok(changed) = path.symlink_metadata().and_then(|metadata| metadata.modified()) else { return Ok(true) };
    Ok(boot.lived_at(&process, Timestamp::from_system_time(changed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_temp_files_tell_their_writers() {
        for (name, pid) in [
            (".record.json.tmp-123-0", Some(123)),
            (".tmp-7-12", Some(7)),
            ("record.json.tmp-123-0", None),
            (".record.json.tmp-123", None),
            (".tmp-x-1", None),
            ("record.json", None),
        ] {
            assert_eq!(writer(Path::new(name)), pid, "{name}");
        }
    }

    #[test]
    fn a_living_writer_is_left_to_finish_and_a_later_process_is_no_writer() {
        let dir = tempfile::tempdir().expect("a directory");
        let own = i32::try_from(std::process::id()).expect("a pid");
        let path = dir.path().join(format!(".x.tmp-{own}-0"));
        let file = std::fs::File::create(&path).expect("made");
        let boot = Boot::read().expect("read");
        assert!(is_being_written(&boot, own, &path).expect("looked"));
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        file.set_modified(long_ago).expect("set");
        assert!(!is_being_written(&boot, own, &path).expect("looked"), "we were not there then");
        assert!(!is_being_written(&boot, i32::MAX, &path).expect("looked"));
    }
}
