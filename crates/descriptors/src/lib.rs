//! Descriptors that pass from one process to another, and descriptors of processes.
//!
//! Takes in: sockets, names, descriptors. Gives out: owned descriptors. Never does: decide who gets what, or what a name
//! means. Blocks as long as the socket's own time-outs say; no async.
//!
//! ```text
//!  process ── bytes + SCM_RIGHTS ──► process                          send, receive
//!  a process that stands still ── pidfd_getfd ──► its successor       take_from
//!  a pid ── pidfd_open ──► its descriptor ── signal                   pidfd
//! ```
#![deny(unsafe_code)]

pub mod pidfd;
pub mod terminal;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

/// The most descriptors in one message: the kernel's own limit (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS_AT_ONCE: usize = 253;

/// Room for the descriptors of one message, in bytes.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS_AT_ONCE));

/// A descriptor under the name that its giver gave it.
#[derive(Debug)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The descriptor.
    pub fd: OwnedFd,
}

/// Why descriptors could not be passed.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The socket refused.
    #[error("send {count} descriptors over a socket")]
    Send {
        /// How many.
        count: usize,
        /// Why.
        source: io::Error,
    },
    /// The socket could not be read.
    #[error("receive descriptors over a socket")]
    Receive {
        /// Why.
        source: io::Error,
    },
    /// More came than there was room for; the kernel has closed the rest.
    #[error("receive descriptors over a socket: more than {MAX_DESCRIPTORS_AT_ONCE} came at once")]
    TooMany,
    /// Another process did not give it up.
    #[error("take descriptor {number} from another process")]
    Take {
        /// Its number there.
        number: i32,
        /// Why.
        source: io::Error,
    },
}

impl RightsError {
    /// Says what to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Send { .. } | Self::Receive { .. } => "the other side may have ended; start it again",
            Self::TooMany => "use programs of the same release on both sides",
            Self::Take { .. } => "run as root; the kernel must be 5.6 or newer",
        }
    }

    /// Returns what the socket or the kernel said.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Send { source, .. } | Self::Receive { source } | Self::Take { source, .. } => Some(source),
            Self::TooMany => None,
        }
    }
}

/// The error of the socket or the kernel; `E2BIG` for [`RightsError::TooMany`].
impl From<RightsError> for io::Error {
    fn from(error: RightsError) -> Self {
        match error {
            RightsError::Send { source, .. } | RightsError::Receive { source } | RightsError::Take { source, .. } => {
                source
            }
            RightsError::TooMany => Errno::TOOBIG.into(),
        }
    }
}

/// Sends all bytes, and the descriptors with the first of them. At most [`MAX_DESCRIPTORS_AT_ONCE`] descriptors.
///
/// # Errors
/// [`RightsError::Send`], also when the socket's own time-out is over, and with `E2BIG` for too many descriptors.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), RightsError> {
    let (mut rest, mut fds) = (bytes, fds);
    while !rest.is_empty() {
        let count = send_some(&socket, rest, fds)?;
        rest = rest.get(count..).unwrap_or_default();
        fds = &[];
    }
    Ok(())
}

/// Sends as many bytes as the socket takes, at least one, and all descriptors with them; returns how many bytes.
///
/// # Errors
/// As [`send`]; nothing was sent then.
pub fn send_some(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, RightsError> {
    let failed = |errno: Errno| RightsError::Send { count: fds.len(), source: errno.into() };
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(failed(Errno::TOOBIG));
    }
    loop {
        // A peer that is gone is an error, not a signal.
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map_err(failed),
        }
    }
}

/// Reads some bytes, and adds the descriptors that came with them to `fds`; 0 is the end. They are close-on-exec.
///
/// # Errors
/// [`RightsError::Receive`], also when the socket's own time-out is over; [`RightsError::TooMany`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut impl Extend<OwnedFd>) -> Result<usize, RightsError> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result.map_err(|errno| RightsError::Receive { source: errno.into() })?,
        }
    };
    for passed in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = passed {
            fds.extend(passed);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) { Err(RightsError::TooMany) } else { Ok(message.bytes) }
}

/// Duplicates a descriptor of another process, which need not run: it may stand still.
///
/// # Errors
/// [`RightsError::Take`] when it has none of that number, or we may not.
pub fn take_from(pidfd: impl AsFd, number: i32) -> Result<OwnedFd, RightsError> {
    let taken = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty());
    taken.map_err(|errno| RightsError::Take { number, source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_their_bytes_and_lead_to_the_same_file() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"kept").unwrap();
        file.rewind().unwrap();
        send(&ours, b"hello", &[file.as_fd()]).unwrap();
        let (mut buffer, mut fds) = ([0; 64], Vec::new());
        assert_eq!(receive(&theirs, &mut buffer, &mut fds).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        let mut text = String::new();
        std::fs::File::from(fds.pop().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
        drop(ours);
        assert_eq!(receive(&theirs, &mut buffer, &mut fds).unwrap(), 0);
    }

    #[test]
    fn a_full_message_arrives_whole() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&ours, b"x", &vec![file.as_fd(); MAX_DESCRIPTORS_AT_ONCE]).unwrap();
        let (mut buffer, mut fds) = ([0; 1], Vec::new());
        receive(&theirs, &mut buffer, &mut fds).unwrap();
        assert_eq!(fds.len(), MAX_DESCRIPTORS_AT_ONCE);
    }
}
