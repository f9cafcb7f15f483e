//! Tests of layers over one another: each rule by example, all rules against a naive oracle, and hostile layers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tar::{EntryType, Header};

use crate::layer::{ImportLimits, LayerError};
use crate::path::Fault;
use crate::testing::{Laid, lay, pack_accepts};

/// Builds a tar.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(self, entry_type: EntryType, path: &[u8], link: &[u8], content: &[u8], meta: (u32, u64, u64)) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        let (mode, id, mtime) = meta;
        header.set_mode(mode);
        header.set_uid(id);
        header.set_gid(id + 1);
        header.set_mtime(mtime);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.raw(&header, content)
    }

    fn raw(mut self, header: &Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path.as_bytes(), b"", content.as_bytes(), (0o644, 0, 7))
    }

    fn directory(self, path: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, path.as_bytes(), b"", b"", (mode, 0, 7))
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path.as_bytes(), target.as_bytes(), b"", (0o777, 0, 7))
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path.as_bytes(), target.as_bytes(), b"", (0o644, 0, 7))
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn tar() -> Tar {
    Tar::default()
}

fn laid(layers: &[Vec<u8>]) -> Result<Vec<Laid>, LayerError> {
    let layers = layers.iter().map(Vec::as_slice).collect::<Vec<_>>();
    lay(&layers, ImportLimits { image_bytes: 1 << 20, file_bytes: 1 << 19, entries: 1000 })
}

