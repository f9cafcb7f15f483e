//! Builds the tree from checked rows, or reports why they form none. One pass over each table, then two sorts.

use super::error::Malformed;
use super::rows::InodeRow;
use super::{FileKind, MAX_NAME_BYTES, MAX_TARGET_BYTES, ROOT_INO, blocks_for, major_minor};
use crate::hash::BlockRef;

/// All bits that a `st_mode` can have: the type and 07777.
const MODE_BITS: u32 = 0o177_777;

/// The bits of a `st_mode` for the type.
const TYPE_BITS: u32 = 0o170_000;

/// The kernel keeps 12 bits of a major number and 20 of a minor one.
const MAX_MAJOR: u32 = 0xfff;
const MAX_MINOR: u32 = 0xf_ffff;

/// One inode, about 90 bytes. `span` is a range of the array for its kind: children, blocks or targets.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) rdev: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) subdirectories: u32,
    pub(super) kind: FileKind,
    /// The slot of the parent; for the root its own slot.
    parent: u32,
    name: Span,
    span: Span,
}

/// A range of one of the shared arrays.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn of<T>(self, array: &[T]) -> &[T] {
        let start = usize::try_from(self.start).unwrap_or(usize::MAX);
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        array.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    /// Appends to an array and returns the range. The limits on rows keep every array far below 4 G elements.
    fn append<T: Copy>(array: &mut Vec<T>, items: &[T]) -> Self {
        let span = Self { start: narrow(array.len()), len: narrow(items.len()) };
        array.extend_from_slice(items);
        span
    }
}

/// All inodes reachable from the root, sorted by number, and the arrays that they refer to.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    names: Vec<u8>,
    targets: Vec<u8>,
    children: Vec<u32>,
    blocks: Vec<BlockRef>,
}

impl Tree {
    /// Validates the rows. Cycles of directories detached from the root are left out; any other fault refuses the flist.
    pub(super) fn build(
        mut rows: Vec<InodeRow>,
        mut links: Vec<(u64, Vec<u8>)>,
        mut blocks: Vec<(u64, BlockRef)>,
    ) -> Result<Self, Malformed> {
        rows.sort_unstable_by_key(|row| row.ino);
        if let Some(ino) = rows.iter().zip(rows.iter().skip(1)).find(|(a, b)| a.ino == b.ino).map(|(a, _)| a.ino) {
            return Err(Malformed::DuplicateInode { ino });
        }
        let reachable = reachable(&rows, &parents(&rows)?)?;
        links.sort_unstable_by_key(|(ino, _)| *ino);
        blocks.sort_by_key(|(ino, _)| *ino); // stable: the blocks of a file stay in the order of their rows
        check_strays(&rows, &links, &blocks)?;

        let mut tree = Self {
            nodes: Vec::with_capacity(rows.len()),
            names: Vec::with_capacity(rows.iter().map(|row| row.name.len()).sum()),
            targets: Vec::with_capacity(links.iter().map(|(_, target)| target.len()).sum()),
            children: Vec::with_capacity(rows.len()),
            blocks: Vec::with_capacity(blocks.len()),
        };
        let (mut links, mut blocks) = (Sorted::new(&links), Sorted::new(&blocks));
        for (row, reachable) in rows.iter().zip(reachable) {
            let (links, blocks) = (links.take(row.ino), blocks.take(row.ino));
            let node = tree.node_of(row, links, blocks)?;
            if reachable {
                tree.nodes.push(node);
            }
        }
        tree.link_parents(&rows)?;
        tree.index_children()?;
        Ok(tree)
    }

    fn node_of(
        &mut self,
        row: &InodeRow,
        links: &[(u64, Vec<u8>)],
        blocks: &[(u64, BlockRef)],
    ) -> Result<Node, Malformed> {
        let ino = row.ino;
        let kind = kind_of(row)?;
        let mut node = Node {
            ino,
            size: 0,
            mtime: row.mtime,
            ctime: row.ctime,
            rdev: 0,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            subdirectories: 0,
            kind,
            parent: 0,
            name: Span::default(),
            span: Span::default(),
        };
        if ino != ROOT_INO {
            check_name(row)?;
            node.name = Span::append(&mut self.names, &row.name);
        }
        match kind {
            FileKind::File => {
                let (found, expected) = (blocks.len() as u64, blocks_for(row.size));
                if found != expected {
                    return Err(Malformed::BlockCount { ino, size: row.size, found, expected });
                }
                node.size = row.size;
                node.span = Span { start: narrow(self.blocks.len()), len: narrow(blocks.len()) };
                self.blocks.extend(blocks.iter().map(|(_, block)| *block));
            }
            FileKind::Directory => node.size = row.size,
            FileKind::Symlink => {
                let (_, target) = links.first().ok_or(Malformed::NoTarget { ino })?;
                if target.is_empty() || target.len() > MAX_TARGET_BYTES || target.contains(&0) {
                    return Err(Malformed::Target { ino, len: target.len() });
                }
                // The length that readlink returns, not the one in the row: programs size their buffer by it.
                (node.size, node.span) = (target.len() as u64, Span::append(&mut self.targets, target));
            }
            FileKind::CharDevice | FileKind::BlockDevice => node.rdev = device(row)?,
            FileKind::Fifo | FileKind::Socket => {}
        }
        Ok(node)
    }

