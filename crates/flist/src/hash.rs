//! The two names of a block: the hash of what is stored, and the hash of what it means.
//!
//! A name is as long as the digest of its format, and so says by which one its block is sealed: 32 bytes for `.fl`, 16 for
//! the legacy `.flist`. Blocks of the two never meet in a store or a cache, not even with equal content.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a BLAKE2b-256 digest.
pub const HASH_LEN: usize = 32;

/// Bytes hashed at once.
const HASH_CHUNK: usize = 64 * 1024;

/// Bytes of a BLAKE2b-128 digest, as the legacy format has them.
pub const LEGACY_HASH_LEN: usize = 16;

/// A digest of either format.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Digest {
    Current([u8; HASH_LEN]),
    Legacy([u8; LEGACY_HASH_LEN]),
}

impl Digest {
    /// Hashes `bytes` as this digest was made.
    fn again(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Current(_) => Self::Current(blake2b_256(bytes)),
            Self::Legacy(_) => Self::Legacy(blake2b_128(bytes)),
        }
    }
}

/// Names a block in the stores: BLAKE2b of the sealed bytes. Its first byte chooses the route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Digest);

/// Names a block in the cache and opens it: BLAKE2b of the plain bytes, which is also the cipher key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey(Digest);

/// Both names of one block, as the `block` table holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Where the stores keep it.
    pub id: BlockId,
    /// What it holds.
    pub key: BlockKey,
}

/// Returns the unkeyed BLAKE2b-256 of `bytes`.
#[must_use]
pub fn blake2b_256(bytes: &[u8]) -> [u8; HASH_LEN] {
    let mut state = hasher();
    state.update(bytes);
    finish(&state)
}

/// Returns the unkeyed BLAKE2b-128 of `bytes`.
#[must_use]
pub fn blake2b_128(bytes: &[u8]) -> [u8; LEGACY_HASH_LEN] {
    let mut digest = [0; LEGACY_HASH_LEN];
    let full = blake2b_simd::Params::new().hash_length(LEGACY_HASH_LEN).hash(bytes);
    // Made with this length, so the zip covers all of both.
    digest.iter_mut().zip(full.as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// Starts a BLAKE2b-256 over a stream.
pub(crate) fn hasher() -> blake2b_simd::State {
    blake2b_simd::Params::new().hash_length(HASH_LEN).to_state()
}

/// Ends what [`hasher`] started.
pub(crate) fn finish(state: &blake2b_simd::State) -> [u8; HASH_LEN] {
    let mut digest = [0; HASH_LEN];
    // The state was made with this length, so the zip covers all of both.
    digest.iter_mut().zip(state.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// Hashes what is left of a stream; the digest is given as 64 hex digits.
pub(crate) fn hash_stream(mut stream: impl Read) -> io::Result<String> {
    let (mut state, mut chunk) = (hasher(), vec![0; HASH_CHUNK]);
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(hex(&finish(&state))),
            Ok(read) => {
                state.update(chunk.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the identity of a flist on a node: BLAKE2b-256 of the file, as 64 hex digits.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path) -> io::Result<String> {
    hash_stream(crate::regular::open_file(path)?)
}

/// Writes bytes as lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    // By digits and not by `write!`: every read of a cached block needs the name of its file.
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.fold(String::with_capacity(bytes.len() * 2), |mut text, digit| {
        text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        text
    })
}

macro_rules! block_name {
    ($name:ident) => {
        impl $name {
            /// Takes the 32 bytes of a digest.
            #[must_use]
            pub const fn new(bytes: [u8; HASH_LEN]) -> Self {
                Self(Digest::Current(bytes))
            }

            /// Takes the 16 bytes of a digest of the legacy format.
            #[must_use]
            pub const fn legacy(bytes: [u8; LEGACY_HASH_LEN]) -> Self {
                Self(Digest::Legacy(bytes))
            }

            /// Gives the bytes: 32, or 16 of the legacy format.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8] {
                match &self.0 {
                    Digest::Current(bytes) => bytes,
                    Digest::Legacy(bytes) => bytes,
                }
            }

            /// Gives the bytes for tables that have room for one length: a shorter name ends with zeros, as no hash does.
            #[must_use]
            pub fn widened(&self) -> [u8; HASH_LEN] {
                let mut wide = [0; HASH_LEN];
                wide.iter_mut().zip(self.as_bytes()).for_each(|(to, from)| *to = *from);
                wide
            }

            /// Tells the formats apart.
            pub(crate) const fn digest(&self) -> &Digest {
                &self.0
            }

            /// Gives the name that `bytes` would have here, in the format of this one.
            pub(crate) fn again(&self, bytes: &[u8]) -> Self {
                Self(self.0.again(bytes))
            }

            /// Gives the lower-case hex digits, 64 or 32, that stores and cache use as a file name.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(self.as_bytes())
            }

            /// Gives the folder: the first two hex digits.
            #[must_use]
            pub fn shard(&self) -> String {
                hex(self.as_bytes().get(..1).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }
    };
}

block_name!(BlockId);
block_name!(BlockKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_two_formats_never_meet() {
        let (current, legacy) = (BlockKey::new([7; HASH_LEN]), BlockKey::legacy([7; LEGACY_HASH_LEN]));
        assert_ne!(current, legacy);
        assert_eq!((current.to_hex().len(), legacy.to_hex().len()), (64, 32));
        assert_eq!((current.as_bytes().len(), legacy.as_bytes().len()), (32, 16));
        assert_eq!((current.widened()[15..17].to_vec(), legacy.widened()[15..17].to_vec()), (vec![7, 7], vec![7, 0]));
        assert_eq!((current.again(b"x").to_hex().len(), legacy.again(b"x").to_hex().len()), (64, 32));
    }
}
