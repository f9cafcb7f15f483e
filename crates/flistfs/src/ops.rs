//! Requests to answers: everything that the file system is, without a mount and without a descriptor.

mod files;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use contd_flist::{Content, FileKind, Inode};
use nix::errno::Errno;

use crate::ahead::{Ahead, Trails};
use crate::negotiate::Negotiated;
use crate::passthrough::{Beginning, Passthrough};
use crate::wire::{
    Attributes, BLOCK_BYTES, Body, Init, MAX_READ_BYTES, Operation, Read, Request, dirent_bytes, init_flag, open_flag,
};

/// How long the kernel may keep names and attributes: a year, since nothing ever changes.
const VALID_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Reads ahead and other requests in the background that the kernel may have under way. Its own default of 12 would
/// leave a store with a long round trip idle.
const MAX_BACKGROUND: u16 = 64;

/// The longest name (`NAME_MAX`); the kernel lets through up to 1024 bytes.
const MAX_NAME_BYTES: usize = 255;

/// The two entries that come before a directory's children.
const DOTS: u64 = 2;

/// The answer to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This kind of request has no reply.
    None,
    /// A failure.
    Error(Errno),
    /// A body.
    Body(Vec<u8>),
    /// So many bytes at the front of the buffer that was given.
    Content(usize),
}

/// The file system over one flist. Shared by all threads.
#[derive(Debug)]
pub struct Ops {
    content: Content,
    passthrough: Option<Passthrough>,
    /// The size from which on files are passed through.
    passed_from: u64,
    /// Whether the kernel need not send OPENDIR at all.
    skips_opendir: AtomicBool,
    ahead: Ahead,
    /// The positions of readers in files, and of openers in directories.
    blocks_read: Trails,
    files_opened: Trails,
    requests: AtomicU64,
    reads: AtomicU64,
    failed_reads: AtomicU64,
}

impl Ops {
    /// Serves this content by READ only.
    pub fn new(content: Content) -> Self {
        Self {
            content,
            passthrough: None,
            passed_from: files::MIN_PASSED_BYTES,
            skips_opendir: AtomicBool::new(false),
            ahead: Ahead::default(),
            blocks_read: Trails::new(1, 1, files::BLOCKS_AHEAD),
            files_opened: Trails::new(files::MAX_FILE_STEP, 2, files::FILES_AHEAD),
            requests: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            failed_reads: AtomicU64::new(0),
        }
    }

    /// Serves this content, and passes whole cached files of 1 MiB and more through to the kernel where that is possible.
    /// Open files of that kind are written down in `handles`, which a successor on the same connection must be given too.
    pub fn with_passthrough(content: Content, handles: PathBuf) -> Self {
        Self::with_passthrough_from(content, handles, files::MIN_PASSED_BYTES)
    }

    /// The same for files of `bytes` and more. All servers of a connection must have the same limit.
    pub fn with_passthrough_from(content: Content, handles: PathBuf, bytes: u64) -> Self {
        Self { passthrough: Some(Passthrough::new(handles)), passed_from: bytes, ..Self::new(content) }
    }

    /// Counts the requests that were answered so far; what the kernel has remembered needs none.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes that a request was answered.
    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the READs that the kernel has sent so far; what is passed through needs none.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Counts the opened files that were passed through to the kernel so far.
    pub fn passed_through(&self) -> u64 {
        self.passthrough.as_ref().map_or(0, Passthrough::passed)
    }

    /// Counts the reads that were answered with an error so far.
    pub fn failed_reads(&self) -> u64 {
        self.failed_reads.load(Ordering::Relaxed)
    }

    /// Binds to a connection whose INIT is done.
    pub(crate) fn attach(&self, device: &Arc<File>, negotiated: &Negotiated, beginning: Beginning) {
        self.skips_opendir.store(negotiated.has(init_flag::NO_OPENDIR_SUPPORT), Ordering::Relaxed);
        if let Some(passthrough) = &self.passthrough {
            passthrough.attach(device, negotiated, beginning);
        }
    }

    /// Counts the inodes.
    pub fn inodes(&self) -> u64 {
        to_u64(self.content.flist().inode_count())
    }

