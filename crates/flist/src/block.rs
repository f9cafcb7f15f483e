//! Seals a block for a store, and opens it again with both of its hashes checked.
//!
//! ```text
//! key    = blake2b-256(plain)                                    plain is 1 ..= 512 KiB
//! packed = raw snappy(plain)
//! stored = AES-256-GCM(key, nonce = key[..12], no associated data)(packed), tag appended
//! id     = blake2b-256(stored)
//! ```
//!
//! The legacy format has another cipher and shorter digests, recognized by the length of the names: see `xxtea.rs`.
//!
//! ```text
//! stored = XXTEA(key)(packed)      key and id are blake2b-128
//! ```
//!
//! Sealing is deterministic: equal content gives equal blocks, so that stores keep it once. A nonce that depends only
//! on the key is safe because a key, the hash of the content, is never used for two contents.

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};

use crate::error::FlistErrorKind;
use crate::hash::{BlockId, BlockKey, BlockRef, Digest, HASH_LEN, blake2b_256};
use crate::xxtea;

/// Bytes of plain text in every block but the last of a file. Fixed by the format (`rfs`: `BLOB_SIZE`).
pub const BLOCK_SIZE: usize = 512 * 1024;

/// Bytes of the AES-GCM tag.
const TAG_LEN: usize = 16;

/// Bytes of the AES-GCM nonce.
const NONCE_LEN: usize = 12;

/// The most bytes a stored block can have: snappy's worst case for [`BLOCK_SIZE`], and the tag.
pub const MAX_STORED_LEN: usize = 32 + BLOCK_SIZE + BLOCK_SIZE / 6 + TAG_LEN;

/// A block could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// A block holds 1 byte to [`BLOCK_SIZE`].
    #[error("seal a block of {len} bytes: a block has 1 to {BLOCK_SIZE}")]
    PlainLength {
        /// The length given.
        len: usize,
    },
    /// Snappy refused the plain text.
    #[error("compress a block of {len} bytes")]
    Compress {
        /// The length given.
        len: usize,
        /// Snappy's error.
        source: snap::Error,
    },
    /// The cipher refused; it does so only for lengths far above ours.
    #[error("encrypt block {key}")]
    Encrypt {
        /// The block.
        key: BlockKey,
    },
    /// The stored bytes are longer or shorter than any sealed block.
    #[error("open block {id}: {len} bytes cannot be a sealed block")]
    StoredLength {
        /// The block.
        id: BlockId,
        /// The length of the bytes from the store.
        len: usize,
    },
    /// The hash of the stored bytes is not the id.
    #[error("open block {id}: the stored bytes hash to {found}")]
    WrongId {
        /// The expected id.
        id: BlockId,
        /// The id of the bytes found.
        found: BlockId,
    },
    /// The tag does not match: the flist's key does not belong to its id.
    #[error("open block {id}: its key does not open it")]
    Decrypt {
        /// The block.
        id: BlockId,
    },
    /// The id has the length of one format and the key that of the other; no reader of flists produces that.
    #[error("open block {id}: its key {key} is of another format")]
    MixedNames {
        /// The block.
        id: BlockId,
        /// Its key.
        key: BlockKey,
    },
    /// The compressed form announces more than a block may hold; it was not decompressed.
    #[error("open block {id}: it would unpack to {len} bytes")]
    UnpackedLength {
        /// The block.
        id: BlockId,
        /// The announced length.
        len: usize,
    },
    /// The decrypted bytes are not valid snappy.
    #[error("open block {id}: unpack it")]
    Unpack {
        /// The block.
        id: BlockId,
        /// Snappy's error.
        source: snap::Error,
    },
    /// The hash of the plain text is not the key.
    #[error("open block {id}: the plain text hashes to {found}, not to its key")]
    WrongKey {
        /// The block.
        id: BlockId,
        /// The key of the plain text found.
        found: BlockKey,
    },
}

