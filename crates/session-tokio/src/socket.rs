//! Bytes and descriptors over a socket of interprocess, which itself passes bytes only.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use interprocess::local_socket::tokio::Stream;
use tokio::io::Interest;
use tokio::net::UnixStream;

fn inner(stream: &Stream) -> &UnixStream {
    let Stream::UdSocket(stream) = stream;
    stream.inner()
}

/// Reads some bytes, and adds the descriptors that came with them; 0 is the end. Cancellation-safe.
pub(crate) async fn read(stream: &Stream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let socket = inner(stream);
    loop {
        socket.readable().await?;
        let read = || contd_descriptors::receive(socket, buffer, fds).map_err(io::Error::from);
        match socket.try_io(Interest::READABLE, read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Writes all bytes, and the descriptors with the first of them.
///
/// # Errors
/// What the socket says.
pub async fn write_all(stream: &Stream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let socket = inner(stream);
    let (mut rest, mut fds) = (bytes, fds);
    while !rest.is_empty() {
        socket.writable().await?;
        let write = || contd_descriptors::send_some(socket, rest, fds).map_err(io::Error::from);
        match socket.try_io(Interest::WRITABLE, write) {
            Ok(count) => (rest, fds) = (rest.get(count..).unwrap_or_default(), &[]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