    /// Answers one request. `buffer` is for content; it grows to what a READ asks for and is used again.
    pub fn answer(&self, request: &Request<'_>, buffer: &mut Vec<u8>) -> Answer {
        let node = request.node;
        match &request.operation {
            Operation::Init(offer) => Self::init(offer),
            Operation::Destroy => Answer::Body(Vec::new()),
            Operation::Forget | Operation::Interrupt => Answer::None,
            Operation::Releasedir => Answer::Body(Vec::new()),
            Operation::Release { handle } => self.release(*handle),
            Operation::Lookup { name } => self.lookup(node, name),
            Operation::Getattr => self.with(node, |inode| {
                Answer::Body(body(|body| body.attributes_reply(&attributes(inode), VALID_SECONDS)))
            }),
            Operation::Readlink => match self.content.flist().symlink_target(node) {
                Some(target) => Answer::Body(target.to_vec()),
                None => Answer::Error(Errno::EINVAL),
            },
            Operation::Open => self.with(node, |inode| self.open(request.unique, inode)),
            Operation::Opendir => self.with(node, |inode| match inode.kind() {
                // Once for all: the kernel then opens directories by itself, with the flags below.
                FileKind::Directory if self.skips_opendir.load(Ordering::Relaxed) => Answer::Error(Errno::ENOSYS),
                FileKind::Directory => {
                    let flags = open_flag::KEEP_CACHE | open_flag::CACHE_DIR;
                    Answer::Body(body(|body| body.open(node, flags, 0)))
                }
                _ => Answer::Error(Errno::ENOTDIR),
            }),
            Operation::Read(read) => self.with(node, |inode| self.read(inode, *read, buffer)),
            Operation::Readdir(read) => self.with(node, |inode| self.list(inode, *read, false)),
            Operation::Readdirplus(read) => self.with(node, |inode| self.list(inode, *read, true)),
            Operation::Statfs => self.statfs(),
            Operation::Ioctl => Answer::Error(Errno::ENOTTY),
            Operation::Change => Answer::Error(Errno::EROFS),
            // The kernel remembers ENOSYS and does not ask again: extended attributes, ACCESS, LSEEK, STATX, FLUSH.
            Operation::Unknown(_) => Answer::Error(Errno::ENOSYS),
        }
    }

    /// Answers INIT, which needs no content.
    pub(crate) fn init(offer: &Init) -> Answer {
        match Negotiated::agree(offer) {
            Some(agreed) => Answer::Body(body(|body| body.init(&agreed, MAX_BACKGROUND))),
            None => Answer::Error(Errno::EPROTO),
        }
    }

    fn with<'a>(&'a self, node: u64, then: impl FnOnce(Inode<'a>) -> Answer) -> Answer {
        match self.content.flist().inode(node) {
            Some(inode) => then(inode),
            None => Answer::Error(Errno::ESTALE),
        }
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Answer {
        self.with(parent, |directory| match directory.kind() {
            FileKind::Directory if name.len() > MAX_NAME_BYTES => Answer::Error(Errno::ENAMETOOLONG),
            FileKind::Directory => Answer::Body(match self.content.flist().lookup(parent, name) {
                Some(inode) => body(|body| body.entry(&attributes(inode), VALID_SECONDS)),
                None => body(|body| body.no_entry(VALID_SECONDS)),
            }),
            _ => Answer::Error(Errno::ENOTDIR),
        })
    }

    fn list(&self, directory: Inode<'_>, read: Read, has_attributes: bool) -> Answer {
        if directory.kind() != FileKind::Directory {
            return Answer::Error(Errno::ENOTDIR);
        }
        let room = usize::try_from(read.size.min(MAX_READ_BYTES)).unwrap_or_default();
        let children = self.content.flist().children(directory.ino());
        let mut body = Body::with_capacity(room.min(64 * 1024));
        let mut at = read.offset;
        loop {
            let (ino, mode, name, child) = match at {
                0 => (directory.ino(), directory.mode(), &b"."[..], None),
                1 => (directory.parent(), directory.mode(), &b".."[..], None),
                _ => match usize::try_from(at - DOTS).ok().and_then(|index| children.get(index)) {
                    Some(child) => (child.ino(), child.mode(), child.name(), Some(child)),
                    None => break,
                },
            };
            if body.len() + dirent_bytes(name, has_attributes) > room {
                if body.is_empty() {
                    // An empty answer would mean that the listing has ended.
                    return Answer::Error(Errno::EINVAL);
                }
                break;
            }
            match child {
                Some(child) if has_attributes => _ = body.entry(&attributes(child), VALID_SECONDS),
                None if has_attributes => _ = body.no_entry(0),
                _ => {}
            }
            at += 1;
            body.dirent(ino, at, mode, name);
        }
        Answer::Body(body.into_bytes())
    }

    fn statfs(&self) -> Answer {
        let blocks = self.content.flist().content_bytes().div_ceil(u64::from(BLOCK_BYTES));
        Answer::Body(body(|body| body.statfs(blocks, self.inodes())))
    }
}

fn body(fill: impl FnOnce(&mut Body) -> &mut Body) -> Vec<u8> {
    let mut body = Body::with_capacity(128);
    fill(&mut body);
    body.into_bytes()
}

fn attributes(inode: Inode<'_>) -> Attributes {
    Attributes {
        ino: inode.ino(),
        size: inode.size(),
        mtime: inode.mtime(),
        ctime: inode.ctime(),
        mode: inode.mode(),
        nlink: inode.nlink(),
        uid: inode.uid(),
        gid: inode.gid(),
        rdev: inode.rdev_kernel(),
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
