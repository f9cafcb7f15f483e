//! The open files of one connection, and how each is served.
//!
//! The kernel wants all handles of one inode served in one way: all from its own cache, or all passed through to the same
//! backing file; a successor that did otherwise would see its `open` fail with EIO. So this is the one thing that outlives
//! a server: every handle has a record in a file, written before the kernel hears of it.
//!
//! ```text
//! handle = generation << 32 | slot          record of a slot: unique · ino · generation · backing id   (24 bytes)
//! ```
//!
//! The record of a handle names the OPEN that made it, so that an OPEN which a dead server had begun gives the same handle,
//! and a RELEASE that is answered twice ends it once. A server that dies between asking for a backing id and writing it down
//! leaves that id behind: at most one per thread, until the file system is unmounted.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

/// Bytes of a record.
const RECORD_BYTES: usize = 24;

/// The most handles of a connection, in 40 MiB: far more than a node's processes may have open of one flist.
const MAX_HANDLES: usize = 1 << 20;

/// How the handles of an inode are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By READ, through the kernel's cache.
    Cached,
    /// From the file behind this backing id.
    Passed(u32),
}

/// One open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    /// Of the OPEN that made it: the kernel never gives a number twice.
    unique: u64,
    /// 0: free.
    ino: u64,
    generation: u32,
    /// 0: cached. The kernel counts from 1.
    backing: u32,
}

#[derive(Debug, Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The inodes that are open: how, and how often.
    uses: HashMap<u64, (Way, u32)>,
    /// The OPENs of a dead predecessor, by `unique`: one of them may be answered again.
    inherited: HashMap<u64, u32>,
}

/// The handles of one connection.
#[derive(Debug)]
pub(crate) struct Handles {
    file: File,
    state: Mutex<State>,
    write_failure_told: AtomicBool,
}

impl Slot {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let fields = self.unique.to_ne_bytes().into_iter().chain(self.ino.to_ne_bytes());
        let fields = fields.chain(self.generation.to_ne_bytes()).chain(self.backing.to_ne_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (unique, rest) = bytes.split_first_chunk()?;
        let (ino, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (backing, _) = rest.split_first_chunk()?;
        let (unique, ino) = (u64::from_ne_bytes(*unique), u64::from_ne_bytes(*ino));
        Some(Self { unique, ino, generation: u32::from_ne_bytes(*generation), backing: u32::from_ne_bytes(*backing) })
    }

    fn way(self) -> Way {
        if self.backing == 0 { Way::Cached } else { Way::Passed(self.backing) }
    }
}

impl State {
    /// Rebuilds everything from the records.
    fn of_predecessor(records: &[u8]) -> Self {
        let mut state = Self::default();
        for (slot, index) in records.chunks_exact(RECORD_BYTES).filter_map(Slot::from_bytes).zip(0_u32..) {
            state.slots.push(slot);
            if slot.ino == 0 {
                state.free.push(index);
                continue;
            }
            state.inherited.insert(slot.unique, index);
            state.uses.entry(slot.ino).or_insert((slot.way(), 0)).1 += 1;
        }
        state
    }

    fn handle(&self, index: u32) -> Option<(u64, Way)> {
        let slot = self.slots.get(usize::try_from(index).ok()?)?;
        Some((u64::from(slot.generation) << 32 | u64::from(index), slot.way()))
    }
}

impl Handles {
    /// Begins without any handle: for a new connection.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
        Ok(Self { file: options?, state: Mutex::default(), write_failure_told: AtomicBool::new(false) })
    }

    /// Goes on with the handles that a dead predecessor has written down.
    pub(crate) fn take_over(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut records = vec![0; len.min(MAX_HANDLES * RECORD_BYTES)];
        file.read_exact_at(&mut records, 0)?;
        let state = Mutex::new(State::of_predecessor(&records));
        Ok(Self { file, state, write_failure_told: AtomicBool::new(false) })
    }

    /// Gives the handle of an OPEN that the predecessor had written down; the kernel may have heard of it, or not.
    pub(crate) fn again(&self, unique: u64) -> Option<(u64, Way)> {
        let state = self.state();
        state.handle(*state.inherited.get(&unique)?)
    }

    /// Gives the handle that was made for an OPEN whose answer the kernel refuses: it had one, and has closed it since.
    pub(crate) fn refused(&self, unique: u64) -> Option<u64> {
        let state = self.state();
        if state.inherited.contains_key(&unique) {
            return None;
        }
        let index = state.slots.iter().position(|slot| slot.ino != 0 && slot.unique == unique)?;
        state.handle(u32::try_from(index).ok()?).map(|(handle, _)| handle)
    }

    /// Makes one more handle of an inode that is open already; `None` if it is not.
    ///
    /// In one step: between a look and a second call the last handle could end, and its backing id with it.
    pub(crate) fn join(&self, unique: u64, ino: u64) -> Option<Option<(u64, Way)>> {
        let mut state = self.state();
        let (way, _) = *state.uses.get(&ino)?;
        Some(self.add(&mut state, unique, ino, way))
    }

    /// Makes a handle, served this way unless the inode is open in another; returns the way that counts.
    ///
    /// `None` when there are too many.
    pub(crate) fn open(&self, unique: u64, ino: u64, way: Way) -> Option<(u64, Way)> {
        let mut state = self.state();
        let way = state.uses.get(&ino).map_or(way, |(way, _)| *way);
        self.add(&mut state, unique, ino, way)
    }

