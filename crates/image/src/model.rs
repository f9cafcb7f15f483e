//! The root file system of an image as a tree in memory, while layers are applied to it.
//!
//! Layers are never extracted, so a path can only lead through this tree. Symbolic links in the directories of a path are
//! followed inside the tree, as in a chroot.
//!
//! ```text
//! layer 1: entries ──put──> tree        layer 2: whiteouts ──hide──> tree, then entries ──put──> tree   ──> entries of pack
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use crate::path::{Fault, MAX_DEPTH, MAX_LINKS, components};
use crate::scratch::Extent;
use contd_flist::pack::{Entry, EntryKind, FileContent};

/// Metadata of directories without an entry in the image: as `mkdir -p` by root makes them.
const IMPLICIT: Meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

/// The most path components that are looked up for all entries of an image: a hundred each for two million entries.
/// Without this limit, the links of a small image could keep the lookups busy for hours.
const MAX_STEPS: u64 = 200_000_000;

/// The size of a directory, as `stat` usually reports it; there is no real directory to ask.
const DIRECTORY_BYTES: u64 = 4096;

type Name = Box<[u8]>;
type Children = BTreeMap<Name, Node>;

/// Metadata of every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

/// An entry that is not a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaf {
    File(Extent),
    Symlink(Arc<[u8]>),
    CharDevice(u64),
    BlockDevice(u64),
    Fifo,
}

/// One entry of a layer, as it is put into the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Directory(Meta),
    Leaf(Meta, Leaf),
    /// Becomes a separate file with the content of this path, which must exist already.
    HardLink(Vec<u8>),
}

#[derive(Debug)]
enum Node {
    Directory(Meta, Children),
    Leaf(Meta, Leaf),
}

/// The tree of an image.
#[derive(Debug)]
pub(super) struct Model {
    meta: Meta,
    children: Children,
    /// The number of entries ever added, and its limit.
    entries: usize,
    max_entries: usize,
    steps: u64,
}

impl Model {
    /// Makes a tree with an empty root.
    pub(super) fn new(max_entries: usize) -> Self {
        Self { meta: IMPLICIT, children: Children::new(), entries: 0, max_entries, steps: 0 }
    }

    /// Hides the entry that lower layers have under a name.
    pub(super) fn hide(&mut self, directory: &[&[u8]], name: &[u8]) -> Result<(), Fault> {
        if let Some(children) = self.find(directory)? {
            children.remove(name);
        }
        Ok(())
    }

    /// Hides all entries that lower layers have in a directory.
    /// If its last component is a link, that is not followed: see [`Self::unlink_for_directory`].
    pub(super) fn hide_children(&mut self, directory: &[&[u8]]) -> Result<(), Fault> {
        let Some((name, above)) = directory.split_last() else {
            self.children.clear();
            return Ok(());
        };
        if let Some(Node::Directory(_, children)) = self.find(above)?.and_then(|there| there.get_mut(*name)) {
            children.clear();
        }
        Ok(())
    }

    /// Replaces a lower layer's symbolic link by an empty directory, because the layer being applied has a directory
    /// at this path. That layer's entries below the path are meant for this directory, not for the link's target.
    pub(super) fn unlink_for_directory(&mut self, path: &[&[u8]]) -> Result<(), Fault> {
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        let there = match self.find(above) {
            // An entry of this layer may still replace the bad link; otherwise adding entries below it is refused later.
            Err(Fault::TooManyLinks | Fault::TooDeep) => None,
            found => found?,
        };
        if let Some(node @ Node::Leaf(_, Leaf::Symlink(_))) = there.and_then(|there| there.get_mut(*name)) {
            *node = Node::Directory(IMPLICIT, Children::new());
        }
        Ok(())
    }

    /// Adds an entry at its path. A directory over a directory replaces the metadata and keeps the children; any other entry
    /// replaces the existing one.
    pub(super) fn put(&mut self, path: &[&[u8]], item: Item) -> Result<(), Fault> {
        let Some((name, directory)) = path.split_last() else {
            return match item {
                Item::Directory(meta) => {
                    self.meta = meta;
                    Ok(())
                }
                _ => Err(Fault::RootNotDirectory),
            };
        };
        let node = match item {
            Item::Directory(meta) => Node::Directory(meta, Children::new()),
            Item::Leaf(meta, leaf) => Node::Leaf(meta, leaf),
            Item::HardLink(target) => self.linked(&target)?,
        };
        self.count(1)?;
        let children = self.make(directory)?;
        match (children.get_mut(*name), node) {
            (Some(Node::Directory(old, _)), Node::Directory(meta, _)) => *old = meta,
            (_, node) => {
                children.insert(Name::from(*name), node);
            }
        }
        Ok(())
    }

    /// Returns the entries for the packer; the content of files is in `content`. `None` if the paths exceed the limit.
    pub(super) fn into_entries(self, content: &Arc<File>, max_path_bytes: usize) -> Option<Vec<Entry>> {
        let mut path_bytes = 0_usize;
        let mut entries = vec![entry(Vec::new(), self.meta, EntryKind::Directory { size: DIRECTORY_BYTES })];
        let mut directories = vec![(Vec::new(), self.children)];
        while let Some((directory, children)) = directories.pop() {
            for (name, node) in children {
                let path = if directory.is_empty() { name.to_vec() } else { [directory.as_slice(), &name].join(&b'/') };
                let target = match &node {
                    Node::Leaf(_, Leaf::Symlink(target)) => target.len(),
                    _ => 0,
                };
                path_bytes = path_bytes.saturating_add(path.len()).saturating_add(target);
                if path_bytes > max_path_bytes {
                    return None;
                }
                match node {
                    Node::Directory(meta, children) => {
                        entries.push(entry(path.clone(), meta, EntryKind::Directory { size: DIRECTORY_BYTES }));
                        directories.push((path, children));
                    }
                    Node::Leaf(meta, leaf) => entries.push(entry(path, meta, kind(leaf, content))),
                }
            }
        }
        Some(entries)
    }

