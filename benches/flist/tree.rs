//! The served tree: parts of this machine's own `/usr`, chosen by a fixed rule and bounded, arranged as a root.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// The parts, in this order: a directory, and the most entries and MiB of it. Programs and libraries come first, so
/// that a shell runs; then many small files. Similar to a Debian root with python3, git and a compiler.
const PARTS: [(&str, usize, u64); 9] = [
    ("usr/bin", 900, 45),
    ("usr/sbin", 200, 10),
    ("usr/lib/git-core", 250, 15),
    ("usr/lib/python3.11", 2_500, 40),
    ("usr/lib/gcc", 600, 50),
    ("usr/lib/x86_64-linux-gnu", 2_500, 120),
    ("usr/lib/aarch64-linux-gnu", 2_500, 120),
    ("usr/include", 4_500, 45),
    ("usr/share", 20_000, 220),
];
/// The bounds of the whole tree: that of the research (19,506 entries, 576 MiB).
const MAX_ENTRIES: usize = 20_000;
const MAX_BYTES: u64 = 576 << 20;
/// The most bytes of a file; larger ones are left out, since a few would be a tenth of the tree.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// With fewer entries the ratios say little, and the report says so.
const FEW_ENTRIES: usize = 8_000;

/// The programs that a shell needs, copied with their libraries in any case.
const ALWAYS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// A regular file of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The path relative to the root.
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

/// The tree on disk.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<Entry>,
    pub(crate) entries: usize,
    pub(crate) bytes: u64,
}

impl Tree {
    /// Makes the tree below `root`.
    pub(crate) fn make(root: &Path) -> Self {
        let mut copy = Copy {
            tree: Self { root: root.to_owned(), files: Vec::new(), entries: 0, bytes: 0 },
            seen: HashSet::new(),
        };
        for dir in ["usr", "etc", "proc", "sys", "dev", "tmp", "root", "run", "var"] {
            fs::create_dir_all(root.join(dir)).expect("make the tree");
        }
        for dir in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(dir), root.join(dir)).expect("make the tree");
        }
        ALWAYS.iter().for_each(|program| copy.with_libraries(Path::new(program)));
        for (part, entries, mib) in PARTS {
            let limit = Limit { entries: copy.tree.entries + entries, bytes: copy.tree.bytes + (mib << 20) };
            let from = Path::new("/").join(part);
            if from.is_dir() && !from.is_symlink() {
                copy.directory(&from, &limit);
            }
        }
        let tree = copy.tree;
        assert!(!tree.files.is_empty(), "nothing to copy in /usr");
        if tree.entries < FEW_ENTRIES {
            eprintln!("this machine's /usr is small: the tree has only {} entries", tree.entries);
        }
        tree
    }

    /// Picks `count` files of at most `max_bytes`, evenly over the tree, in a mixed order that is always the same.
    pub(crate) fn some_files(&self, count: usize, max_bytes: u64) -> Vec<PathBuf> {
        let small: Vec<_> = self.files.iter().filter(|file| (1..=max_bytes).contains(&file.size)).collect();
        let step = (small.len() / count).max(1);
        let mut picked: Vec<PathBuf> = small.iter().step_by(step).take(count).map(|file| file.path.clone()).collect();
        // A stride that shares no divisor with the length visits each file once.
        let len = picked.len();
        let stride = (len * 5 / 8..).find(|stride| gcd(*stride, len) == 1).expect("a stride");
        let order: Vec<usize> = (0..len).map(|index| index * stride % len).collect();
        order.into_iter().map(|index| std::mem::take(&mut picked[index])).collect()
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

struct Limit {
    entries: usize,
    bytes: u64,
}

struct Copy {
    tree: Tree,
    /// Device and inode of each file: hard links become separate files in a flist, so only the first one is copied.
    seen: HashSet<(u64, u64)>,
}

impl Copy {
    fn to(&self, from: &Path) -> PathBuf {
        self.tree.root.join(from.strip_prefix("/").expect("absolute"))
    }

    fn is_full(&self, limit: &Limit) -> bool {
        let (entries, bytes) = (limit.entries.min(MAX_ENTRIES), limit.bytes.min(MAX_BYTES));
        self.tree.entries >= entries || self.tree.bytes >= bytes
    }

    /// Copies a directory in the order of the names, up to the limit.
    fn directory(&mut self, from: &Path, limit: &Limit) {
        let to = self.to(from);
        let mut names: Vec<_> = fs::read_dir(from).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        names.sort_unstable();
        let metadata = fs::symlink_metadata(from).expect("look at a directory");
        fs::create_dir_all(&to).expect("make a directory");
        for path in names {
            // A name that is not UTF-8 cannot be packed.
            if self.is_full(limit) || path.to_str().is_none() {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            match metadata.file_type() {
                kind if kind.is_dir() => self.directory(&path, limit),
                kind if kind.is_file() => self.file(&path, &metadata),
                kind if kind.is_symlink() => self.link(&path, &metadata),
                _ => {}
            }
        }
        self.tree.entries += 1;
        dress(&to, &metadata);
    }

    fn file(&mut self, from: &Path, metadata: &Metadata) {
        if metadata.size() > MAX_FILE_BYTES || !self.seen.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        let to = self.to(from);
        let Ok(bytes) = fs::copy(from, &to) else { return };
        dress(&to, metadata);
        self.tree.entries += 1;
        self.tree.bytes += bytes;
        let path = to.strip_prefix(&self.tree.root).expect("below the root").to_owned();
        self.tree.files.push(Entry { path, size: bytes });
    }

    fn link(&mut self, from: &Path, metadata: &Metadata) {
        let to = self.to(from);
        let target = fs::read_link(from).expect("read a link");
        if to.symlink_metadata().is_err() {
            symlink(target, &to).expect("make a link");
            lchown(&to, Some(metadata.uid()), Some(metadata.gid())).expect("own a link");
            self.tree.entries += 1;
        }
    }

    /// Copies a program and the libraries that it loads, with the links on the way.
    fn with_libraries(&mut self, program: &Path) {
        let output = std::process::Command::new("ldd").arg(program).output().expect("run ldd");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        for path in [program.to_owned()].into_iter().chain(libraries) {
            self.with_links(&path);
        }
    }

    fn with_links(&mut self, path: &Path) {
        // `/lib` is a link to `/usr/lib`, in the tree as on the host; so use the path without links in its directories.
        let dir = fs::canonicalize(path.parent().expect("a directory")).expect("resolve a directory");
        let path = dir.join(path.file_name().expect("a name"));
        let metadata = fs::symlink_metadata(&path).expect("look at a file");
        fs::create_dir_all(self.to(&dir)).expect("make a directory");
        if metadata.is_symlink() {
            self.link(&path, &metadata);
            self.with_links(&dir.join(fs::read_link(&path).expect("read a link")));
        } else {
            self.file(&path, &metadata);
        }
    }
}

/// Sets owner, mode and time; the owner first, because changing it clears the setuid bit.
fn dress(to: &Path, metadata: &Metadata) {
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).expect("own a copy");
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).expect("set a mode");
    let modified = metadata.modified().expect("a time");
    let file = File::open(to).expect("open a copy");
    file.set_times(FileTimes::new().set_modified(modified)).expect("set a time");
}
