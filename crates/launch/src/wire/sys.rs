//! Takes ownership of received descriptors.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, RecvMsg};

/// Returns the descriptors of a received message; called once for each message.
pub(super) fn take_rights(message: &RecvMsg<'_, '_, ()>) -> io::Result<Vec<OwnedFd>> {
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just put this descriptor into our table for us, nobody else knows its number,
                // and it is taken once: the message is read by this function only.
                fds.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(fds)
}
