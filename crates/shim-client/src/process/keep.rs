//! What this process holds open of each running container, so that nothing is lost when its shim dies: init's pidfd, by
//! which the kernel tells the exit after init was reaped, and readers of the FIFOs, without which output that was not
//! taken yet would go with the last writer.
//!
//! A reader that nobody reads from changes nothing for the shim: the end of the file depends on writers only.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use contd_protocol::shim::files;
use contd_types::ContainerId;

use super::Place;

#[derive(Debug)]
struct Kept {
    init: OwnedFd,
    _output: [File; 2],
}

/// All that is held, by container.
#[derive(Debug, Default)]
pub(super) struct Keep(Mutex<HashMap<ContainerId, Kept>>);

impl Keep {
    fn map(&self) -> MutexGuard<'_, HashMap<ContainerId, Kept>> {
        // No code under the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what there is of a container that was made; it is fine when it has ended. Blocks for a few local opens.
    pub(super) fn hold(&self, place: &Place) {
        if self.map().contains_key(&place.id) {
            return;
        }
        let open = || -> io::Result<Option<Kept>> {
            let Some(init) = place.living_init()? else { return Ok(None) };
            Ok(Some(Kept { init, _output: [open_fifo(place, files::STDOUT)?, open_fifo(place, files::STDERR)?] }))
        };
        match open() {
            Ok(Some(kept)) => {
                drop(self.map().insert(place.id.clone(), kept));
                // Whoever removes the container does so before it lets go: if that is over, nobody would let go of this.
                if !place.lease.path().exists() {
                    self.let_go(&place.id);
                }
            }
            Ok(None) => {}
            // It runs all the same; only the death of its shim would cost something now.
            Err(error) => tracing::warn!(container = %place.id, %error, "no second holder of its descriptors"),
        }
    }

    /// Lets go: its end is written down, or nothing of it is left.
    pub(super) fn let_go(&self, id: &ContainerId) {
        let kept = self.map().remove(id);
        drop(kept);
    }

    /// Returns a pidfd of init for a successor of the shim.
    pub(super) fn init(&self, id: &ContainerId) -> Option<OwnedFd> {
        self.map().get(id).and_then(|kept| kept.init.try_clone().ok())
    }
}

fn open_fifo(place: &Place, name: &str) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(place.file(name))
}
