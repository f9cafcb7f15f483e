//! A spool file of a predecessor, with arbitrary content.

use super::Scratch;

/// The input is the whole file.
pub fn check(data: &[u8]) {
    let scratch = Scratch::new();
    let path = scratch.file("spool", data);
    let given = contd_shim::fuzzing::drain_spool(path).unwrap();
    // The entry of 64 bytes is no output; the bytes that it describes are output at most once more.
    assert!(given.len() <= 2 * data.len(), "{} bytes from a spool of {}", given.len(), data.len());
    let bytes = data.get(64..).unwrap_or_default();
    assert!(bytes.ends_with(&given) || given.is_empty(), "the output is not the end of the spooled bytes");
}