    /// Sets each node's parent to the slot in the final array.
    fn link_parents(&mut self, rows: &[InodeRow]) -> Result<(), Malformed> {
        let mut slots = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let row = find(rows, node.ino).and_then(|at| rows.get(at));
            let parent = row.map_or(0, |row| if row.ino == ROOT_INO { ROOT_INO } else { row.parent });
            slots.push(self.slot(parent).ok_or(Malformed::NoParent { ino: node.ino, parent })?);
        }
        for (node, slot) in self.nodes.iter_mut().zip(slots) {
            node.parent = slot;
        }
        Ok(())
    }

    /// Sorts all entries by directory and name, sets the range of each directory, and finds duplicate names.
    fn index_children(&mut self) -> Result<(), Malformed> {
        let mut children = self.nodes.iter().zip(0_u32..).filter(|(node, _)| node.ino != ROOT_INO).collect::<Vec<_>>();
        // Sort by directory first, which is nearly done already, and then compare names only within a directory.
        children.sort_by_key(|(node, _)| node.parent);
        for entries in children.chunk_by_mut(|(a, _), (b, _)| a.parent == b.parent) {
            entries.sort_unstable_by_key(|(node, _)| self.name(node));
        }
        let twice = children.iter().zip(children.iter().skip(1));
        for ((a, _), (b, _)) in twice {
            if a.parent == b.parent && self.name(a) == self.name(b) {
                let name = String::from_utf8_lossy(self.name(a)).into_owned();
                return Err(Malformed::DuplicateName { parent: self.parent(a).ino, name });
            }
        }
        let entries = children.iter().map(|(node, slot)| (node.parent, *slot, node.kind)).collect::<Vec<_>>();
        for (position, (parent, slot, kind)) in (0_u32..).zip(entries) {
            self.children.push(slot);
            if let Some(directory) = self.nodes.get_mut(index(parent)) {
                if directory.span.len == 0 {
                    directory.span.start = position;
                }
                directory.span.len += 1;
                directory.subdirectories += u32::from(kind == FileKind::Directory);
            }
        }
        Ok(())
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn content_bytes(&self) -> u64 {
        let files = self.nodes.iter().filter(|node| node.kind == FileKind::File);
        files.fold(0, |sum, file| sum.saturating_add(file.size))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "build refuses a tree without root, and 1 is the lowest number it allows"
    )]
    pub(super) fn root(&self) -> &Node {
        &self.nodes[0]
    }

    fn slot(&self, ino: u64) -> Option<u32> {
        // Packers number from 1 without gaps, so this guess is nearly always right.
        let guess = ino.checked_sub(ROOT_INO).and_then(|guess| usize::try_from(guess).ok());
        let hit = guess.filter(|guess| self.nodes.get(*guess).is_some_and(|node| node.ino == ino));
        hit.or_else(|| self.nodes.binary_search_by_key(&ino, |node| node.ino).ok()).map(narrow)
    }

    pub(super) fn node(&self, ino: u64) -> Option<&Node> {
        self.node_at(self.slot(ino)?)
    }

    pub(super) fn node_at(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(index(slot))
    }

    pub(super) fn name_at(&self, slot: u32) -> &[u8] {
        self.node_at(slot).map(|node| self.name(node)).unwrap_or_default()
    }

    pub(super) fn name(&self, node: &Node) -> &[u8] {
        node.name.of(&self.names)
    }

    pub(super) fn parent(&self, node: &Node) -> &Node {
        self.node_at(node.parent).unwrap_or_else(|| self.root())
    }

    pub(super) fn children(&self, node: &Node) -> &[u32] {
        if node.kind == FileKind::Directory { node.span.of(&self.children) } else { &[] }
    }

    pub(super) fn blocks(&self, node: &Node) -> &[BlockRef] {
        if node.kind == FileKind::File { node.span.of(&self.blocks) } else { &[] }
    }

    pub(super) fn target(&self, node: &Node) -> Option<&[u8]> {
        (node.kind == FileKind::Symlink).then(|| node.span.of(&self.targets))
    }
}

/// Finds the position of every row's parent; for the root its own. `rows` are sorted by number.
fn parents(rows: &[InodeRow]) -> Result<Vec<u32>, Malformed> {
    match rows.first() {
        Some(root) if root.ino == ROOT_INO => {
            if root.parent != 0 || kind_of(root)? != FileKind::Directory {
                return Err(Malformed::BadRoot);
            }
        }
        _ => return Err(Malformed::NoRoot),
    }
    let mut positions = Vec::with_capacity(rows.len());
    for row in rows {
        kind_of(row)?;
        let (ino, parent) = (row.ino, row.parent);
        if ino == ROOT_INO {
            positions.push(0);
            continue;
        }
        if parent == 0 {
            return Err(Malformed::SecondRoot { ino });
        }
        let position = find(rows, parent).ok_or(Malformed::NoParent { ino, parent })?;
        let is_directory = rows.get(position).map(kind_of).transpose()? == Some(FileKind::Directory);
        if !is_directory {
            return Err(Malformed::ParentNotDirectory { ino, parent });
        }
        positions.push(narrow(position));
    }
    Ok(positions)
}

