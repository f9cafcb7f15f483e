//! Recognizes files that are not supported images, and suggests the command that makes an image or a flist from each.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::ImportError;
use crate::layout::Layout;

/// The store in suggested commands, as in the documentation.
const STORE: &str = "--store dir:///var/store";

/// The bytes of a file that are examined: the magic number of a tar is at offset 257.
const HEAD_BYTES: usize = 512;

/// Directories by which the root file system of a machine is recognized.
const ROOT_FOLDERS: [&str; 3] = ["etc", "usr", "bin"];

/// The kind of a file, directory or name that was given in place of a flist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAFlist {
    /// The kind, as a noun phrase.
    pub what: &'static str,
    /// A command that makes a flist from it and runs that, or another next step.
    pub hint: String,
}

/// Returns the error for a file that is not a tar.
pub(super) fn of_file(path: &Path, file: &File) -> ImportError {
    let mut head = [0; HEAD_BYTES];
    let len = file.read_at(&mut head, 0).unwrap_or_default();
    let head = head.get(..len).unwrap_or_default();
    let shown = quoted(path.as_os_str());
    let compressed =
        |tool: &str| format!("decompress it first: {tool} -dc {shown} > {}", quoted(plain_name(path).as_os_str()));
    let (what, hint) = match head {
        [0x1f, 0x8b, ..] => ("an archive that is compressed with gzip", compressed("gzip")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ("an archive that is compressed with zstd", compressed("zstd")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("an archive that is compressed with xz", compressed("xz")),
        [b'B', b'Z', b'h', ..] => ("an archive that is compressed with bzip2", compressed("bzip2")),
        _ if head.starts_with(b"SQLite format 3\0") => {
            ("a flist already", format!("run it as it is: contd run {shown}"))
        }
        _ if head.starts_with(b"hsqs") => {
            let tree = quoted(path.with_extension("tree").as_os_str());
            (
                "a squashfs file system",
                format!("unpack it, and pack the tree: unsquashfs -d {tree} {shown} && {}", pack(&tree)),
            )
        }
        _ => return ImportError::NotAnImage { path: path.to_owned() },
    };
    ImportError::OddForm { path: path.to_owned(), what, advice: hint }
}

/// Returns the error for a directory or a tar without the documents of an image.
pub(super) fn named(layout: &Layout, path: &Path) -> ImportError {
    let shown = quoted(path.as_os_str());
    let is_root = ROOT_FOLDERS.iter().any(|folder| layout.has_folder(folder));
    let (what, advice) = match layout {
        _ if layout.has("repositories") => {
            let again = quoted(path.with_extension("new.tar").as_os_str());
            (
                "an archive of `docker save` before version 1.10",
                format!("load and save it again: docker load -i {shown} && docker save -o {again} NAME"),
            )
        }
        Layout::Folder(_) if is_root => ("a file system, not an image", format!("pack it: {}", pack(&shown))),
        Layout::Archive { .. } if is_root => {
            let tree = quoted(path.with_extension("tree").as_os_str());
            (
                "a file system, as `docker export` writes it, not an image",
                format!("unpack it, and pack the tree: mkdir {tree} && tar -xpf {shown} -C {tree} && {}", pack(&tree)),
            )
        }
        _ => return ImportError::NotAnImage { path: path.to_owned() },
    };
    ImportError::OddForm { path: path.to_owned(), what, advice }
}

/// Suggests a command for a source that does not exist: it may be a name in a registry, or a path in skopeo's notation.
pub(super) fn hint_for_missing(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    for transport in ["oci:", "oci-archive:", "docker-archive:", "dir:"] {
        let Some(rest) = text.strip_prefix(transport) else { continue };
        let (place, name) = match rest.rsplit_once(':') {
            Some((place, name)) if !name.contains('/') => (place, format!(" --ref {}", quoted(OsStr::new(name)))),
            _ => (rest, String::new()),
        };
        return Some(format!("name the path alone: {}{name}", import(place)));
    }
    let name = reference(text)?;
    Some(format!("contd pulls no images; with skopeo: {}", pull(&name)))
}

/// Recognizes an image, its archive, its name or a directory that was given in place of a flist.
#[must_use]
pub fn look_for_image(text: &str) -> Option<NotAFlist> {
    let path = Path::new(text);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Some(match Layout::open(path) {
            Ok(layout) if ["oci-layout", "index.json", "manifest.json"].iter().any(|name| layout.has(name)) => {
                NotAFlist { what: "the layout of a container image", hint: made_and_run(text) }
            }
            _ => {
                let full = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                NotAFlist {
                    what: "a directory",
                    hint: format!("run it as it is: contd run dir:{}", quoted(full.as_os_str())),
                }
            }
        }),
        Ok(metadata) if metadata.is_file() => {
            // A file that cannot be read here is left to the daemon. O_NONBLOCK: the path may have become a pipe.
            let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).ok()?;
            let mut head = [0; HEAD_BYTES];
            let len = file.read_at(&mut head, 0).unwrap_or_default();
            let is_tar = head.get(..len)?.get(257..262) == Some(b"ustar");
            is_tar.then(|| NotAFlist { what: "an archive of a container image", hint: made_and_run(text) })
        }
        Ok(_) => None,
        Err(_not_there) => {
            if let Some(rest) =
                ["oci:", "oci-archive:", "docker-archive:"].iter().find_map(|transport| text.strip_prefix(transport))
            {
                let place = rest.rsplit_once(':').map_or(rest, |(place, _name)| place);
                return Some(NotAFlist { what: "a container image", hint: made_and_run(place) });
            }
            let name = reference(text)?;
            let fl = format!("{}.fl", short(&name));
            Some(NotAFlist {
                what: "the name of a container image",
                hint: format!("make a flist of it: {} && contd run {fl}", pull(&name)),
            })
        }
    }
}

