//! What a store gives for a block, whatever that is.

use contd_flist::block::{self, BLOCK_SIZE};
use contd_flist::{BlockError, BlockKey};

/// The first byte chooses: content to seal; stored bytes of an enemy who has the key, compressed or not; any stored bytes.
pub fn check(data: &[u8]) {
    let Some((way, rest)) = data.split_first() else { return };
    match way {
        0..=63 => comes_back(rest),
        64..=191 => sealed_by_an_enemy(rest),
        _ => {
            let names = block::seal(b"another").unwrap().names;
            let refused = block::open(rest.to_vec(), &names).unwrap_err();
            assert!(!refused.hint().is_empty());
        }
    }
}

fn comes_back(plain: &[u8]) {
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
fn sealed_by_an_enemy(packed: &[u8]) {
    let sealed = block::seal_anything(packed.to_vec(), BlockKey::new([7; 32])).unwrap();
    match block::open(sealed.stored, &sealed.names).unwrap_err() {
        // Snappy was content: under the right key it must be just what the key says.
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