/// Shows each entry but the root as `path=content`, directories as `path/mode`.
#[track_caller]
fn shown(layers: impl IntoIterator<Item = Tar>) -> Vec<String> {
    let layers = layers.into_iter().map(Tar::end).collect::<Vec<_>>();
    let mut all = laid(&layers).unwrap();
    all.remove(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    all.iter()
        .map(|entry| match entry.kind {
            'd' => format!("{}/{:o}", text(&entry.path), entry.mode),
            'f' => format!("{}={}", text(&entry.path), text(&entry.content)),
            kind => format!("{}={kind}:{}", text(&entry.path), text(&entry.content)),
        })
        .collect()
}

#[track_caller]
fn fault(layers: impl IntoIterator<Item = Tar>) -> Fault {
    let layers = layers.into_iter().map(Tar::end).collect::<Vec<_>>();
    match laid(&layers) {
        Err(LayerError::Entry { source, .. }) => source,
        other => panic!("not a fault of an entry: {other:?}"),
    }
}

#[test]
fn a_whiteout_hides_a_file_and_a_whole_directory_of_lower_layers() {
    let lower = || tar().file("a", "1").directory("d", 0o700).file("d/x", "2").file("d/y", "3");
    assert_eq!(shown([lower(), tar().file(".wh.a", "")]), ["d/700", "d/x=2", "d/y=3"]);
    assert_eq!(shown([lower(), tar().file("d/.wh.x", "")]), ["a=1", "d/700", "d/y=3"]);
    assert_eq!(shown([lower(), tar().file(".wh.d", "")]), ["a=1"]);
    assert_eq!(shown([lower(), tar().file(".wh.none", "").file("none/.wh.x", "")]).len(), 4);
}

#[test]
fn a_whiteout_never_hides_an_entry_of_its_own_layer() {
    let lower = || tar().file("a", "old").directory("d", 0o700).file("d/x", "old");
    for upper in [tar().file(".wh.a", "").file("a", "new"), tar().file("a", "new").file(".wh.a", "")] {
        assert_eq!(shown([lower(), upper]), ["a=new", "d/700", "d/x=old"]);
    }
    let (hide, new) = (tar().file(".wh.d", "").directory("d", 0o711), tar().directory("d", 0o711));
    assert_eq!(shown([lower(), hide.file("d/y", "new")]), ["a=old", "d/711", "d/y=new"]);
    assert_eq!(shown([lower(), new.file("d/y", "new").file(".wh.d", "")]), ["a=old", "d/711", "d/y=new"]);
}

#[test]
fn an_opaque_directory_hides_what_was_in_it_wherever_the_mark_stands() {
    let lower = || tar().directory("d", 0o700).file("d/x", "old").directory("d/e", 0o700).file("d/e/z", "old");
    let before = tar().file("d/.wh..wh..opq", "").file("d/y", "new");
    let after = tar().directory("d", 0o750).file("d/y", "new").file("d/.wh..wh..opq", "");
    assert_eq!(shown([lower(), before]), ["d/700", "d/y=new"]);
    assert_eq!(shown([lower(), after]), ["d/750", "d/y=new"]);
    assert_eq!(shown([lower(), tar().file(".wh..wh..opq", "").file("n", "1")]), ["n=1"]);
}

#[test]
fn a_directory_replaces_a_file_and_back() {
    let file = || tar().file("a", "1");
    let directory = || tar().directory("a", 0o700).file("a/x", "2");
    assert_eq!(shown([file(), directory()]), ["a/700", "a/x=2"]);
    assert_eq!(shown([directory(), file()]), ["a=1"]);
    assert_eq!(shown([file(), directory(), file(), tar().file("a/y", "3")]), ["a/755", "a/y=3"]);
    // A directory over a directory replaces the metadata and keeps the children.
    assert_eq!(shown([directory(), tar().directory("a/", 0o711)]), ["a/711", "a/x=2"]);
    // A directory with the name of a link replaces the link.
    assert_eq!(shown([tar().symlink("a", "b"), directory()]), ["a/700", "a/x=2"]);
}

/// The layers that real buildah, podman, skopeo and umoci wrote for `rm link; mkdir link`, with the mark in every place.
#[test]
fn a_directory_in_the_place_of_a_link_leaves_alone_what_the_link_pointed_to() {
    let lower = || tar().directory("real", 0o700).file("real/keep", "kept").symlink("link", "real");
    let expected = ["link/711", "link/new=new", "real/700", "real/keep=kept"];
    let (made, mark, new) = (("d", "link"), ("m", "link/.wh..wh..opq"), ("f", "link/new"));
    for order in [[made, mark, new], [mark, made, new], [new, made, mark], [made, new, mark], [mark, new, made]] {
        let upper = order.iter().fold(tar(), |tar, (kind, path)| match *kind {
            "d" => tar.directory(path, 0o711),
            "m" => tar.file(path, ""),
            _ => tar.file(path, "new"),
        });
        assert_eq!(shown([lower(), upper]), expected, "{order:?}");
    }
    // The mark alone implies a directory; a whiteout of one name in it means that directory too.
    let alone = tar().file("link/.wh..wh..opq", "").file("link/new", "new");
    assert_eq!(shown([lower(), alone]), ["link/755", "link/new=new", "real/700", "real/keep=kept"]);
    for upper in [
        tar().directory("link", 0o711).file("link/.wh.keep", ""),
        tar().file("link/.wh.keep", "").directory("link", 0o711),
    ] {
        assert_eq!(shown([lower(), upper]), ["link/711", "real/700", "real/keep=kept"]);
    }
    // The same deeper, also where the path leads through a link that stays.
    let deep = || lower().directory("d", 0o700).symlink("d/l", "/real").symlink("way", "d");
    let upper = tar().directory("way/l", 0o711).file("way/l/.wh..wh..opq", "").file("way/l/.wh.keep", "");
    assert_eq!(shown([deep(), upper]), ["d/700", "d/l/711", "link=l:real", "real/700", "real/keep=kept", "way=l:d"]);
}

#[test]
fn hiding_a_link_also_closes_the_path_through_it() {
    let lower = || tar().directory("real", 0o700).file("real/keep", "kept").symlink("link", "real");
    let kept = ["real/700", "real/keep=kept"];
    // A whiteout of a link hides the link, and whiteouts below the link have no effect.
    for upper in
        [tar().file(".wh.link", "").file("link/.wh.keep", ""), tar().file("link/.wh.keep", "").file(".wh.link", "")]
    {
        assert_eq!(shown([lower(), upper]), kept);
    }
    let (below, hide) = (|tar: Tar| tar.file("link/new", "new"), |tar: Tar| tar.file(".wh.link", ""));
    for upper in [below(hide(tar())), hide(below(tar()))] {
        assert_eq!(shown([lower(), upper]), ["link/755", "link/new=new", "real/700", "real/keep=kept"]);
    }
    // A link hidden by an opaque directory is not followed either.
    let inside =
        || tar().directory("real", 0o700).file("real/keep", "kept").directory("d", 0o700).symlink("d/l", "/real");
    for upper in [
        tar().file("d/.wh..wh..opq", "").file("d/l/.wh.keep", ""),
        tar().file("d/l/.wh.keep", "").file("d/.wh..wh..opq", ""),
    ] {
        assert_eq!(shown([inside(), upper]), ["d/700", "real/700", "real/keep=kept"]);
    }
    // A link that stays is followed, as docker and containerd do it.
    assert_eq!(shown([lower(), tar().file("link/.wh.keep", "")]), ["link=l:real", "real/700"]);
    assert_eq!(
        shown([lower(), tar().file("link/new", "new")]),
        ["link=l:real", "real/700", "real/keep=kept", "real/new=new"]
    );
}

#[test]
fn a_hard_link_to_what_its_own_layer_replaces_has_the_content_of_before() {
    let lower = || tar().file("a", "1").directory("d", 0o700).file("d/x", "2");
    assert_eq!(shown([lower(), tar().hard_link("b", "a").directory("a", 0o711)]), ["a/711", "b=1", "d/700", "d/x=2"]);
    assert_eq!(shown([lower(), tar().hard_link("b", "d/x").file("d", "3")]), ["a=1", "b=2", "d=3"]);
    assert_eq!(shown([lower(), tar().hard_link("d/x", "a")]), ["a=1", "d/700", "d/x=1"]);
}

#[test]
fn a_hard_link_is_a_file_of_its_own_also_to_a_lower_layer() {
    let lower = || tar().file("a", "1").symlink("s", "a");
    assert_eq!(shown([lower(), tar().hard_link("b", "/a")]), ["a=1", "b=1", "s=l:a"]);
    assert_eq!(shown([lower(), tar().hard_link("b", "a").file("a", "2")]), ["a=2", "b=1", "s=l:a"]);
    assert_eq!(shown([lower(), tar().hard_link("b", "s").file(".wh.a", "")]), ["b=l:a", "s=l:a"]);
    assert_eq!(shown([lower(), tar().hard_link("a", "a")]), ["a=1", "s=l:a"]);
}

#[test]
fn hard_links_to_nothing_to_a_directory_or_in_a_circle_are_refused() {
    let link = |path: &str, target: &str| tar().directory("d", 0o755).hard_link(path, target);
    assert_eq!(fault([link("a", "none")]), Fault::NoLinkTarget);
    assert_eq!(fault([link("a", "a")]), Fault::NoLinkTarget);
    assert_eq!(fault([link("a", "b").hard_link("b", "a")]), Fault::NoLinkTarget);
    assert_eq!(fault([link("a", "d")]), Fault::LinkToDirectory);
    assert_eq!(fault([link("a", "/")]), Fault::NoLinkTarget);
    assert_eq!(fault([link("a", "../../etc/passwd")]), Fault::DotDot);
    assert_eq!(fault([tar().file("a", "1"), tar().file(".wh.a", "").hard_link("b", "a")]), Fault::NoLinkTarget);
}

#[test]
fn links_on_the_way_are_followed_inside_the_tree() {
    let lower = || tar().directory("usr", 0o755).directory("usr/lib", 0o711).symlink("lib", "usr/lib");
    assert_eq!(shown([lower(), tar().file("lib/x", "1")]), ["lib=l:usr/lib", "usr/755", "usr/lib/711", "usr/lib/x=1"]);
    let whited = [lower().file("usr/lib/x", "1"), tar().file("lib/.wh.x", "")];
    assert_eq!(shown(whited), ["lib=l:usr/lib", "usr/755", "usr/lib/711"]);
    // Links that would leave the root end at the root.
    let escape = |target: &str| [tar().symlink("out", target), tar().file("out/x", "1")];
    assert_eq!(shown(escape("../../../etc")), ["etc/755", "etc/x=1", "out=l:../../../etc"]);
    assert_eq!(shown(escape("/")), ["out=l:/", "x=1"]);
    assert_eq!(fault([tar().symlink("a", "b").symlink("b", "a"), tar().file("a/x", "1")]), Fault::TooManyLinks);
    assert_eq!(fault([tar().symlink("a", "a/a"), tar().file("a/x", "1")]), Fault::TooManyLinks);
}

#[test]
fn the_last_of_two_entries_of_one_name_counts() {
    assert_eq!(shown([tar().file("a", "1").file("./a", "2")]), ["a=2"]);
    assert_eq!(shown([tar().file("a", "1").file("/a/b", "2")]), ["a/755", "a/b=2"]);
}

#[test]
fn the_root_can_be_described_but_not_replaced() {
    let root = |layers: &[Vec<u8>]| laid(layers).unwrap().remove(0);
    let described = tar().directory("./", 0o1777).end();
    assert_eq!(root(&[described]).mode, 0o1777);
    assert_eq!(fault([tar().file(".", "")]), Fault::RootNotDirectory);
    assert_eq!(fault([tar().symlink("/", "x")]), Fault::RootNotDirectory);
}

#[test]
fn hostile_names_are_refused() {
    assert_eq!(fault([tar().file("../x", "")]), Fault::DotDot);
    assert_eq!(fault([tar().file("a/../../x", "")]), Fault::DotDot);
    assert_eq!(fault([tar().file(".wh...", "")]), Fault::BadWhiteout);
    assert_eq!(fault([tar().file(".wh.", "")]), Fault::BadWhiteout);
    assert_eq!(fault([tar().file(".wh.a/b", "")]), Fault::BadWhiteout);
    assert_eq!(fault([tar().symlink("a", "")]), Fault::BadTarget);
    assert_eq!(shown([tar().file(".wh..wh.plnk/1", "x").file("a", "1")]), ["a=1"]);
}

#[test]
fn an_entry_keeps_all_that_a_flist_can_hold() {
    let mut device = Header::new_gnu();
    device.set_entry_type(EntryType::Char);
    device.set_path("null").unwrap();
    device.set_mode(0o620);
    device.set_uid(3);
    device.set_gid(5);
    device.set_mtime(u64::MAX);
    device.set_size(0);
    device.set_device_major(4).unwrap();
    device.set_device_minor(300).unwrap();
    device.set_cksum();
    let su = (0o4755, 70_000, 1 << 33);
    let layer = tar().raw(&device, b"").add(EntryType::Regular, b"su", b"", b"x", su);
    let laid = laid(&[layer.add(EntryType::Fifo, b"pipe", b"", b"", (0o600, 0, 0)).end()]).unwrap();
    let got = laid.iter().map(|of| (of.kind, of.mode, of.uid, of.gid, of.mtime)).collect::<Vec<_>>();
    let expected =
        [('d', 0o755, 0, 0, 0), ('c', 0o620, 3, 5, -1), ('p', 0o600, 0, 1, 0), ('f', 0o4755, 70_000, 70_001, 1 << 33)];
    assert_eq!(got, expected);
    assert_eq!(laid[1].content, nix::sys::stat::makedev(4, 300).to_string().into_bytes());
}

#[test]
fn limits_end_a_bomb_before_it_is_written() {
    let layers = |tar: Tar| vec![tar.end()];
    let big = "x".repeat((1 << 19) + 1);
    assert!(matches!(laid(&layers(tar().file("a", &big))), Err(LayerError::FileTooLarge { .. })));
    let half = "x".repeat(1 << 19);
    let three = tar().file("a", &half).file("a", &half).file("a", "1");
    assert!(matches!(laid(&layers(three)), Err(LayerError::ImageTooLarge { .. })));
    let many = (0..1001).fold(tar(), |tar, number| tar.file(&format!("f{number}"), ""));
    assert_eq!(fault([many]), Fault::TooMany { limit: 1000 });
    let deep = "d/".repeat(45);
    let mut chain = tar().file(&format!("{deep}x"), "");
    for number in 0..12 {
        let name = format!("l{number}");
        let target = if number == 0 { deep.clone() } else { format!("l{}/{deep}", number - 1) };
        chain = chain.symlink(&name, &target).file(&format!("{name}/x"), "");
    }
    assert_eq!(fault([chain]), Fault::TooDeep);
    // The size of this sparse file is the largest possible number.
    let mut sparse = Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_path("s").unwrap();
    sparse.set_size(0);
    sparse.set_mode(0o644);
    sparse.set_uid(0);
    sparse.set_gid(0);
    sparse.set_mtime(0);
    sparse.as_gnu_mut().unwrap().set_real_size(u64::MAX >> 1);
    sparse.set_cksum();
    assert!(matches!(laid(&layers(tar().raw(&sparse, b""))), Err(LayerError::FileTooLarge { .. })));
}

#[test]
fn a_broken_tar_is_an_error_at_every_length() {
    let whole = tar().directory("d", 0o755).file("d/a", &"x".repeat(700)).hard_link("b", "d/a").end();
    let body = whole.len() - 1024;
    for end in 0..body {
        let got = laid(&[whole[..end].to_vec()]);
        // A tar cut between two members is a valid shorter tar; the padding of the last member may be missing.
        let is_between = [0, 512].contains(&end) || (1724..=2048).contains(&end);
        assert_eq!(got.is_ok(), is_between, "{end}: {got:?}");
    }
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    assert!(matches!(laid(&[flipped]), Err(LayerError::Tar { .. })));
    let junk = [whole[..512].to_vec(), vec![0; 512], whole[512..].to_vec()].concat();
    assert!(matches!(laid(&[junk]), Err(LayerError::Tar { .. })));
}

/// One entry of a random layer.
#[derive(Debug, Clone)]
enum Random {
    File(String, u8),
    Directory(String, u32),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String, String),
    Opaque(String),
}

