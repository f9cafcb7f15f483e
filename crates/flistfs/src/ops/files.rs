//! Regular files: opened in the way that is best, read, closed, and brought ahead of their readers.

use std::sync::atomic::Ordering;

use contd_flist::content::{Effort, MAX_EAGER_BYTES};
use contd_flist::{BLOCK_SIZE, FileKind, Inode, ReadError};
use contd_types::one_line;
use nix::errno::Errno;
use tracing::{debug, warn};

use super::{Answer, Ops, body};
use crate::ahead::Job;
use crate::handles::Way;
use crate::passthrough::Opened;
use crate::sys;
use crate::wire::{MAX_READ_BYTES, Operation, Read, Request, open_flag};

/// Blocks that are brought ahead of a sequential reader: 2 MiB, which hides a round trip of 20 ms at 100 MB/s.
pub(super) const BLOCKS_AHEAD: u64 = 4;

/// Entries that are looked at ahead of somebody who opens the files of a directory in turn, as `tar` and `grep -r` do.
pub(super) const FILES_AHEAD: u64 = 16;

/// How far two files that are opened in turn may lie apart: what lies between are directories and links.
pub(super) const MAX_FILE_STEP: u64 = 8;

/// Files below this are read from the page cache of the mount: to open one that is passed through costs five times the
/// answer alone (a descriptor, a lock and a backing id for each), and a small file has little to gain.
pub(super) const MIN_PASSED_BYTES: u64 = 1024 * 1024;

/// Marks the handle of a file that is never passed through: nothing is remembered of it. The rest is the inode.
const PLAIN: u64 = 1 << 63;

impl Ops {
    /// Answers an OPEN or READ if nothing has to be downloaded for it: from what is checked, or after a few milliseconds of
    /// hashing. Otherwise `None`, and [`Ops::answer`] may then take as long as the stores do.
    pub(crate) fn answer_at_once(&self, request: &Request<'_>, buffer: &mut Vec<u8>) -> Option<Answer> {
        let Some(inode) = self.content.flist().inode(request.node).filter(|inode| inode.kind() == FileKind::File)
        else {
            return Some(self.answer(request, buffer));
        };
        match request.operation {
            Operation::Open => self.open_at_once(request.unique, inode),
            Operation::Read(read) => self.read_at_once(inode, read, buffer),
            _ => None,
        }
    }

    fn read_at_once(&self, inode: Inode<'_>, read: Read, buffer: &mut Vec<u8>) -> Option<Answer> {
        let room = room(buffer, read);
        let outcome = match self.content.read_ready_at(inode.ino(), read.offset, room) {
            Ok(None) => {
                self.look_ahead(inode, read, true);
                self.content.read_cached_at(inode.ino(), read.offset, room)
            }
            ready => {
                self.look_ahead(inode, read, false);
                ready
            }
        };
        match outcome {
            Ok(bytes) => {
                let bytes = bytes?;
                self.reads.fetch_add(1, Ordering::Relaxed);
                Some(Answer::Content(bytes))
            }
            Err(error) => Some(self.failed(inode, read, &error)),
        }
    }

    fn open_at_once(&self, unique: u64, inode: Inode<'_>) -> Option<Answer> {
        let ino = inode.ino();
        let Some(passthrough) = &self.passthrough else {
            return Some(opened(Ok(Opened { handle: ino, way: Way::Cached })));
        };
        if let Some(again) = passthrough.open_again(unique, ino) {
            return Some(opened(again));
        }
        if inode.size() < self.passed_from.max(1) {
            self.look_around(inode, !self.content.knows_block(ino, 0));
            return Some(plain(ino));
        }
        if !passthrough.is_on() {
            return Some(opened(passthrough.open(unique, ino, None)));
        }
        // Errors here are of the content, and told at their offset, by the READ that needs it.
        let ready = self.content.open_whole(ino, Effort::Look).unwrap_or_default();
        self.look_around(inode, ready.is_none());
        if ready.is_none() && inode.size() > MAX_EAGER_BYTES {
            return Some(opened(passthrough.open(unique, ino, None)));
        }
        let whole = ready.or_else(|| self.content.open_whole(ino, Effort::Assemble).unwrap_or_default())?;
        Some(opened(passthrough.open(unique, ino, Some(whole))))
    }

    pub(super) fn open(&self, unique: u64, inode: Inode<'_>) -> Answer {
        match inode.kind() {
            FileKind::File => {}
            FileKind::Directory => return Answer::Error(Errno::EISDIR),
            // Devices, FIFOs and sockets are opened by the kernel itself, symlinks never.
            _ => return Answer::Error(Errno::EACCES),
        }
        let ino = inode.ino();
        let Some(passthrough) = &self.passthrough else {
            return opened(Ok(Opened { handle: ino, way: Way::Cached }));
        };
        if let Some(again) = passthrough.open_again(unique, ino) {
            return opened(again);
        }
        if inode.size() < self.passed_from.max(1) {
            return plain(ino);
        }
        if !passthrough.is_on() || inode.size() > MAX_EAGER_BYTES {
            return opened(passthrough.open(unique, ino, None));
        }
        // Fetched side by side; the first one by this thread.
        let blocks = inode.size().div_ceil(BLOCK_SIZE as u64);
        (1..blocks).for_each(|index| self.ahead.push(Job::Block { ino, index }));
        let whole = self.content.open_whole(ino, Effort::Fetch).unwrap_or_else(|error| {
            debug!(ino, why = %one_line(&error), "a file cannot be had whole, opening it all the same");
            None
        });
        opened(passthrough.open(unique, ino, whole))
    }

