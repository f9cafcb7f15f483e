//! Writes `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` into a container's root, if its image has none or empty ones, or if the
//! caller gave words for them. Base images have empty ones, because every engine fills them in.
//!
//! The files are in the container's writable layer: they count against its size, and the container may change them. A
//! read-only root has such a layer too, which the runtime makes read-only. Files with content, from an image or a kept
//! layer, are not changed, except by the caller's words, which are written at each start. No file's content is read, because it
//! might have to come from a store.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use contd_types::{ContainerSpec, Shortage};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::root_file::{Inside, is_empty_file, reopen_for};

/// The mode of the files: every user in the container resolves names.
const MODE: u32 = 0o644;

/// One of the files.
struct OwnFile {
    /// The path inside the container.
    place: &'static str,
    text: String,
    /// Whether it is the caller's, which is written whatever is there.
    is_given: bool,
}

/// Returns the files; `resolver` is the text of `/etc/resolv.conf`.
fn files(spec: &ContainerSpec, resolver: Option<String>) -> Vec<OwnFile> {
    let host = spec.hostname.as_deref().unwrap_or(spec.name.as_str());
    let mut files = vec![
        OwnFile { place: "/etc/hosts", text: hosts(host, spec), is_given: !spec.names.hosts.is_empty() },
        OwnFile { place: "/etc/hostname", text: format!("{host}\n"), is_given: spec.hostname.is_some() },
    ];
    files.extend(resolver.map(|text| OwnFile { place: "/etc/resolv.conf", text, is_given: spec.names.has_resolver() }));
    files
}

/// Returns `/etc/hosts` with the container's name on 127.0.0.1, as podman has it without a network: contd knows no
/// other address of it.
fn hosts(host: &str, spec: &ContainerSpec) -> String {
    let mut text = format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{host}\n");
    for other in &spec.names.hosts {
        text.push_str(&format!("{}\t{}\n", other.address, other.name));
    }
    text
}

/// Writes the files into a root with a writable layer, before any process uses it.
///
/// # Errors
/// The path and the error. A full layer is no error for a file that nobody gave words for: then it is missing.
pub(crate) fn write(root: &Path, spec: &ContainerSpec, resolver: Option<String>) -> Result<(), (PathBuf, io::Error)> {
    for file in &files(spec, resolver) {
        match write_one(root, file) {
            Err(error) if file.is_given || Shortage::of(&error).is_none() => {
                return Err((root.join(file.place.trim_start_matches('/')), error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn write_one(root: &Path, file: &OwnFile) -> io::Result<()> {
    let inside = Inside::open(root)?;
    // If the root is not a mount of the container's own, it holds another owner's files.
    if root == Path::new("/") || fstatvfs(inside.dir()).map_err(io::Error::from)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let path = Path::new(file.place);
    let unusual = match inside.follow(path) {
        Ok(place) => match inside.open_plain(&place) {
            Ok(found) if is_empty_file(&found) || file.is_given && found.metadata()?.is_file() => {
                return fill(&reopen_for(&found, File::options().write(true).truncate(true))?, &file.text);
            }
            // It has content of the image, or is no file at all.
            Ok(_) if !file.is_given => return Ok(()),
            Ok(_) => io::Error::from(io::ErrorKind::AlreadyExists),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match inside.create(&place, MODE) {
                Ok(created) => return fill(&created, &file.text),
                // The target of a link is for the image to make, and a file used as a directory leads nowhere.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => error,
                Err(error) => return Err(error),
            },
            Err(error) => error,
        },
        // A loop: the image is odd or broken, and the container starts without the file.
        Err(error) => error,
    };
    if !file.is_given {
        return Ok(());
    }
    // A link into what the image's own services would make, as of systemd-resolved: the caller's words stand in its place.
    inside.remove_link(path).map_err(|_not_a_link| unusual)?;
    fill(&inside.create(path, MODE)?, &file.text)
}

fn fill(mut file: &File, text: &str) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::{MODE, Path, PathBuf, io};
    use contd_types::{ContainerName, ContainerSpec};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    /// Makes a root with `etc`, and beside it a file that must not change.
    fn root() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).expect("etc");
        fs::write(dir.path().join("outside"), "").expect("outside");
        (dir, root)
    }

    fn spec(name: &str) -> ContainerSpec {
        ContainerSpec::new(ContainerName::new(name).expect("valid"), "/x.fl")
    }

    /// Writes the files of a container that asks for nothing.
    fn write(root: &Path, name: &str) -> Result<(), (PathBuf, io::Error)> {
        super::write(root, &spec(name), None)
    }

    fn hosts(name: &str) -> String {
        super::hosts(name, &spec(name))
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

    #[test]
    fn the_callers_words_are_written_whatever_is_there() {
        let (dir, root) = root();
        let mut spec = spec("web");
        spec.hostname = Some("front.example".to_owned());
        spec.names.hosts = vec!["db:192.0.2.1".parse().expect("a host")];
        spec.names.options = vec!["ndots:2".to_owned()];
        let put = || super::write(&root, &spec, Some("options ndots:2\n".to_owned()));
        fs::write(root.join("etc/hosts"), "192.0.2.9 of-the-image\n").expect("hosts");
        symlink("../run/systemd/resolve/stub-resolv.conf", root.join("etc/resolv.conf")).expect("link");
        for _start in 0..2 {
            put().expect("written");
            assert!(text(&root, "etc/hosts").ends_with("127.0.0.1\tfront.example\n192.0.2.1\tdb\n"));
            assert_eq!(text(&root, "etc/hostname"), "front.example\n");
            assert_eq!(text(&root, "etc/resolv.conf"), "options ndots:2\n");
        }
        // Neither out of the root, nor over a directory.
        fs::remove_file(root.join("etc/resolv.conf")).expect("removed");
        symlink("../../outside", root.join("etc/resolv.conf")).expect("link");
        put().expect("written");
        assert_eq!(fs::read(dir.path().join("outside")).expect("outside"), b"");
        fs::remove_file(root.join("etc/hosts"))
            .and_then(|()| fs::create_dir(root.join("etc/hosts")))
            .expect("a directory");
        assert!(put().expect_err("no file").0.ends_with("etc/hosts"));
    }

    #[test]
    fn a_resolver_that_was_found_stands_only_where_the_image_has_none() {
        let (_dir, root) = root();
        let put = |words: &str| super::write(&root, &spec("web"), Some(words.to_owned())).expect("written");
        put("nameserver 192.0.2.1\n");
        put("nameserver 192.0.2.2\n");
        assert_eq!(text(&root, "etc/resolv.conf"), "nameserver 192.0.2.1\n");
    }
}