    /// Copies the target of a hard link. Like `link(2)`, does not follow the last component.
    fn linked(&mut self, target: &[u8]) -> Result<Node, Fault> {
        let target = components(target)?;
        let missing = Fault::NoLinkTarget;
        let Some((name, directory)) = target.split_last() else { return Err(missing) };
        match self.find(directory)?.and_then(|children| children.get(*name)) {
            Some(Node::Leaf(meta, leaf)) => Ok(Node::Leaf(*meta, leaf.clone())),
            Some(Node::Directory(..)) => Err(Fault::LinkToDirectory),
            None => Err(missing),
        }
    }

    fn count(&mut self, more: usize) -> Result<(), Fault> {
        self.entries = self.entries.saturating_add(more);
        if self.entries > self.max_entries { Err(Fault::TooMany { limit: self.max_entries }) } else { Ok(()) }
    }

    /// Finds an existing directory.
    fn find(&mut self, path: &[&[u8]]) -> Result<Option<&mut Children>, Fault> {
        let Some(real) = self.resolve(path, false)? else { return Ok(None) };
        let mut children = &mut self.children;
        for name in &real {
            match children.get_mut(name) {
                Some(Node::Directory(_, inside)) => children = inside,
                _ => return Ok(None),
            }
        }
        Ok(Some(children))
    }

    /// Finds a directory, and makes its missing components. A component that is not a directory is replaced by one.
    fn make(&mut self, path: &[&[u8]]) -> Result<&mut Children, Fault> {
        let real = self.resolve(path, true)?.unwrap_or_default();
        let (mut children, mut made) = (&mut self.children, 0_usize);
        for name in real {
            let node = children.entry(name).or_insert_with(|| {
                made += 1;
                Node::Directory(IMPLICIT, Children::new())
            });
            if matches!(node, Node::Leaf(..)) {
                *node = Node::Directory(IMPLICIT, Children::new());
            }
            match node {
                Node::Directory(_, inside) => children = inside,
                // Unreachable: a leaf was replaced above.
                Node::Leaf(..) => return Err(Fault::RootNotDirectory),
            }
        }
        // `self.count` cannot be called while `children` is borrowed. The depth limit bounds how far this exceeds the limit.
        self.entries = self.entries.saturating_add(made);
        Ok(children)
    }

    /// Resolves the links in a directory's path and returns the real path. `None` if it does not exist, unless `may_miss`.
    fn resolve(&mut self, path: &[&[u8]], may_miss: bool) -> Result<Option<Vec<Name>>, Fault> {
        let mut pending = path.iter().rev().map(|name| Name::from(*name)).collect::<Vec<_>>();
        let mut real: Vec<Name> = Vec::new();
        // The existing directories of the real path, root first: complete if it is one longer than `real`.
        let mut there = vec![&self.children];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(Fault::TooManySteps);
            }
            if &*name == b".." {
                // The parent of the root is the root.
                if real.pop().is_some() {
                    there.truncate(real.len() + 1);
                }
                continue;
            }
            let inside = there.last().filter(|_| there.len() > real.len()).and_then(|children| children.get(&name));
            match inside {
                Some(Node::Directory(_, children)) => {
                    real.push(name);
                    there.push(children);
                }
                Some(Node::Leaf(_, Leaf::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Fault::TooManyLinks);
                    }
                    if target.starts_with(b"/") {
                        real.clear();
                        there.truncate(1);
                    }
                    let names = target.split(|byte| *byte == b'/').rev();
                    pending.extend(names.filter(|name| !name.is_empty() && *name != b".").map(Name::from));
                }
                Some(Node::Leaf(..)) | None if may_miss => real.push(name),
                Some(Node::Leaf(..)) | None => return Ok(None),
            }
            if real.len() > MAX_DEPTH {
                return Err(Fault::TooDeep);
            }
        }
        Ok(Some(real))
    }
}

fn entry(path: Vec<u8>, Meta { mode, uid, gid, mtime }: Meta, kind: EntryKind) -> Entry {
    Entry { path, kind, mode, uid, gid, mtime, ctime: mtime }
}

fn kind(leaf: Leaf, content: &Arc<File>) -> EntryKind {
    match leaf {
        Leaf::File(Extent { len: 0, .. }) => EntryKind::File(FileContent::Bytes(Arc::default())),
        Leaf::File(Extent { offset, len }) => {
            EntryKind::File(FileContent::Part { file: Arc::clone(content), offset, len })
        }
        Leaf::Symlink(target) => EntryKind::Symlink { target: target.to_vec() },
        Leaf::CharDevice(rdev) => EntryKind::CharDevice { rdev },
        Leaf::BlockDevice(rdev) => EntryKind::BlockDevice { rdev },
        Leaf::Fifo => EntryKind::Fifo,
    }
}