/// Completes a registry name; `None` for a text that is rather a path.
fn reference(text: &str) -> Option<String> {
    let given = text.strip_prefix("docker://");
    let name = given.unwrap_or(text);
    let is_path = given.is_none()
        && (name.starts_with(['/', '.'])
            || name.starts_with("dir:")
            || name.starts_with("file:")
            || name.ends_with(".fl")
            || name.ends_with(".flist")
            || name.ends_with(".tar"));
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    let (path, _tag) = name.rsplit_once(['@', ':']).filter(|(_, tag)| !tag.contains('/')).unwrap_or((name, ""));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    // A scheme such as `dir:/x` is not a host with a port.
    let is_host = |host: &str| host.split_once(':').is_none_or(|(_, port)| is_port(port));
    let is_path = is_path
        || !path.split_once('/').map_or(!path.contains(':'), |(host, rest)| is_host(host) && !rest.contains(':'));
    let has_upper = path.rsplit('/').next().is_some_and(|last| last.contains(|c: char| c.is_ascii_uppercase()));
    if is_path || name.is_empty() || name.contains("//") || has_upper || !name.chars().all(is_fit) {
        return None;
    }
    Some(crate::choose::whole(name))
}

/// Returns the last component of a registry name, for use in file names.
fn short(name: &str) -> &str {
    name.rsplit('/').next().and_then(|last| last.split([':', '@']).next()).unwrap_or("image")
}

fn pull(name: &str) -> String {
    let folder = short(name);
    format!("skopeo copy docker://{name} oci:{folder}-image && contd flist import {folder}-image {folder}.fl {STORE}")
}

fn pack(tree: &str) -> String {
    format!("contd flist pack {tree} OUT.fl {STORE}")
}

fn import(place: &str) -> String {
    let fl = Path::new(place).with_extension("fl");
    format!(
        "contd flist import {} {} {STORE}",
        quoted(OsStr::new(place)),
        quoted(fl.file_name().unwrap_or(OsStr::new("OUT.fl")))
    )
}

