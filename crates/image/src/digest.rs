//! Parses digests as images write them (`sha256:<hex>`), and computes them while reading.

use std::fmt;
use std::io::{self, Read};

use sha2::Digest as _;

use crate::ImportError;
use contd_flist::hash::hex;

/// The size of read buffers, unless a format requires another.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// The algorithm of a digest; the OCI image specification registers both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
}

/// A well-formed digest, safe as part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    algorithm: Algorithm,
    /// Lower-case digits.
    hex: String,
}

impl Digest {
    /// Parses a digest; `what` names the document that contains it, for errors.
    pub(super) fn parse(what: &str, text: &str) -> Result<Self, ImportError> {
        let malformed = |reason| ImportError::Malformed { what: what.to_owned(), reason };
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(malformed("a digest is an algorithm, a colon and digits"));
        };
        let (algorithm, digits) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(ImportError::Unsupported { what: what.to_owned(), found: shortened(text) }),
        };
        if hex.len() == digits && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self { algorithm, hex: hex.to_owned() })
        } else {
            Err(malformed("the digits of a digest are 64 or 128 of 0-9 and a-f"))
        }
    }

    /// Reads the digest from the name of a configuration in an old archive: `<64 hex>.json`.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let text = format!("sha256:{}", name.strip_suffix(".json")?);
        Self::parse(name, &text).ok()
    }

    /// Computes the SHA-256 of some bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex(&sha2::Sha256::digest(bytes)) }
    }

    /// Returns the digits.
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }

    /// Returns the path of the blob in a layout.
    pub(super) fn path(&self) -> String {
        format!("blobs/{}/{}", self.name(), self.hex)
    }

    /// Starts a computation with the same algorithm.
    pub(super) fn hasher(&self) -> Hasher {
        match self.algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Compares this digest with the one computed for `what`.
    pub(super) fn check(&self, what: &str, found: &Self) -> Result<(), ImportError> {
        if self == found {
            return Ok(());
        }
        let (expected, found) = (self.to_string(), found.to_string());
        Err(ImportError::Digest { what: what.to_owned(), expected, found })
    }

    fn name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name(), self.hex)
    }
}

/// Shortens a text from the image for an error message.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The state of a digest computation.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(state) => Digest { algorithm: Algorithm::Sha256, hex: hex(&state.finalize()) },
            Self::Sha512(state) => Digest { algorithm: Algorithm::Sha512, hex: hex(&state.finalize()) },
        }
    }
}

/// A reader that hashes and counts what passes through it, and fails above a limit.
#[derive(Debug)]
pub(super) struct Hashed<R> {
    inner: R,
    hasher: Option<Hasher>,
    bytes: u64,
    limit: u64,
    is_over: bool,
}

impl<R: Read> Hashed<R> {
    /// Wraps a reader. Reading more than `limit` bytes fails; without `hasher` nothing is hashed.
    pub(super) fn new(inner: R, hasher: Option<Hasher>, limit: u64) -> Self {
        Self { inner, hasher, bytes: 0, limit, is_over: false }
    }

    /// Returns the number of bytes read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.bytes
    }

    /// Tells whether a read failed because of the limit.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads to the end, so that the digest covers the whole stream.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.read(&mut chunk)? > 0 {}
        Ok(())
    }

    /// Returns the digest of the bytes read, if one was computed.
    pub(super) fn finish(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.bytes = self.bytes.saturating_add(read as u64);
        if self.bytes > self.limit {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buf.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_never_a_path() {
        let hex = "a".repeat(64);
        assert_eq!(Digest::parse("x", &format!("sha256:{hex}")).unwrap().path(), format!("blobs/sha256/{hex}"));
        for bad in ["", "sha256", "sha256:", "sha256:../../x", "sha256:ABC", "sha512:00", "../x:00"] {
            assert!(Digest::parse("x", bad).is_err(), "{bad}");
        }
        assert!(Digest::parse("x", &format!("sha256:{}/", "a".repeat(63))).is_err());
        assert!(Digest::parse("x", &format!("sha256:{}", "A".repeat(64))).is_err());
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let expected = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::parse("x", expected).unwrap().hasher().finish().to_string(), expected);
    }

    #[test]
    fn a_reader_stops_at_its_limit() {
        let mut reader = Hashed::new(&b"12345"[..], None, 4);
        assert!(reader.drain().is_err() && reader.is_over());
        let mut reader = Hashed::new(&b"12345"[..], None, 5);
        assert!(reader.drain().is_ok() && !reader.is_over() && reader.read_bytes() == 5);
    }
}
