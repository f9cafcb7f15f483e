//! The disk as it is before the first boot: a tree, an image, and room.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use contd_test_harness::{busybox_tree, image};
use serde_json::json;

use super::machine::{FileSystem, Site};

/// Below the mount point in the node: a tree to pack, an image to import, and the flist of the tree with its store.
pub(super) const TREE: &str = "/data/seed/tree";
pub(super) const IMAGE: &str = "/data/seed/image.tar";
pub(super) const BASE: &str = "/data/flists/base.fl";
pub(super) const STORE: &str = "dir:///data/blocks";

/// Room for some hundred small flists and layers.
const DISK_BYTES: u64 = 3 << 30;
/// In three blocks.
const CONTENT_BYTES: usize = 1_200_000;

/// A file of the tree and the image: something that is not all zeros, and nothing that compresses to nothing.
fn content() -> Vec<u8> {
    let mut content = vec![0; CONTENT_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut content);
    content
}

/// The SHA-256 of the file `/content` of the tree and the image.
pub(super) fn content_sum() -> String {
    image::hex(&content())
}

/// Makes the disk.
///
/// # Errors
/// When a file cannot be written, or the file system not be made.
pub(super) fn make_disk(site: &Site) -> Result<(), String> {
    let (disk, files) = (site.disk(), site.dir.join("files"));
    write(&files).map_err(|error| format!("write {}: {error}", files.display()))?;
    let made = File::create(&disk).and_then(|file| file.set_len(DISK_BYTES));
    made.map_err(|error| format!("make {}: {error}", disk.display()))?;
    let (program, flags): (&str, &[&str]) = match site.file_system {
        FileSystem::Ext4 => ("mkfs.ext4", &["-q", "-d"]),
        FileSystem::Btrfs => ("mkfs.btrfs", &["-q", "--rootdir"]),
    };
    let status = Command::new(program).args(flags).args([&files, &disk]).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => {}
        other => return Err(format!("run {program}: {other:?}")),
    }
    fs::remove_dir_all(&files).map_err(|error| format!("remove {}: {error}", files.display()))
}

fn write(files: &Path) -> std::io::Result<()> {
    let seed = files.join("seed");
    for dir in ["seed/tree", "flists", "blocks", "stores", "unsynced", "marks"] {
        fs::create_dir_all(files.join(dir))?;
    }
    busybox_tree(&seed.join("tree"));
    fs::write(seed.join("tree/content"), content())?;
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", seed.join("tree"))?;
    let tar = tar.into_inner()?;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut layout = image::Layout::default();
    let run = json!({ "Cmd": ["/bin/sh"] });
    let manifest = layout.image(&[(tar, image::Form::Gzip)], ("linux", architecture), &run);
    layout.manifests.push(manifest);
    layout.write_tar(&seed);
    Ok(())
}