impl BlockError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::PlainLength { .. } | Self::Compress { .. } | Self::Encrypt { .. } => {
                "cut the content in blocks of at most 512 KiB"
            }
            Self::StoredLength { .. } | Self::WrongId { .. } => {
                "the store holds a damaged copy: restore it, or add a second route that has a good one"
            }
            Self::Decrypt { .. }
            | Self::MixedNames { .. }
            | Self::UnpackedLength { .. }
            | Self::Unpack { .. }
            | Self::WrongKey { .. } => "the flist itself is wrong about this block: pack it again",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::PlainLength { .. } | Self::Compress { .. } | Self::Encrypt { .. } => FlistErrorKind::Invalid,
            _ => FlistErrorKind::Corrupt,
        }
    }
}

/// A block as a store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// The block's id and key.
    pub names: BlockRef,
    /// The bytes to store under `names.id`.
    pub stored: Vec<u8>,
}

/// Returns the key of some plain text, which also names it in the cache.
#[must_use]
pub fn key_of(plain: &[u8]) -> BlockKey {
    BlockKey::new(blake2b_256(plain))
}

/// Returns the id of some stored bytes, which names them in the stores.
#[must_use]
pub fn id_of(stored: &[u8]) -> BlockId {
    BlockId::new(blake2b_256(stored))
}

/// Compresses and encrypts one block of a file.
///
/// # Errors
/// [`BlockError::PlainLength`] unless `plain` has 1 to [`BLOCK_SIZE`] bytes.
pub fn seal(plain: &[u8]) -> Result<SealedBlock, BlockError> {
    let mut sealer = Sealer::new();
    let names = sealer.seal(plain, key_of(plain))?;
    Ok(SealedBlock { names, stored: sealer.stored })
}

/// Seals blocks one after the other in one buffer.
#[derive(Debug)]
pub(crate) struct Sealer {
    encoder: snap::raw::Encoder,
    stored: Vec<u8>,
}

impl Sealer {
    pub(crate) fn new() -> Self {
        Self { encoder: snap::raw::Encoder::new(), stored: Vec::new() }
    }

    /// Compresses and encrypts one block, whose key the caller has computed by [`key_of`].
    pub(crate) fn seal(&mut self, plain: &[u8], key: BlockKey) -> Result<BlockRef, BlockError> {
        let len = plain.len();
        if len == 0 || len > BLOCK_SIZE {
            return Err(BlockError::PlainLength { len });
        }
        self.stored.resize(snap::raw::max_compress_len(len), 0);
        let packed = self.encoder.compress(plain, &mut self.stored);
        self.stored.truncate(packed.map_err(|source| BlockError::Compress { len, source })?);
        encrypt(&mut self.stored, key)
    }

    /// Returns the stored form of the last block.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.stored
    }
}

fn encrypt(stored: &mut Vec<u8>, key: BlockKey) -> Result<BlockRef, BlockError> {
    let digest = key.widened();
    cipher(&digest).encrypt_in_place(&nonce(&digest), b"", stored).map_err(|_opaque| BlockError::Encrypt { key })?;
    Ok(BlockRef { id: id_of(stored), key })
}

/// Seals hostile content for fuzzing: it need not be snappy, nor match the key.
///
/// # Errors
/// The cipher refused the length.
#[cfg(feature = "testing")]
pub fn seal_anything(mut packed: Vec<u8>, key: BlockKey) -> Result<SealedBlock, BlockError> {
    let names = encrypt(&mut packed, key)?;
    Ok(SealedBlock { names, stored: packed })
}

/// Decrypts a stored block of the legacy format for fuzzing, and returns the length of its compressed content.
#[cfg(feature = "testing")]
#[must_use]
pub fn decrypt_legacy(key: &[u8; 16], stored: &[u8]) -> usize {
    let mut stored = stored.to_vec();
    xxtea::decrypt(key, &mut stored).map_or(0, |()| stored.len())
}

