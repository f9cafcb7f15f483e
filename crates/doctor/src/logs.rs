//! Logs without a record. A container's log is removed with it, so one that is left says that its record was lost; it may
//! be all that is known about that container, and stays.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use contd_logs::LogFiles;
use nix::fcntl::OFlag;

use crate::error::{LookError, entries};
use crate::finding::Finding;
use crate::node::Node;

/// Time, stream and tag of a line are in its first bytes.
const HEAD_BYTES: u64 = 128;

/// Looks for them.
pub(crate) fn check(node: &Node<'_>) -> Result<Vec<Finding>, LookError> {
    let mut findings = Vec::new();
    let notes = node.state.join(contd_actors::LOG_NOTES_DIR);
    let names = |path: &Path, suffix: &str| Some(path.file_name()?.to_str()?.strip_suffix(suffix)?.to_owned());
    for dir in entries(&node.logs)? {
        let Some(namespace) = names(&dir, "").filter(|_| !dir.is_symlink()) else { continue };
        for path in entries(&dir)? {
            let Some(name) = names(&path, ".log") else { continue };
            // Everybody logs below /var/log: ours are known by their mark, and those of earlier versions by their form.
            if !node.known.has_name(&namespace, &name) && is_ours(&path, &notes) {
                findings.push(
                    Finding::note(format!("the log of a container without a record: {name} of {namespace}"))
                        .at(&path)
                        .because("it is kept on purpose: it may be all that is left of that container")
                        .remedy("read it, and remove it when it is not needed"),
                );
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("no logs without a record"));
    }
    Ok(findings)
}

fn is_ours(path: &Path, notes: &Path) -> bool {
    match LogFiles::owner_of(path, notes) {
        Ok(Some(_)) => true,
        Ok(None) => has_form(path),
        // It cannot be read, whosever it is.
        Err(_) => false,
    }
}

fn has_form(path: &Path) -> bool {
    // To open a FIFO would wait for its writer.
    if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
        return false;
    }
    let mut head = Vec::new();
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let read = file.and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.is_ok() && is_record(&String::from_utf8_lossy(&head))
}

/// Tells whether a line begins as ours do: `2026-11-23T10:11:12.123456789Z stdout F`.
fn is_record(line: &str) -> bool {
    let mut words = line.split(' ');
    let is_time = words.next().is_some_and(|word| humantime::parse_rfc3339(word).is_ok());
    let is_stream = words.next().is_some_and(|word| ["stdout", "stderr", "system"].contains(&word));
    is_time && is_stream && words.next().is_some_and(|word| ["F", "P"].contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_others_are_not_taken_for_ours() {
        assert!(is_record("2026-11-23T10:11:12.123456789Z stdout F text\n"));
        assert!(is_record("2026-11-23T10:11:12.123456789Z stderr P \n"));
        for other in ["", "Nov 23 10:11:12 vm sshd[1]: x", "2026-11-23T10:11:12Z INFO started", "127.0.0.1 - - GET /"] {
            assert!(!is_record(other), "{other}");
        }
    }
}