fn random_path() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof!["a", "b", "c"], 1..4).prop_map(|names| names.join("/"))
}

fn random() -> impl Strategy<Value = Random> {
    let folder = || prop_oneof![Just(String::new()), random_path().prop_map(|path| path + "/")];
    prop_oneof![
        4 => (random_path(), any::<u8>()).prop_map(|(path, content)| Random::File(path, content)),
        4 => (random_path(), 0..0o7777_u32).prop_map(|(path, mode)| Random::Directory(path, mode)),
        2 => (random_path(), "(/|(\\.\\./){0,2})[abc](/[abc])?").prop_map(|(path, target)| Random::Symlink(path, target)),
        2 => (random_path(), random_path()).prop_map(|(path, target)| Random::HardLink(path, target)),
        2 => (folder(), "[abc]").prop_map(|(folder, name)| Random::Whiteout(folder, name)),
        1 => folder().prop_map(Random::Opaque),
    ]
}

/// The naive reference: a map of whole paths. Slow, simple, and independent of the model.
#[derive(Default)]
struct Oracle(BTreeMap<String, String>);

impl Oracle {
    /// Follows links by replacing them with their targets and starting again.
    fn real(&self, path: &str) -> Option<String> {
        let mut path = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        for _ in 0..=40 {
            let mut done: Vec<String> = Vec::new();
            let mut followed = None;
            for (at, name) in path.iter().enumerate() {
                if name == ".." {
                    done.pop();
                    continue;
                }
                done.push(name.clone());
                if let Some(target) = self.0.get(&done.join("/")).and_then(|what| what.strip_prefix("l:")) {
                    done.pop();
                    let base = if target.starts_with('/') { Vec::new() } else { done.clone() };
                    let target = target.split('/').filter(|name| !name.is_empty()).map(str::to_owned);
                    followed = Some(base.into_iter().chain(target).chain(path[at + 1..].iter().cloned()).collect());
                    break;
                }
            }
            match followed {
                Some(next) => path = next,
                None => return Some(done.join("/")),
            }
        }
        None
    }

