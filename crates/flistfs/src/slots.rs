//! The memory of a mount in which requests stand until they are answered: whoever serves next finds there what its predecessor,
//! killed at any moment, had read and not answered. It is a memfd that the keeper holds and every server maps.
//!
//! ```text
//! inbox 0 │ inbox 1 │ … │ marks │ shelf: a request each, short ones only
//!    ▲ one thread reads requests straight into it            ▲ copied there while all that may take long are busy
//! ```
//!
//! A place is marked before it is filled and until the answer is with the kernel, so a request stands in a marked place as long as
//! the kernel waits. One that stands there and was answered costs nothing: the kernel refuses a second answer (ENOENT).
//!
//! The inboxes are locked in memory: when the kernel copies a request for a process that is being killed, it cannot wait for a
//! page, and would fail the request with EIO. A copy has no such moment, so the shelf takes memory only where it was ever used.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::warn;

use crate::sys;
use crate::wire::{IN_HEADER_BYTES, REQUEST_BUFFER_BYTES, declared_bytes};

/// The inboxes: one for each thread of a server. A server of another version may have fewer threads, not more.
pub const INBOXES: usize = 6;

/// The most requests on the shelf. Each stands for a waiting thread somewhere or one of the kernel's few background
/// requests, so this is never reached in practice.
const PLACES: usize = 16 * 1024;

/// Bytes of a place on the shelf: an OPEN has 48, a READ 80.
const PLACE_BYTES: usize = 128;

const MAX_PAGE_BYTES: usize = 64 * 1024;

/// The sizes of the three parts, each a multiple of the largest page that Linux has.
const INBOX_PART: usize = (INBOXES * REQUEST_BUFFER_BYTES).next_multiple_of(MAX_PAGE_BYTES);
const MARK_PART: usize = ((INBOXES + PLACES) * size_of::<AtomicU32>()).next_multiple_of(MAX_PAGE_BYTES);
const SHELF_PART: usize = PLACES * PLACE_BYTES;
const BYTES: usize = INBOX_PART + MARK_PART + SHELF_PART;

/// The value of a mark whose place has, or is about to get, a request; otherwise it is 0.
const TAKEN: u32 = 1;

/// Makes the memory of a new mount, without any request.
///
/// # Errors
/// When there is no memory or descriptor for it.
pub fn create() -> io::Result<OwnedFd> {
    let memory = memfd_create(c"contd-flistfs-requests", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&memory, i64::try_from(BYTES).unwrap_or(i64::MAX))?;
    Ok(memory)
}

/// The memory as one server has it, for as long as the process lives. No other process uses it: the one before is dead.
#[derive(Debug)]
pub struct Slots {
    /// One for each thread.
    pub inboxes: Vec<Inbox>,
    /// The requests that wait.
    pub shelf: Shelf,
}

impl Slots {
    /// Maps the memory of a mount; once in each process.
    ///
    /// # Errors
    /// When it is of another form, or cannot be mapped.
    pub fn map(memory: impl AsFd) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(&memory)?;
        if usize::try_from(stat.st_size) != Ok(BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes, not {BYTES}", stat.st_size)));
        }
        let inboxes = sys::map(&memory, 0, INBOX_PART)?;
        if let Err(error) = sys::lock(inboxes) {
            warn!(%error, "requests are not locked in memory: one may fail when this process is killed while memory is short");
        }
        let marks = sys::as_marks(sys::map(&memory, INBOX_PART, MARK_PART)?);
        let shelf = sys::map(&memory, INBOX_PART + MARK_PART, SHELF_PART)?;
        let (of_inboxes, of_places) = marks.split_at_checked(INBOXES).unwrap_or_default();
        let inboxes = inboxes.chunks_exact_mut(REQUEST_BUFFER_BYTES).zip(of_inboxes);
        let places = shelf.chunks_exact_mut(PLACE_BYTES).zip(of_places);
        Ok(Self {
            inboxes: inboxes.map(|(bytes, mark)| Inbox { bytes, mark }).collect(),
            shelf: Shelf::of(places.map(|(bytes, mark)| Place { bytes, mark })),
        })
    }
}

/// The inbox of one thread.
#[derive(Debug)]
pub struct Inbox {
    bytes: &'static mut [u8],
    mark: &'static AtomicU32,
}

impl Inbox {
    /// Returns the request that a predecessor has left unanswered.
    #[must_use]
    pub fn left(&self) -> Option<&[u8]> {
        left(self.mark, self.bytes)
    }

    /// Waits for the next request of the kernel, which stays marked until [`Self::clear`].
    ///
    /// # Errors
    /// The device's.
    pub fn read(&mut self, device: &File) -> io::Result<&[u8]> {
        // Killed while it waits, it leaves an empty request, not the one before.
        self.bytes.iter_mut().take(IN_HEADER_BYTES).for_each(|byte| *byte = 0);
        self.mark.store(TAKEN, Ordering::SeqCst);
        let len = (&mut &*device).read(self.bytes)?;
        Ok(self.bytes.get(..len).unwrap_or_default())
    }

    /// Forgets the request: it is answered, or stands on the shelf.
    pub fn clear(&mut self) {
        self.mark.store(0, Ordering::SeqCst);
    }
}

