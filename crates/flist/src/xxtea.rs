//! Implements XXTEA (corrected block TEA), the cipher of the legacy format: little-endian words, the length as last word.
//!
//! ```text
//! packed, padded with zeros to words ++ its length as a word ──XXTEA(key)──> stored
//! ```
//!
//! It authenticates nothing; the two hashes of a block do. The crates that implement it are tiny and inactive, so it is
//! implemented here, in some forty lines tested with the published vectors and those of the real packer.

use crate::hash::LEGACY_HASH_LEN;

/// The golden ratio, added to the sum in each round.
const DELTA: u32 = 0x9e37_79b9;

/// The bytes of a word.
const WORD: usize = 4;

/// The bytes that the cipher adds for the length, besides padding.
pub(crate) const LENGTH_LEN: usize = WORD;

/// Decrypts stored bytes in place, and truncates them to their length. `None` if the key is wrong.
pub(crate) fn decrypt(key: &[u8; LEGACY_HASH_LEN], stored: &mut Vec<u8>) -> Option<()> {
    let (whole, rest) = stored.as_chunks::<WORD>();
    if whole.len() < 2 || !rest.is_empty() {
        return None;
    }
    let mut words = whole.iter().copied().map(u32::from_le_bytes).collect::<Vec<_>>();
    decrypt_words(&key_words(key), &mut words);
    let padded = (words.len() - 1) * WORD;
    let len = usize::try_from(words.pop()?).ok()?;
    // The padding has less than one word.
    if len > padded || padded - len >= WORD {
        return None;
    }
    let (plain, _) = stored.as_chunks_mut::<WORD>();
    plain.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    stored.truncate(len);
    Some(())
}

fn key_words(key: &[u8; LEGACY_HASH_LEN]) -> [u32; 4] {
    let mut words = [0; 4];
    words.iter_mut().zip(key.as_chunks::<WORD>().0).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
    words
}

/// Reverses the rounds, the last one first; within a round from the last word to the first.
fn decrypt_words(key: &[u32; 4], words: &mut [u32]) {
    let rounds = rounds(words.len());
    let Some(mut next) = words.first().copied() else { return };
    let mut sum = DELTA.wrapping_mul(rounds);
    for _ in 0..rounds {
        for position in (0..words.len()).rev() {
            let before = if position == 0 { words.len() - 1 } else { position - 1 };
            let Some(before) = words.get(before).copied() else { return };
            let mixed = mix(key, position, sum, before, next);
            let Some(word) = words.get_mut(position) else { return };
            *word = word.wrapping_sub(mixed);
            next = *word;
        }
        sum = sum.wrapping_sub(DELTA);
    }
}

/// Returns the number of rounds, which decreases with the number of words.
fn rounds(words: usize) -> u32 {
    // 52 at most, so it always fits.
    6 + u32::try_from(52 / words.max(1)).unwrap_or(0)
}

/// Mixes a word's neighbours, the key and the sum.
fn mix(key: &[u32; 4], position: usize, sum: u32, before: u32, next: u32) -> u32 {
    let [a, b, c, d] = *key;
    let chosen = match (position & 3) ^ usize::try_from((sum >> 2) & 3).unwrap_or(0) {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    };
    let neighbours = ((before >> 5) ^ (next << 2)).wrapping_add((next >> 3) ^ (before << 4));
    neighbours ^ (sum ^ next).wrapping_add(chosen ^ before)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The inverse, for tests that need blocks of their own.
    pub(crate) fn encrypt(key: &[u8; LEGACY_HASH_LEN], packed: &[u8]) -> Vec<u8> {
        let mut padded = packed.to_vec();
        padded.resize(packed.len().div_ceil(WORD) * WORD, 0);
        padded.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        let mut words = padded.as_chunks::<WORD>().0.iter().copied().map(u32::from_le_bytes).collect::<Vec<_>>();
        encrypt_words(&key_words(key), &mut words);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn encrypt_words(key: &[u32; 4], words: &mut [u32]) {
        let (last, mut sum) = (words.len() - 1, 0_u32);
        for _ in 0..rounds(words.len()) {
            sum = sum.wrapping_add(DELTA);
            for position in 0..words.len() {
                let before = words[if position == 0 { last } else { position - 1 }];
                let next = words[if position == last { 0 } else { position + 1 }];
                words[position] = words[position].wrapping_add(mix(key, position, sum, before, next));
            }
        }
    }

    #[test]
    fn words_decrypt_as_the_published_vectors_say() {
        for (key, plain, sealed) in [
            ("00000000000000000000000000000000", "0000000000000000", "ab043705808c5d57"),
            ("0102040810204080fffefcf8f0e0c080", "0000000000000000", "d1e78be2c746728a"),
            ("9e3779b99b9773e9b979379e6b695156", "ffffffffffffffff", "67ed0ea8e8973fc5"),
        ] {
            let words = |hex: &str| {
                let bytes = (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap());
                bytes
                    .collect::<Vec<_>>()
                    .as_chunks::<WORD>()
                    .0
                    .iter()
                    .copied()
                    .map(u32::from_le_bytes)
                    .collect::<Vec<_>>()
            };
            let (key, mut text) = (words(key).try_into().unwrap(), words(sealed));
            decrypt_words(&key, &mut text);
            assert_eq!(text, words(plain), "{sealed}");
            encrypt_words(&key, &mut text);
            assert_eq!(text, words(sealed), "{plain}");
        }
    }

    #[test]
    fn every_length_comes_back_and_another_key_is_noticed() {
        let key = [0x5a; LEGACY_HASH_LEN];
        for len in 1..70 {
            let plain = (0..len).collect::<Vec<u8>>();
            let mut sealed = encrypt(&key, &plain);
            assert_eq!(sealed.len() % WORD, 0);
            let mut wrong = sealed.clone();
            decrypt(&key, &mut sealed).unwrap();
            assert_eq!(sealed, plain);
            assert!(decrypt(&[0x5b; LEGACY_HASH_LEN], &mut wrong).is_none(), "{len}");
        }
    }

    #[test]
    fn an_incomplete_word_is_refused() {
        let key = [1; LEGACY_HASH_LEN];
        for len in [0, 1, 3, 4, 5, 7, 9] {
            assert!(decrypt(&key, &mut vec![0xa5; len]).is_none(), "{len}");
        }
    }
}
