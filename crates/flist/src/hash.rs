//! The two names of a block: the id, a hash of the stored bytes, and the key, a hash of the plain bytes.
//!
//! The length of a name tells the format of its block: 32 bytes for `.fl`, 16 for the legacy `.flist`. Blocks of different
//! formats never have the same name in a store or cache, not even with equal content.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

/// Bytes of a BLAKE2b-256 digest.
pub const HASH_LEN: usize = 32;

/// The bytes hashed at once.
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
    /// Hashes `bytes` with the algorithm of this digest.
    fn rehash(&self, bytes: &[u8]) -> Self {
        match self {
            Self::Current(_) => Self::Current(blake2b_256(bytes)),
            Self::Legacy(_) => Self::Legacy(blake2b_128(bytes)),
        }
    }
}

/// The name of a block in the stores: BLAKE2b of the sealed bytes. Its first byte selects the route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Digest);

/// The name of a block in the cache: BLAKE2b of the plain bytes, which is also the cipher key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey(Digest);

/// The id and the key of one block, as in the `block` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// The name in the stores.
    pub id: BlockId,
    /// The name in the cache, and the cipher key.
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
    // The digest has this length, so the zip covers all of both.
    digest.iter_mut().zip(full.as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// Starts a BLAKE2b-256 over a stream.
pub(crate) fn hasher() -> blake2b_simd::State {
    blake2b_simd::Params::new().hash_length(HASH_LEN).to_state()
}

/// Finishes a hash that [`hasher`] started.
pub(crate) fn finish(state: &blake2b_simd::State) -> [u8; HASH_LEN] {
    let mut digest = [0; HASH_LEN];
    // The state was made with this length, so the zip covers all of both.
    digest.iter_mut().zip(state.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
    digest
}

/// Hashes the rest of a stream, and returns the digest as 64 hex digits.
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

/// Formats bytes as lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    // Converted digit by digit, because `write!` is slower: every read of a cached block needs its file name.
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.fold(String::with_capacity(bytes.len() * 2), |mut text, digit| {
        text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        text
    })
}

macro_rules! block_name {
    ($name:ident) => {
        impl $name {
            /// Makes a name from the 32 bytes of a digest.
            #[must_use]
            pub const fn new(bytes: [u8; HASH_LEN]) -> Self {
                Self(Digest::Current(bytes))
            }

            /// Makes a name from the 16 bytes of a digest of the legacy format.
            #[must_use]
            pub const fn legacy(bytes: [u8; LEGACY_HASH_LEN]) -> Self {
                Self(Digest::Legacy(bytes))
            }

            /// Returns the bytes: 32, or 16 in the legacy format.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8] {
                match &self.0 {
                    Digest::Current(bytes) => bytes,
                    Digest::Legacy(bytes) => bytes,
                }
            }

            /// Returns 32 bytes for tables with one length: a legacy name is padded with zeros, which no hash ends with.
            #[must_use]
            pub fn widened(&self) -> [u8; HASH_LEN] {
                let mut wide = [0; HASH_LEN];
                wide.iter_mut().zip(self.as_bytes()).for_each(|(to, from)| *to = *from);
                wide
            }

            /// Returns the digest with its format.
            pub(crate) const fn digest(&self) -> &Digest {
                &self.0
            }

            /// Returns the name of `bytes` in the format of this name.
            pub(crate) fn rehash(&self, bytes: &[u8]) -> Self {
                Self(self.0.rehash(bytes))
            }

            /// Returns the lower-case hex digits, 64 or 32, that stores and cache use as a file name.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(self.as_bytes())
            }

            /// Returns the directory for this name: the first two hex digits.
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
        assert_eq!((current.rehash(b"x").to_hex().len(), legacy.rehash(b"x").to_hex().len()), (64, 32));
    }
}
