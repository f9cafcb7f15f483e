//! Values of legacy flists: the Cap'n Proto reader, the routes to the blocks, and the cipher of the blocks.

use contd_flist_legacy::fuzzing;

/// The first byte selects the decoder, the rest is its input.
pub fn check(data: &[u8]) {
    let Some((choice, input)) = data.split_first() else { return };
    match choice % 4 {
        0 | 1 => {
            // Each object costs at least a word of the budget, which is twice the message.
            let met = fuzzing::value(input);
            assert!(met <= 2 + input.len() / 4, "{met} things in {} bytes", input.len());
        }
        2 => {
            let Ok(text) = std::str::from_utf8(input) else { return };
            let routes = fuzzing::stores(text);
            assert!(routes <= 1 + text.len() / 4, "{routes} routes in {} bytes", text.len());
        }
        _ => {
            let Some((key, stored)) = input.split_first_chunk() else { return };
            let packed = contd_flist::block::decrypt_legacy(key, stored);
            assert!(packed + 4 <= stored.len() || packed == 0, "{packed} bytes from {}", stored.len());
        }
    }
}