    fn join(folder: &str, name: &str) -> String {
        if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
    }

    fn place(&self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        Some(Self::join(&self.real(folder)?, name))
    }

    fn remove_below(&mut self, folder: &str) {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.0.retain(|path, _| !path.starts_with(&prefix));
    }

    fn make_parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = path[..slash].to_owned();
            if !self.0.get(&parent).is_some_and(|what| what.starts_with("d:")) {
                self.0.insert(parent, "d:755".to_owned());
            }
        }
    }

    /// Applies a layer; `None` if the layer must be refused.
    fn lay(&mut self, layer: &[Random]) -> Option<()> {
        let depth = |path: &str| path.split('/').filter(|name| !name.is_empty()).count();
        for level in 0..=5 {
            for entry in layer {
                match entry {
                    Random::Whiteout(folder, name) if depth(folder) + 1 == level => {
                        let place = Self::join(&self.real(folder)?, name);
                        self.remove_below(&place);
                        self.0.remove(&place);
                    }
                    // The link of that name was removed a level above.
                    Random::Opaque(folder) if depth(folder) + 1 == level => {
                        let folder = self.place(folder.trim_end_matches('/'))?;
                        self.remove_below(&folder);
                    }
                    _ => {}
                }
            }
            for entry in layer {
                if let Random::Directory(path, _) | Random::Opaque(path) = entry
                    && depth(path) == level
                    && let Some(place) = self.place(path.trim_end_matches('/'))
                    && self.0.get(&place).is_some_and(|what| what.starts_with("l:"))
                {
                    self.0.insert(place, "d:755".to_owned());
                }
            }
        }
        for entry in layer {
            let (path, what) = match entry {
                Random::File(path, content) => (path, format!("f:{content}")),
                Random::Directory(path, mode) => (path, format!("d:{mode:o}")),
                Random::Symlink(path, target) => (path, format!("l:{target}")),
                Random::HardLink(path, target) => {
                    let what = self.0.get(&self.place(target)?)?;
                    (path, what.clone())
                }
                Random::Whiteout(..) | Random::Opaque(_) => continue,
            };
            if matches!(entry, Random::HardLink(..)) && what.starts_with("d:") {
                return None;
            }
            let place = self.place(path)?;
            self.make_parents(&place);
            if !what.starts_with("d:") || !self.0.get(&place).is_some_and(|old| old.starts_with("d:")) {
                self.remove_below(&place);
            }
            self.0.insert(place, what);
        }
        Some(())
    }
}

