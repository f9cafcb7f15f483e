//! Layers of images, and whole archives. The checksums of tar headers are corrected first: they keep out a fuzzer, but no
//! attacker.

use contd_image::testing::{Laid, lay, pack_accepts};
use contd_image::{ImportLimits, ImportOptions};

use super::Scratch;

/// The block size of a tar.
const BLOCK: usize = 512;

/// The bit for a whole archive; the other bits of the first byte give the number of layers to cut the input into.
const IS_ARCHIVE: u8 = 0x80;

/// Small enough for the memory that an input may cost.
const LIMITS: ImportLimits = ImportLimits { image_bytes: 1 << 20, file_bytes: 1 << 19, entries: 10_000 };

/// The input is one byte that selects the form, followed by tars.
pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    let mut tars = rest.to_vec();
    repair(&mut tars);
    if form & IS_ARCHIVE != 0 {
        return archive(&tars);
    }
    let blocks = tars.len().div_ceil(BLOCK);
    let each = blocks.div_ceil(usize::from(form % 3) + 1).max(1);
    layers(&tars.chunks(each * BLOCK).collect::<Vec<_>>());
}

/// Accepted layers must give a tree, the same each time, and one that can be packed.
fn layers(tars: &[&[u8]]) {
    let Ok(laid) = lay(tars, LIMITS) else { return };
    assert_eq!(lay(tars, LIMITS).unwrap(), laid);
    assert!(laid.first().is_some_and(|root| root.path.is_empty() && root.kind == 'd'));
    for entry in laid.iter().skip(1) {
        check_entry(entry, &laid);
    }
    if let Err(error) = pack_accepts(tars, LIMITS).unwrap() {
        panic!("the packer refuses what the layers made: {error}");
    }
}

fn check_entry(entry: &Laid, all: &[Laid]) {
    let (folder, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&entry.path[..slash], &entry.path[slash + 1..]),
        None => (&[][..], &entry.path[..]),
    };
    assert!(!name.is_empty() && name != b"." && name != b".." && name.len() <= 255, "{entry:?}");
    assert!(!name.contains(&0) && !name.starts_with(b".wh."), "{entry:?}");
    let parent = all.binary_search_by(|other| other.path.as_slice().cmp(folder));
    assert!(parent.is_ok_and(|parent| all[parent].kind == 'd'), "{entry:?} is in no directory");
    assert!(entry.mode <= 0o7777 && (entry.kind != 'l' || (1..4096).contains(&entry.content.len())), "{entry:?}");
}

/// An archive must give a readable flist, or no output.
fn archive(bytes: &[u8]) {
    let scratch = Scratch::new();
    let (source, out) = (scratch.file("image.tar", bytes), scratch.path().join("out.fl"));
    let store = format!("dir://{}", scratch.path().join("store").display());
    let mut options = ImportOptions { limits: LIMITS, ..ImportOptions::default() };
    // One worker: starting several threads for each input would take most of the time.
    options.pack.workers = std::num::NonZeroUsize::new(1);
    match contd_image::import(&source, &out, &[store], &options, &|_| {}) {
        Ok(report) => {
            let flist = contd_flist::Flist::open(&out).unwrap();
            assert_eq!(flist.inode_count() as u64, report.pack.entries);
            contd_flist::ImageDefaults::from_tags(flist.tags()).unwrap();
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            assert!(!out.exists(), "a refused image has a flist");
        }
    }
}

/// Corrects the checksum of every header.
fn repair(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = tar.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&block[124..135]).ok().and_then(|size| u64::from_str_radix(size, 8).ok());
        let has_content = !matches!(block[156], b'1'..=b'6');
        if has_content && let Some(size) = size.and_then(|size| usize::try_from(size).ok()) {
            at = at.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK)).min(usize::MAX - BLOCK);
        }
    }
}