    pub(super) fn release(&self, handle: u64) -> Answer {
        if handle & PLAIN != 0 {
            return Answer::Body(Vec::new());
        }
        self.ended(self.passthrough.as_ref().and_then(|passthrough| passthrough.release(handle)));
        Answer::Body(Vec::new())
    }

    /// Notes that the kernel has refused the answer to an OPEN, since a predecessor had given it one.
    pub(crate) fn open_refused(&self, unique: u64) {
        self.ended(self.passthrough.as_ref().and_then(|passthrough| passthrough.refused(unique)));
    }

    /// Brings the whole of a file that was too large for it while it was open.
    fn ended(&self, ino: Option<u64>) {
        if let Some(inode) = ino.and_then(|ino| self.content.flist().inode(ino)) {
            // Perhaps all of it is here now.
            if inode.size() > MAX_EAGER_BYTES {
                self.ahead.push(Job::Assemble { ino: inode.ino() });
            }
        }
    }

    pub(super) fn read(&self, inode: Inode<'_>, read: Read, buffer: &mut Vec<u8>) -> Answer {
        match inode.kind() {
            FileKind::File => {}
            FileKind::Directory => return Answer::Error(Errno::EISDIR),
            _ => return Answer::Error(Errno::EINVAL),
        }
        self.look_ahead(inode, read, true);
        let room = room(buffer, read);
        match self.content.read_at(inode.ino(), read.offset, room) {
            Ok(bytes) => {
                self.reads.fetch_add(1, Ordering::Relaxed);
                Answer::Content(bytes)
            }
            Err(error) => self.failed(inode, read, &error),
        }
    }

    fn failed(&self, inode: Inode<'_>, read: Read, error: &ReadError) -> Answer {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.failed_reads.fetch_add(1, Ordering::Relaxed);
        let (why, Read { offset, size }) = (one_line(error), read);
        warn!(ino = inode.ino(), offset, size, %why, "content cannot be had, answering EIO");
        Answer::Error(Errno::EIO)
    }

    /// Asks for the blocks ahead of a sequential reader.
    fn look_ahead(&self, inode: Inode<'_>, read: Read, is_missing: bool) {
        let index = read.offset / BLOCK_SIZE as u64;
        let end = inode.size().div_ceil(BLOCK_SIZE as u64);
        let wanted = self.blocks_read.follow(inode.ino(), index, is_missing);
        for index in wanted.take_while(|index| *index < end) {
            self.ahead.push(Job::Block { ino: inode.ino(), index });
        }
    }

    /// Asks for the small files ahead of somebody who opens a directory's files in turn.
    fn look_around(&self, inode: Inode<'_>, is_missing: bool) {
        let siblings = self.content.flist().children(inode.parent());
        let Some(position) = siblings.position(inode.name()) else { return };
        let wanted = self.files_opened.follow(inode.parent(), super::to_u64(position), is_missing);
        for sibling in wanted.map_while(|at| siblings.get(usize::try_from(at).ok()?)) {
            if sibling.kind() == FileKind::File && (1..=BLOCK_SIZE as u64).contains(&sibling.size()) {
                self.ahead.push(Job::File { ino: sibling.ino() });
            }
        }
    }

    /// Works ahead until [`Ops::stop_ahead`].
    pub(crate) fn work_ahead(&self) {
        while let Some(job) = self.ahead.next() {
            let (ino, outcome) = match job {
                Job::Block { ino, index } => (ino, self.content.ensure_cached(ino, index)),
                Job::File { ino } => (ino, self.content.open_whole(ino, Effort::Fetch).map(drop)),
                Job::Assemble { ino } => (ino, self.content.open_whole(ino, Effort::Assemble).map(drop)),
                Job::Tidy => {
                    sys::give_back_memory();
                    continue;
                }
            };
            if let Err(error) = outcome {
                // A reader that needs the file gets the error itself.
                debug!(ino, why = %one_line(&error), "a file cannot be brought ahead of its reader");
            }
        }
    }

    /// Says how many requests wait for a thread, which lets the work ahead stand back.
    pub(crate) fn set_waiting(&self, count: usize) {
        self.ahead.set_waiting(count);
    }

    /// Ends all [`Ops::work_ahead`].
    pub(crate) fn stop_ahead(&self) {
        self.ahead.close();
    }
}

/// Gives the part of the buffer that a READ is answered in. The buffer grows to what is asked for and is used again.
fn room(buffer: &mut Vec<u8>, read: Read) -> &mut [u8] {
    let size = usize::try_from(read.size.min(MAX_READ_BYTES)).unwrap_or_default();
    if buffer.len() < size {
        buffer.resize(size, 0);
    }
    buffer.get_mut(..size).unwrap_or_default()
}

fn plain(ino: u64) -> Answer {
    opened(Ok(Opened { handle: PLAIN | ino, way: Way::Cached }))
}

fn opened(opened: Result<Opened, Errno>) -> Answer {
    let (handle, flags, id) = match opened {
        Ok(Opened { handle, way: Way::Cached }) => (handle, open_flag::KEEP_CACHE, 0),
        // The kernel refuses KEEP_CACHE here: there is nothing to keep.
        Ok(Opened { handle, way: Way::Passed(id) }) => (handle, open_flag::PASSTHROUGH, id),
        Err(errno) => return Answer::Error(errno),
    };
    Answer::Body(body(|body| body.open(handle, flags | open_flag::NOFLUSH, id)))
}