    fn add(&self, state: &mut State, unique: u64, ino: u64, way: Way) -> Option<(u64, Way)> {
        let backing = match way {
            Way::Cached => 0,
            Way::Passed(id) => id,
        };
        let index = match state.free.pop() {
            Some(index) => index,
            None if state.slots.len() < MAX_HANDLES => {
                let index = u32::try_from(state.slots.len()).ok()?;
                state.slots.push(Slot { unique: 0, ino: 0, generation: 0, backing: 0 });
                index
            }
            None => return None,
        };
        let slot = state.slots.get_mut(usize::try_from(index).ok()?)?;
        *slot = Slot { unique, ino, generation: slot.generation.wrapping_add(1), backing };
        let record = slot.to_bytes();
        state.uses.entry(ino).or_insert((way, 0)).1 += 1;
        self.write(index, &record);
        state.handle(index)
    }

    /// Ends a handle. Returns the way of an inode that nobody has open any more, with its number.
    pub(crate) fn release(&self, handle: u64) -> Option<(u64, Way)> {
        let (index, generation) = (u32::try_from(handle & 0xffff_ffff).ok()?, u32::try_from(handle >> 32).ok()?);
        let mut state = self.state();
        let slot = state.slots.get_mut(usize::try_from(index).ok()?)?;
        if slot.ino == 0 || slot.generation != generation {
            // It was ended by a predecessor that had no time to answer.
            return None;
        }
        let (ino, unique) = (slot.ino, slot.unique);
        *slot = Slot { unique: 0, ino: 0, generation, backing: 0 };
        let record = slot.to_bytes();
        self.write(index, &record);
        state.inherited.remove(&unique);
        state.free.push(index);
        let (way, count) = state.uses.get_mut(&ino)?;
        let way = *way;
        *count = count.saturating_sub(1);
        if *count > 0 {
            return None;
        }
        state.uses.remove(&ino);
        Some((ino, way))
    }

    /// Writes a record, in the order of the changes: the state is locked.
    fn write(&self, index: u32, record: &[u8]) {
        let at = u64::from(index) * RECORD_BYTES as u64;
        if let Err(error) = self.file.write_all_at(record, at) {
            // Only a successor would miss it, and there may never be one.
            if !self.write_failure_told.swap(true, Ordering::Relaxed) {
                warn!(%error, "open files cannot be written down: after a crash their opening again may fail");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Handles {
        fn way(&self, ino: u64) -> Option<Way> {
            self.state().uses.get(&ino).map(|(way, _)| *way)
        }
    }

    fn scratch() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handles");
        (dir, path)
    }

    #[test]
    fn an_inode_is_served_in_one_way_as_long_as_it_is_open() {
        let (_dir, path) = scratch();
        let handles = Handles::create(&path).unwrap();
        assert_eq!((handles.way(5), handles.join(99, 5)), (None, None));
        let (first, way) = handles.open(100, 5, Way::Passed(7)).unwrap();
        assert_eq!(way, Way::Passed(7));
        let (second, way) = handles.open(101, 5, Way::Cached).unwrap();
        assert_eq!((way, handles.way(5)), (Way::Passed(7), Some(Way::Passed(7))));
        assert_ne!(first, second);
        assert_eq!(handles.release(first), None);
        assert_eq!(handles.release(first), None, "twice");
        let (third, way) = handles.join(103, 5).unwrap().unwrap();
        assert_eq!((way, handles.release(second)), (Way::Passed(7), None));
        assert_eq!(handles.release(third), Some((5, Way::Passed(7))));
        assert_eq!((handles.way(5), handles.join(104, 5)), (None, None));
        assert_eq!(handles.open(102, 5, Way::Cached).unwrap().1, Way::Cached);
    }

    #[test]
    fn a_successor_knows_every_handle_and_every_open_that_may_be_answered_again() {
        let (_dir, path) = scratch();
        let handles = Handles::create(&path).unwrap();
        let (passed, _) = handles.open(100, 5, Way::Passed(7)).unwrap();
        let (closed, _) = handles.open(101, 6, Way::Passed(8)).unwrap();
        let (cached, _) = handles.open(102, 9, Way::Cached).unwrap();
        handles.release(closed);
        drop(handles);
        let handles = Handles::take_over(&path).unwrap();
        assert_eq!([5, 6, 9].map(|ino| handles.way(ino)), [Some(Way::Passed(7)), None, Some(Way::Cached)]);
        assert_eq!(handles.again(100), Some((passed, Way::Passed(7))));
        assert_eq!((handles.again(101), handles.again(103)), (None, None));
        // The slot of the closed handle is used again, and the late second RELEASE of the old one ends nothing.
        let (fresh, _) = handles.open(103, 6, Way::Cached).unwrap();
        assert_eq!((handles.refused(103), handles.refused(100), handles.refused(104)), (Some(fresh), None, None));
        assert_eq!(fresh & 0xffff_ffff, closed & 0xffff_ffff);
        assert_eq!(handles.release(closed), None);
        assert_eq!(handles.way(6), Some(Way::Cached));
        assert_eq!(handles.release(passed), Some((5, Way::Passed(7))));
        assert_eq!(handles.release(cached), Some((9, Way::Cached)));
        assert_eq!(handles.release(u64::MAX), None);
    }

    #[test]
    fn a_record_cut_off_by_a_crash_is_no_handle() {
        let (_dir, path) = scratch();
        let handles = Handles::create(&path).unwrap();
        handles.open(100, 5, Way::Cached).unwrap();
        drop(handles);
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        io::Write::write_all(&mut &file, &[1; RECORD_BYTES - 1]).unwrap();
        let handles = Handles::take_over(&path).unwrap();
        assert_eq!(handles.state().slots.len(), 1);
        assert_eq!(handles.way(5), Some(Way::Cached));
    }
}
