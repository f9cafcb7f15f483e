//! The bytes of a block from a store, whatever they are.

use contd_flist::block::{self, BLOCK_SIZE};
use contd_flist::{BlockError, BlockKey};

/// The first byte selects: content to seal; hostile bytes sealed with the right key, compressed or not; any stored bytes.
pub fn check(data: &[u8]) {
    let Some((way, rest)) = data.split_first() else { return };
    match way {
        0..=63 => round_trip(rest),
        64..=191 => hostile(rest),
        _ => {
            let names = block::seal(b"another").unwrap().names;
            let refused = block::open(rest.to_vec(), &names).unwrap_err();
            assert!(!refused.hint().is_empty());
        }
    }
}

fn round_trip(plain: &[u8]) {
    // Long enough for matches over more than one snappy page.
    let plain = plain.repeat(1 + plain.first().map_or(0, |times| usize::from(*times) * 4));
    match block::seal(&plain) {
        Ok(sealed) => {
            assert!(sealed.stored.len() <= block::MAX_STORED_LEN);
            assert_eq!(block::open(sealed.stored, &sealed.names).unwrap(), plain);
        }
        Err(BlockError::PlainLength { len }) => assert!(len == 0 || len > BLOCK_SIZE),
        Err(other) => panic!("{other}"),
    }
}

/// The id and the tag are right, so the bytes get as far as snappy.
fn hostile(packed: &[u8]) {
    let sealed = block::seal_anything(packed.to_vec(), BlockKey::new([7; 32])).unwrap();
    match block::open(sealed.stored, &sealed.names).unwrap_err() {
        // Snappy decoded it: under the right key it must be exactly the content of that key.
        BlockError::WrongKey { found, .. } => {
            let sealed = block::seal_anything(packed.to_vec(), found).unwrap();
            let plain = block::open(sealed.stored, &sealed.names).unwrap();
            assert!((1..=BLOCK_SIZE).contains(&plain.len()) && block::key_of(&plain) == found);
        }
        BlockError::UnpackedLength { len, .. } => assert!(len == 0 || len > BLOCK_SIZE),
        BlockError::StoredLength { .. } | BlockError::Unpack { .. } => {}
        other => panic!("{other}"),
    }
}