/// Decrypts and decompresses the stored bytes of `block`. The id is checked before, the key after.
///
/// # Errors
/// The first check that failed: the content is not the one that the flist means.
pub fn open(mut stored: Vec<u8>, block: &BlockRef) -> Result<Vec<u8>, BlockError> {
    let id = block.id;
    let overhead = match id.digest() {
        Digest::Current(_) => TAG_LEN,
        Digest::Legacy(_) => xxtea::LENGTH_LEN,
    };
    if stored.len() <= overhead || stored.len() > MAX_STORED_LEN {
        return Err(BlockError::StoredLength { id, len: stored.len() });
    }
    let found = id.rehash(&stored);
    if found != id {
        return Err(BlockError::WrongId { id, found });
    }
    decrypt(block, &mut stored)?;
    let len = snap::raw::decompress_len(&stored).map_err(|source| BlockError::Unpack { id, source })?;
    if len == 0 || len > BLOCK_SIZE {
        return Err(BlockError::UnpackedLength { id, len });
    }
    let plain =
        snap::raw::Decoder::new().decompress_vec(&stored).map_err(|source| BlockError::Unpack { id, source })?;
    let found = block.key.rehash(&plain);
    if found == block.key { Ok(plain) } else { Err(BlockError::WrongKey { id, found }) }
}

/// Decrypts stored bytes with the cipher of the names' format.
fn decrypt(block: &BlockRef, stored: &mut Vec<u8>) -> Result<(), BlockError> {
    let BlockRef { id, key } = *block;
    let refused = || BlockError::Decrypt { id };
    match (id.digest(), key.digest()) {
        (Digest::Current(_), Digest::Current(key)) => {
            cipher(key).decrypt_in_place(&nonce(key), b"", stored).map_err(|_opaque| refused())
        }
        (Digest::Legacy(_), Digest::Legacy(key)) => xxtea::decrypt(key, stored).ok_or_else(refused),
        _ => Err(BlockError::MixedNames { id, key }),
    }
}

fn cipher(key: &[u8; HASH_LEN]) -> Aes256Gcm {
    Aes256Gcm::new(&(*key).into())
}

fn nonce(key: &[u8; HASH_LEN]) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut bytes = [0; NONCE_LEN];
    bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let sealed = seal(b"some content that is long enough to matter").unwrap();
        for position in 0..sealed.stored.len() {
            let mut damaged = sealed.stored.clone();
            damaged[position] ^= 0x10;
            assert!(matches!(open(damaged, &sealed.names), Err(BlockError::WrongId { .. })), "byte {position}");
        }
    }

    #[test]
    fn a_block_that_would_unpack_to_a_gigabyte_is_refused_before_unpacking() {
        let (digest, key) = ([7; 32], BlockKey::new([7; 32]));
        let mut stored = vec![0x80, 0x80, 0x80, 0x80, 0x04, 0xfe, 0x01, 0x00];
        cipher(&digest).encrypt_in_place(&nonce(&digest), b"", &mut stored).unwrap();
        let names = BlockRef { id: id_of(&stored), key };
        assert!(matches!(open(stored, &names), Err(BlockError::UnpackedLength { len, .. }) if len == 1 << 30));
    }

    #[test]
    fn a_block_whose_key_is_not_its_hash_is_refused() {
        let (digest, key) = ([7; 32], BlockKey::new([7; 32]));
        let mut stored = snap::raw::Encoder::new().compress_vec(b"not what the key says").unwrap();
        cipher(&digest).encrypt_in_place(&nonce(&digest), b"", &mut stored).unwrap();
        let names = BlockRef { id: id_of(&stored), key };
        assert!(matches!(open(stored, &names), Err(BlockError::WrongKey { .. })));
    }

    #[test]
    fn the_key_of_another_block_does_not_open_it() {
        let (one, two) = (seal(b"one").unwrap(), seal(b"two").unwrap());
        let mixed = BlockRef { id: one.names.id, key: two.names.key };
        assert!(matches!(open(one.stored, &mixed), Err(BlockError::Decrypt { .. })));
    }

    #[test]
    fn blocks_have_one_byte_to_512_kib() {
        assert!(matches!(seal(b""), Err(BlockError::PlainLength { len: 0 })));
        assert!(matches!(seal(&vec![0; BLOCK_SIZE + 1]), Err(BlockError::PlainLength { .. })));
        let full = vec![0xa5; BLOCK_SIZE];
        let sealed = seal(&full).unwrap();
        assert_eq!(open(sealed.stored, &sealed.names).unwrap(), full);
        assert!(matches!(open(vec![0; 16], &sealed.names), Err(BlockError::StoredLength { len: 16, .. })));
    }
}
