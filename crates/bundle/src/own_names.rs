//! Writes `/etc/hosts` and `/etc/hostname` with the container's own name into its root, if its image has none or empty
//! ones. Base images have empty ones, because every engine fills them in.
//!
//! The files are in the container's writable layer: they count against its size, and the container may change them. A
//! read-only root has such a layer too, which the runtime makes read-only. Files with content, from an image or a kept
//! layer, are not changed. No file's content is read, because it might have to come from a store.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use contd_types::Shortage;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::root_file::{Inside, is_empty_file, reopen_for};

/// The mode of the files: every user in the container resolves names.
const MODE: u32 = 0o644;

/// One of the two files.
struct OwnFile {
    /// The path inside the container.
    place: &'static str,
    text: fn(&str) -> String,
}

const FILES: [OwnFile; 2] =
    [OwnFile { place: "/etc/hosts", text: hosts }, OwnFile { place: "/etc/hostname", text: hostname }];

/// Returns `/etc/hosts` with the container's name on 127.0.0.1, as podman has it without a network: contd knows no
/// other address of it.
fn hosts(name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{name}\n")
}

fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// Writes the files into a root with a writable layer, before any process uses it.
///
/// # Errors
/// The path and the error. A full layer is no error: then the files are missing.
pub(crate) fn write(root: &Path, container: &str) -> Result<(), (PathBuf, io::Error)> {
    for file in &FILES {
        match write_one(root, file, container) {
            Err(error) if Shortage::of(&error).is_none() => {
                return Err((root.join(file.place.trim_start_matches('/')), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write_one(root: &Path, file: &OwnFile, container: &str) -> io::Result<()> {
    let inside = Inside::open(root)?;
    // If the root is not a mount of the container's own, it holds another owner's files.
    if root == Path::new("/") || fstatvfs(inside.dir()).map_err(io::Error::from)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    // A loop, or a directory in the file's place: the image is odd or broken, and the container starts without the
    // file.
    let Ok(place) = inside.follow(Path::new(file.place)) else { return Ok(()) };
    let text = (file.text)(container);
    let found = match inside.open_plain(&place) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match inside.create(&place, MODE) {
            Ok(created) => return fill(&created, &text),
            // The target of a link is for the image to make, and a file used as a directory leads nowhere.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        },
        Err(_) => return Ok(()),
    };
    if !is_empty_file(&found) {
        return Ok(());
    }
    let opened = reopen_for(&found, File::options().write(true).truncate(true))?;
    fill(&opened, &text)
}

fn fill(mut file: &File, text: &str) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    /// Makes a root with `etc`, and beside it a file that must not change.
    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).expect("etc");
        fs::write(dir.path().join("outside"), "").expect("outside");
        (dir, root)
    }

    fn text(root: &Path, place: &str) -> String {
        fs::read_to_string(root.join(place)).expect(place)
    }

    #[test]
    fn a_root_without_or_with_empty_files_gets_them() {
        for is_there in [false, true] {
            let (_dir, root) = root();
            if is_there {
                fs::write(root.join("etc/hosts"), "").expect("hosts");
                fs::set_permissions(root.join("etc/hosts"), Permissions::from_mode(0o600)).expect("mode");
            }
            write(&root, "web").expect("write");
            assert_eq!(text(&root, "etc/hosts"), hosts("web"));
            assert_eq!(text(&root, "etc/hostname"), "web\n");
            assert_eq!(fs::metadata(root.join("etc/hosts")).expect("hosts").mode() & 0o7777, MODE);
        }
    }

    #[test]
    fn what_an_image_says_itself_stays() {
        let (_dir, root) = root();
        fs::write(root.join("etc/hosts"), "\n").expect("hosts");
        write(&root, "web").expect("write");
        assert_eq!((text(&root, "etc/hosts").as_str(), text(&root, "etc/hostname").as_str()), ("\n", "web\n"));
        write(&root, "other").expect("again");
        assert_eq!(text(&root, "etc/hostname"), "web\n");
    }

    #[test]
    fn a_link_of_the_image_does_not_lead_out() {
        let (dir, root) = root();
        let outside = dir.path().join("outside").display().to_string();
        for says in
            [outside.as_str(), "../../outside", "/../../../outside", "../../created", "/proc/self/root/etc/hosts"]
        {
            let link = root.join("etc/hosts");
            symlink(says, &link).expect("link");
            write(&root, "web").expect("write");
            assert_eq!(fs::read(dir.path().join("outside")).expect("outside"), b"", "{says}");
            assert!(!dir.path().join("created").exists(), "{says}");
            fs::remove_file(link).expect("remove");
        }
        // Inside the root, links are followed as usual.
        fs::create_dir(root.join("run")).expect("run");
        symlink("../run/hosts", root.join("etc/hosts")).expect("link");
        write(&root, "web").expect("write");
        assert_eq!(text(&root, "run/hosts"), hosts("web"));
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let (_dir, root) = root();
        fs::create_dir(root.join("etc/hosts")).expect("directory");
        nix::unistd::mkfifo(&root.join("etc/hostname"), nix::sys::stat::Mode::S_IRUSR).expect("fifo");
        write(&root, "web").expect("write");
        assert!(root.join("etc/hosts").is_dir() && !root.join("etc/hostname").is_file());
    }
}
