//! The two names of a block: the hash of what is stored, and the hash of what it means.

use std::fmt;

/// Bytes of a BLAKE2b-256 digest.
pub(crate) const HASH_LEN: usize = 32;

/// Names a block in the stores: BLAKE2b-256 of the sealed bytes. Its first byte chooses the route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId([u8; HASH_LEN]);

/// Names a block in the cache and opens it: BLAKE2b-256 of the plain bytes, which is also the cipher key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey([u8; HASH_LEN]);

/// Both names of one block, as the `block` table holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRef {
    /// Where the stores keep it.
    pub id: BlockId,
    /// What it holds.
    pub key: BlockKey,
}

/// Returns the unkeyed BLAKE2b-256 of `bytes`.
pub(crate) fn blake2b_256(bytes: &[u8]) -> [u8; HASH_LEN] {
    let mut state = hasher();
    state.update(bytes);
    finish(&state)
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

/// Writes bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
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
                Self(bytes)
            }

            /// Gives the 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
                &self.0
            }

            /// Gives the 64 lower-case hex digits that stores and cache use as a file name.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex(&self.0)
            }

            /// Gives the folder: the first two hex digits.
            #[must_use]
            pub fn shard(&self) -> String {
                hex(self.0.get(..1).unwrap_or_default())
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
