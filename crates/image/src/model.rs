//! The root file system of an image while its layers are laid one over the other: a tree in memory.
//!
//! Nothing is ever extracted: a path of a layer only leads through this tree, so that it cannot lead anywhere else. Links
//! on the way to an entry are followed as a chroot would, inside the tree.
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

/// Directories that an image has no entry of: as `mkdir -p` by root makes them.
const IMPLICIT: Meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0 };

/// Components that are looked up on the way to all entries of an image together: a hundred each for two million.
/// Without it, a small image of links that lead through links could be looked up for hours.
const MAX_STEPS: u64 = 200_000_000;

/// What `stat` says of a directory where there is no disk to ask.
const DIRECTORY_BYTES: u64 = 4096;

type Name = Box<[u8]>;
type Children = BTreeMap<Name, Node>;

/// What every entry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

/// What is not a directory.
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
    /// Becomes a file of its own with what the path has, which must be there already.
    HardLink(Vec<u8>),
}

#[derive(Debug)]
enum Node {
    Directory(Meta, Children),
    Leaf(Meta, Leaf),
}

/// The tree.
#[derive(Debug)]
pub(super) struct Model {
    meta: Meta,
    children: Children,
    /// How many entries were ever put, and how many may be.
    entries: usize,
    max_entries: usize,
    steps: u64,
}

impl Model {
    /// Makes an empty root.
    pub(super) fn new(max_entries: usize) -> Self {
        Self { meta: IMPLICIT, children: Children::new(), entries: 0, max_entries, steps: 0 }
    }

    /// Hides what lower layers have under a name.
    pub(super) fn hide(&mut self, directory: &[&[u8]], name: &[u8]) -> Result<(), Fault> {
        if let Some(children) = self.find(directory)? {
            children.remove(name);
        }
        Ok(())
    }

    /// Hides all that lower layers have in a directory. Its own name is not followed: see [`Self::unlink_for_directory`].
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

    /// Puts an empty directory in the place of a symbolic link of lower layers, because the layer that is laid now has a
    /// directory of its own there. Whatever that layer says of things below means this directory, not the link's target.
    pub(super) fn unlink_for_directory(&mut self, path: &[&[u8]]) -> Result<(), Fault> {
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        let there = match self.find(above) {
            // An entry of the layer itself may still replace what leads nowhere; if none does, it is refused later.
            Err(Fault::TooManyLinks | Fault::TooDeep) => None,
            found => found?,
        };
        if let Some(node @ Node::Leaf(_, Leaf::Symlink(_))) = there.and_then(|there| there.get_mut(*name)) {
            *node = Node::Directory(IMPLICIT, Children::new());
        }
        Ok(())
    }

    /// Puts an entry where its path leads. A directory over a directory changes what it is, not what it holds; everything
    /// else replaces what is there.
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

    /// Gives the tree to pack; the content of the files lies in `content`. `None` if the paths have more bytes than given.
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

    /// Copies what a hard link points to. Its last component is not followed, as `link(2)` does not.
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

    /// Gives a directory that is there.
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

    /// Gives a directory, and makes what is missing of it. What is in the way and no directory is replaced.
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
                // Was just replaced.
                Node::Leaf(..) => return Err(Fault::RootNotDirectory),
            }
        }
        // Counted here, and not with `count`: `children` is borrowed. The depth bounds how far this goes over the limit.
        self.entries = self.entries.saturating_add(made);
        Ok(children)
    }

    /// Follows the links on the way to a directory and gives its real path. Without `may_miss`, `None` if it is not there.
    fn resolve(&mut self, path: &[&[u8]], may_miss: bool) -> Result<Option<Vec<Name>>, Fault> {
        let mut pending = path.iter().rev().map(|name| Name::from(*name)).collect::<Vec<_>>();
        let mut real: Vec<Name> = Vec::new();
        // The directories on the way as far as they are there: one more than `real` has, or fewer.
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
