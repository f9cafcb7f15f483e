//! The messages between shim, launcher and init: frames with descriptors, over socket pairs.
//!
//! ```text
//! shim ──► launcher   [`LaunchRequest`] + the container's output
//! launcher ──► init   [`Plan`] + all it needs, by descriptor
//! init ──► launcher   [`Readiness`]
//! launcher ──► shim   [`Report`]
//! shim ──► init       one byte: go
//! init ──► shim       end of file: the entrypoint runs; or the [`Fault`] that its exec met
//! ```
//!
//! A frame is a length in bytes (u32, little-endian), then bincode (legacy). Both ends are of one build, forked from
//! one process, so there is no version.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::plan::Plan;

/// The most descriptors in one frame, which is one message.
pub const MAX_FDS: usize = contd_descriptors::MAX_DESCRIPTORS_AT_ONCE;
/// The largest frame: the kernel limits arguments and environment to 2 MiB together (ARG_MAX).
const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// The order to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The directory with `config.json`.
    pub bundle: PathBuf,
}

/// Init's answer to its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Readiness {
    /// Init waits for "go". The master of its terminal comes with it, if it has one.
    Ready,
    /// Init failed.
    Failed(Fault),
}

/// The launcher's answer to its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process waits for "go". With it come the socket to it, if it is not the first one, then the master of its terminal, if it
    /// has one.
    Ready {
        /// Its pid on the host; it is a child of the caller.
        pid: i32,
        /// Whether a socket comes.
        has_other_line: bool,
    },
    /// There is no init.
    Failed(Fault),
}

/// One end of a socket pair.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
}

impl Wire {
    /// Makes both ends; each is closed on exec.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, two) = UnixStream::pair()?;
        Ok((Self { stream: one }, Self { stream: two }))
    }

    /// Duplicates this end.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    /// Sends a frame with descriptors.
    pub(crate) fn send(&mut self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = bincode::serde::encode_to_vec(message, bincode::config::legacy()).map_err(io::Error::other)?;
        if body.len() > MAX_FRAME_BYTES || fds.len() > MAX_FDS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
        let bytes = [&length[..], &body].concat();
        Ok(contd_descriptors::send(&self.stream, &bytes, fds)?)
    }

    /// Receives a frame with its descriptors; `None` at the end of the file.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut fds = Vec::new();
        let count = contd_descriptors::receive(&self.stream, &mut length, &mut fds)?;
        if count == 0 {
            return Ok(None);
        }
        self.stream.read_exact(length.get_mut(count..).unwrap_or_default())?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
        if length > MAX_FRAME_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let limit = bincode::config::legacy().with_limit::<MAX_FRAME_BYTES>();
        let (message, consumed) = bincode::serde::decode_from_slice(&body, limit).map_err(io::Error::other)?;
        if consumed == length { Ok(Some((message, fds))) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Sends one byte without a frame.
    pub(crate) fn send_go(&mut self) -> io::Result<()> {
        self.stream.write_all(b"g")
    }

    /// Waits for that byte; `false` at the end of the file.
    pub(crate) fn receive_go(&mut self) -> io::Result<bool> {
        loop {
            match self.stream.read(&mut [0]) {
                Ok(count) => return Ok(count == 1),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn send_plan(&mut self, plan: &Plan, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.send(plan, &fds)
    }
}

impl From<OwnedFd> for Wire {
    fn from(fd: OwnedFd) -> Self {
        Self { stream: UnixStream::from(fd) }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_large_frame_and_its_descriptors_arrive() {
        let (mut near, mut far) = Wire::pair().expect("pair");
        let bundle = PathBuf::from("x".repeat(1_500_000));
        let expected = bundle.clone();
        let sender = std::thread::spawn(move || {
            let mut pipes = Vec::new();
            for _ in 0..MAX_FDS {
                pipes.push(File::open("/dev/null").expect("open"));
            }
            let fds: Vec<BorrowedFd<'_>> = pipes.iter().map(AsFd::as_fd).collect();
            near.send(&LaunchRequest { bundle }, &fds).expect("send");
        });
        let (request, fds) = far.receive::<LaunchRequest>().expect("receive").expect("a frame");
        sender.join().expect("sender");
        assert_eq!((request.bundle, fds.len()), (expected, MAX_FDS));
        assert!(far.receive::<LaunchRequest>().expect("end").is_none());
    }

    #[test]
    fn more_descriptors_than_the_kernel_takes_are_refused() {
        let (mut near, _far) = Wire::pair().expect("pair");
        let null = File::open("/dev/null").expect("open");
        let fds = vec![null.as_fd(); MAX_FDS + 1];
        let error = near.send(&LaunchRequest { bundle: PathBuf::new() }, &fds).expect_err("too many");
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn a_frame_with_an_absurd_length_is_refused_before_it_is_believed() {
        let (mut near, mut far) = Wire::pair().expect("pair");
        near.stream.write_all(&u32::MAX.to_le_bytes()).expect("write");
        assert!(far.receive::<LaunchRequest>().is_err());
    }
}