fn made_and_run(place: &str) -> String {
    let place = place.trim_end_matches('/');
    let fl = Path::new(place).with_extension("fl");
    let fl = fl.file_name().unwrap_or(OsStr::new("OUT.fl"));
    let fl = if fl == ".fl" { OsStr::new("image.fl") } else { fl };
    let made = format!("contd flist import {} {} {STORE}", quoted(OsStr::new(place)), quoted(fl));
    format!("make a flist of it: {made} && contd run {}", quoted(fl))
}

/// Returns the name of an archive without the suffix of its compression.
fn plain_name(path: &Path) -> std::path::PathBuf {
    match path.extension().and_then(OsStr::to_str) {
        Some("gz" | "zst" | "xz" | "bz2")
            if path.file_stem().is_some_and(|stem| Path::new(stem).extension().is_some()) =>
        {
            path.with_extension("")
        }
        _ => path.with_extension("plain.tar"),
    }
}

/// Quotes a path for a shell.
fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | '@' | '=' | ',');
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.into_owned();
    }
    let dashed = if text.starts_with('-') { format!("./{text}") } else { text.into_owned() };
    format!("'{}'", dashed.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_registries_are_told_from_paths() {
        let whole = |text| reference(text).unwrap_or_default();
        assert_eq!(whole("nginx"), "docker.io/library/nginx:latest");
        assert_eq!(whole("docker.io/library/nginx:1.25"), "docker.io/library/nginx:1.25");
        assert_eq!(whole("docker://quay.io/a/b"), "quay.io/a/b:latest");
        assert_eq!(whole("host:5000/a"), "host:5000/a:latest");
        for path in [
            "",
            "/srv/x",
            "./nginx",
            "nginx.fl",
            "a b",
            "x.tar",
            "Nginx",
            "http://h/x",
            "zdb://h/x",
            "dir:/x",
            "dir:x",
            "file:///x",
            "a:b/c:d/e",
        ] {
            assert_eq!(reference(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted(OsStr::new("/a/b-1.fl")), "/a/b-1.fl");
        assert_eq!(quoted(OsStr::new("a b's")), "'a b'\\''s'");
        assert_eq!(quoted(OsStr::new("-x")), "'./-x'");
        assert_eq!(quoted(OsStr::new("")), "''");
    }

    #[test]
    fn an_image_in_place_of_a_flist_is_recognized_with_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(at("image dir/blobs")).unwrap();
        fs::write(at("image dir/oci-layout"), "{}").unwrap();
        let seen = look_for_image(&at("image dir")).unwrap();
        assert_eq!(seen.what, "the layout of a container image");
        let expected = format!(
            "contd flist import '{}' 'image dir.fl' --store dir:///var/store && contd run 'image dir.fl'",
            at("image dir")
        );
        assert!(seen.hint.ends_with(&expected), "{}", seen.hint);
        fs::create_dir(at("plain")).unwrap();
        assert!(look_for_image(&at("plain")).unwrap().hint.contains(" contd run dir:/"));
        let mut tar = vec![0; 1024];
        tar[257..262].copy_from_slice(b"ustar");
        fs::write(at("x.tar"), tar).unwrap();
        assert!(look_for_image(&at("x.tar")).unwrap().hint.contains(" x.fl "));
        fs::write(at("x.fl"), "SQLite format 3\0").unwrap();
        assert_eq!(look_for_image(&at("x.fl")), None);
        assert_eq!(look_for_image(&at("none.fl")), None);
        let pulled = look_for_image("docker.io/library/nginx:1.25").unwrap().hint;
        let expected = "skopeo copy docker://docker.io/library/nginx:1.25 oci:nginx-image && \
            contd flist import nginx-image nginx.fl --store dir:///var/store && contd run nginx.fl";
        assert!(pulled.ends_with(expected), "{pulled}");
        assert_eq!(look_for_image("http://host/oci:x.fl"), None);
        assert!(look_for_image("oci:img:latest").unwrap().hint.contains("import img img.fl"));
    }
}