/// One place on the shelf.
#[derive(Debug)]
struct Place {
    bytes: &'static mut [u8],
    mark: &'static AtomicU32,
}

/// The requests that wait until one that may take long is done, in the order of their coming; those of a predecessor first, in any.
#[derive(Debug)]
pub struct Shelf {
    waiting: VecDeque<Place>,
    free: Vec<Place>,
}

/// A request that was taken from the shelf, to be answered; its place is marked until [`Shelf::free`].
#[derive(Debug)]
pub struct Waiting(Place);

impl Shelf {
    fn of(places: impl Iterator<Item = Place>) -> Self {
        let (waiting, mut free): (Vec<_>, Vec<_>) = places.partition(|place| left(place.mark, place.bytes).is_some());
        // The first places are used first, so that the others never take memory.
        free.reverse();
        Self { waiting: waiting.into(), free }
    }

    /// Puts a request behind the others; `false` if it is too long or there is no room.
    pub fn put(&mut self, request: &[u8]) -> bool {
        if request.len() > PLACE_BYTES {
            return false;
        }
        let Some(place) = self.free.pop() else { return false };
        place.bytes.iter_mut().zip(request).for_each(|(to, from)| *to = *from);
        place.mark.store(TAKEN, Ordering::SeqCst);
        self.waiting.push_back(place);
        true
    }

    /// Takes the one that waits longest.
    pub fn take(&mut self) -> Option<Waiting> {
        self.waiting.pop_front().map(Waiting)
    }

    /// Gives back the place of a request that is answered.
    pub fn free(&mut self, Waiting(place): Waiting) {
        place.mark.store(0, Ordering::SeqCst);
        self.free.push(place);
    }

    /// Counts those that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Tells whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Waiting {
    /// Returns the request.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        left(self.0.mark, self.0.bytes).unwrap_or_default()
    }
}

/// Reads a place: nothing if it is not marked, or if the process was killed before the request was there.
fn left<'a>(mark: &AtomicU32, bytes: &'a [u8]) -> Option<&'a [u8]> {
    if mark.load(Ordering::SeqCst) != TAKEN {
        return None;
    }
    bytes.get(..declared_bytes(bytes)?).filter(|request| request.len() >= IN_HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn request(unique: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![unique; len];
        bytes.splice(..4, u32::try_from(len).unwrap().to_ne_bytes());
        bytes
    }

    /// A device that gives these bytes.
    fn device(bytes: &[u8]) -> File {
        let (read, mut write) = io::pipe().unwrap();
        write.write_all(bytes).unwrap();
        File::from(OwnedFd::from(read))
    }

    #[test]
    fn a_successor_finds_what_was_read_and_not_cleared() {
        let memory = create().unwrap();
        let mut first = Slots::map(&memory).unwrap();
        assert_eq!(first.inboxes.len(), INBOXES);
        assert!(first.inboxes.iter().all(|inbox| inbox.left().is_none()));
        let [one, two, three] = &mut first.inboxes[..3] else { panic!() };
        assert_eq!(one.read(&device(&request(1, 60))).unwrap(), request(1, 60));
        two.read(&device(&request(2, 60))).unwrap();
        two.clear();
        // Killed while it waits: an end of file gives nothing, and the request before is forgotten.
        three.read(&device(&request(3, 60))).unwrap();
        three.clear();
        assert_eq!(three.read(&device(b"")).unwrap(), b"");
        drop(first);
        let second = Slots::map(&memory).unwrap();
        let left: Vec<_> = second.inboxes.iter().map(|inbox| inbox.left().map(<[u8]>::to_vec)).collect();
        assert_eq!(left[0], Some(request(1, 60)));
        assert!(left[1..].iter().all(Option::is_none), "{left:?}");
    }

    #[test]
    fn the_shelf_keeps_the_order_and_outlives_its_server() {
        let memory = create().unwrap();
        let mut shelf = Slots::map(&memory).unwrap().shelf;
        for unique in 1..=3 {
            assert!(shelf.put(&request(unique, 80)));
        }
        assert!(!shelf.put(&request(9, PLACE_BYTES + 1)), "too long");
        let first = shelf.take().unwrap();
        assert_eq!(first.request(), request(1, 80));
        let second = shelf.take().unwrap();
        shelf.free(second);
        assert_eq!(shelf.len(), 1);
        // It dies with the first in its hand.
        drop((first, shelf));
        let mut shelf = Slots::map(&memory).unwrap().shelf;
        let mut left = Vec::new();
        while let Some(waiting) = shelf.take() {
            left.push(waiting.request().to_vec());
            shelf.free(waiting);
        }
        assert_eq!(left, [request(1, 80), request(3, 80)]);
        let shelf = Slots::map(&memory).unwrap().shelf;
        assert!(shelf.is_empty());
        assert_eq!(shelf.free.len(), PLACES);
    }

    #[test]
    fn a_full_shelf_takes_no_more() {
        let memory = create().unwrap();
        let mut shelf = Slots::map(&memory).unwrap().shelf;
        for _ in 0..PLACES {
            assert!(shelf.put(&request(1, 48)));
        }
        assert!(!shelf.put(&request(1, 48)));
    }

    #[test]
    fn memory_of_another_form_is_refused() {
        let memory = memfd_create(c"other", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(Slots::map(&memory).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