/// Marks the rows whose parents lead to the root; each row is visited at most twice.
fn reachable(rows: &[InodeRow], parents: &[u32]) -> Result<Vec<bool>, Malformed> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Unknown,
        OnPath,
        Known(bool),
    }
    let mut marks = vec![Mark::Unknown; rows.len()];
    *marks.first_mut().ok_or(Malformed::NoRoot)? = Mark::Known(true);
    let mut path = Vec::new();
    for start in 0..rows.len() {
        let mut at = start;
        let known = loop {
            match marks.get_mut(at) {
                Some(Mark::Known(known)) => break *known,
                // Visited before on this path: a cycle.
                Some(Mark::OnPath) | None => break false,
                Some(mark) => *mark = Mark::OnPath,
            }
            path.push(at);
            at = parents.get(at).map_or(usize::MAX, |parent| index(*parent));
        };
        for visited in path.drain(..) {
            if let Some(mark) = marks.get_mut(visited) {
                *mark = Mark::Known(known);
            }
        }
    }
    Ok(marks.into_iter().map(|mark| mark == Mark::Known(true)).collect())
}

/// Refuses targets of inodes that are no links, and blocks of inodes that are no files.
fn check_strays(rows: &[InodeRow], links: &[(u64, Vec<u8>)], blocks: &[(u64, BlockRef)]) -> Result<(), Malformed> {
    let is = |ino: u64, kind: FileKind| {
        let row = find(rows, ino).and_then(|at| rows.get(at));
        row.is_some_and(|row| kind_of(row) == Ok(kind))
    };
    if let Some((ino, _)) = links.iter().find(|(ino, _)| !is(*ino, FileKind::Symlink)) {
        return Err(Malformed::StrayTarget { ino: *ino });
    }
    match blocks.iter().find(|(ino, _)| !is(*ino, FileKind::File)) {
        Some((ino, _)) => Err(Malformed::StrayBlock { ino: *ino }),
        None => Ok(()),
    }
}

fn kind_of(row: &InodeRow) -> Result<FileKind, Malformed> {
    let refused = Malformed::Mode { ino: row.ino, mode: row.mode };
    if row.mode & !MODE_BITS != 0 {
        return Err(refused);
    }
    match row.mode & TYPE_BITS {
        0o100_000 => Ok(FileKind::File),
        0o040_000 => Ok(FileKind::Directory),
        0o120_000 => Ok(FileKind::Symlink),
        0o020_000 => Ok(FileKind::CharDevice),
        0o060_000 => Ok(FileKind::BlockDevice),
        0o010_000 => Ok(FileKind::Fifo),
        0o140_000 => Ok(FileKind::Socket),
        _ => Err(refused),
    }
}

fn check_name(row: &InodeRow) -> Result<(), Malformed> {
    let name = row.name.as_slice();
    let length_fits = (1..=MAX_NAME_BYTES).contains(&name.len());
    if length_fits && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Ok(());
    }
    let shown = name.get(..MAX_NAME_BYTES).unwrap_or(name);
    Err(Malformed::Name { ino: row.ino, name: String::from_utf8_lossy(shown).into_owned() })
}

fn device(row: &InodeRow) -> Result<u64, Malformed> {
    let (major, minor) = major_minor(row.rdev);
    if major > MAX_MAJOR || minor > MAX_MINOR {
        return Err(Malformed::Device { ino: row.ino, major, minor });
    }
    Ok(row.rdev)
}

/// Rows sorted by inode, taken in rising order: a merge instead of a search per inode.
struct Sorted<'a, T> {
    rest: &'a [(u64, T)],
}

impl<'a, T> Sorted<'a, T> {
    fn new(rest: &'a [(u64, T)]) -> Self {
        Self { rest }
    }

    fn take(&mut self, ino: u64) -> &'a [(u64, T)] {
        let start = self.rest.iter().take_while(|(of, _)| *of < ino).count();
        let (_, rest) = self.rest.split_at(start);
        let (taken, rest) = rest.split_at(rest.iter().take_while(|(of, _)| *of == ino).count());
        self.rest = rest;
        taken
    }
}

/// Finds a row by its number. Packers number from 1 without gaps, so the guess is nearly always right.
fn find(rows: &[InodeRow], ino: u64) -> Option<usize> {
    let guess = ino.checked_sub(ROOT_INO).and_then(|guess| usize::try_from(guess).ok());
    let hit = guess.filter(|guess| rows.get(*guess).is_some_and(|row| row.ino == ino));
    hit.or_else(|| rows.binary_search_by_key(&ino, |row| row.ino).ok())
}

/// Converts a length to an array position. The limits on rows and bytes keep all of them below 4 G.
fn narrow(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
