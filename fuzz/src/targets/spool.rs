//! A spool that a predecessor left, whatever that was.

use super::Scratch;

/// The whole file.
pub fn check(data: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.file("spool", data);
    let given = contd_shim::fuzzing::drain_spool(path).unwrap();
    // The entry is no output, and what it is about is given once more at most.
    assert!(given.len() <= 2 * data.len(), "{} bytes from a spool of {}", given.len(), data.len());
    let bytes = data.get(64..).unwrap_or_default();
    assert!(bytes.ends_with(&given) || given.is_empty(), "what is given is not the end of what was taken");
}
