//! Descriptors beside bytes on a stream socket (`SCM_RIGHTS`), and out of a process that does not answer (`pidfd_getfd`).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::sys;

/// The most descriptors in one message: the kernel takes 253 (`SCM_MAX_FD`); a power of two below.
pub const MAX_DESCRIPTORS_AT_ONCE: usize = 128;

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
    /// Nothing could be read.
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
}

/// Sends all bytes, and the descriptors with the first of them. At most [`MAX_DESCRIPTORS_AT_ONCE`] descriptors.
///
/// # Errors
/// [`RightsError::Send`], also when the socket's own time-out is over.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), RightsError> {
    let failed = |source| RightsError::Send { count: fds.len(), source };
    let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let (mut rest, mut control): (&[u8], &[ControlMessage<'_>]) =
        (bytes, if numbers.is_empty() { &[] } else { &rights });
    while !rest.is_empty() {
        let slices = [IoSlice::new(rest)];
        // A peer that is gone is an error, not a signal.
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(count) => {
                rest = rest.get(count..).unwrap_or_default();
                control = &[];
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Ok(())
}

/// Reads some bytes, and adds the descriptors that came with them to `fds`; 0 is the end. They are close-on-exec.
///
/// # Errors
/// [`RightsError::Receive`], also when the socket's own time-out is over; [`RightsError::TooMany`].
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, RightsError> {
    let failed = |errno: Errno| RightsError::Receive { source: errno.into() };
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([i32; MAX_DESCRIPTORS_AT_ONCE]);
    let raw = socket.as_fd().as_raw_fd();
    let message = loop {
        match recvmsg::<()>(raw, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            result => break result.map_err(failed)?,
        }
    };
    for control in message.cmsgs().map_err(failed)? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            fds.extend(numbers.into_iter().map(sys::own_received));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(RightsError::TooMany);
    }
    Ok(message.bytes)
}

/// Duplicates a descriptor of another process, which need not run: it may stand still.
///
/// # Errors
/// [`RightsError::Take`] when it has none of that number, or we may not.
pub fn take_from(pidfd: impl AsFd, number: i32) -> Result<OwnedFd, RightsError> {
    sys::pidfd_getfd(pidfd.as_fd(), number).map_err(|source| RightsError::Take { number, source })
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