fn tar_of(layer: &[Random]) -> Tar {
    layer.iter().fold(tar(), |tar, entry| match entry {
        Random::File(path, content) => tar.file(path, &content.to_string()),
        Random::Directory(path, mode) => tar.directory(path, *mode),
        Random::Symlink(path, target) => tar.symlink(path, target),
        Random::HardLink(path, target) => tar.hard_link(path, target),
        Random::Whiteout(folder, name) => tar.file(&format!("{folder}.wh.{name}"), ""),
        Random::Opaque(folder) => tar.file(&format!("{folder}.wh..wh..opq"), ""),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn layers_make_the_tree_that_the_naive_reference_makes(
        layers in proptest::collection::vec(proptest::collection::vec(random(), 0..12), 1..4)
    ) {
        let mut oracle = Oracle::default();
        let expected = layers.iter().try_for_each(|layer| oracle.lay(layer)).map(|()| oracle.0);
        let tars = layers.iter().map(|layer| tar_of(layer).end()).collect::<Vec<_>>();
        let got = laid(&tars).ok().map(|laid| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            laid[1..].iter().map(|entry| {
                let what = if entry.kind == 'd' { format!("{:o}", entry.mode) } else { text(&entry.content) };
                (text(&entry.path), format!("{}:{what}", entry.kind))
            }).collect::<BTreeMap<_, _>>()
        });
        prop_assert_eq!(&got, &expected);
        if got.is_some() {
            let tars = tars.iter().map(Vec::as_slice).collect::<Vec<_>>();
            prop_assert!(pack_accepts(&tars, ImportLimits::default()).unwrap().is_ok());
        }
    }

    #[test]
    fn a_byte_that_changed_makes_it_an_error_or_another_tree(flip in any::<usize>()) {
        let mut bytes = tar().directory("d", 0o755).file("d/a", "content").hard_link("b", "d/a").end();
        let at = flip % bytes.len();
        bytes[at] = bytes[at].wrapping_add(1 + u8::try_from(flip % 255).unwrap());
        // Only the content has no checksum, and the checksum may end in a blank or a NUL.
        let is_content = (1024..1536).contains(&at) || at >= 2048 || (148..156).contains(&(at % 512));
        let got = lay(&[&bytes], ImportLimits { image_bytes: 1 << 20, file_bytes: 1 << 20, entries: 100 });
        prop_assert!(got.is_err() || is_content, "{at}");
    }
}
