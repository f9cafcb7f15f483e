//! A session over a blocking socket with a time-out, and the descriptors that come with its messages.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use contd_protocol::session::{Asked, Call, NoItem, Reply, Welcome};
use contd_protocol::{CodecError, Hello, Kind, Protocol, Refusal, Session, Violation};
use contd_types::ApiError;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, UnixCredentials, getsockopt, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::SessionError;

/// Bytes read at once: a usual message.
const READ_BYTES: usize = 4096;

/// The id of the only call that [`Blocking::call`] has under way.
const CALL_ID: u64 = 1;

/// Connects within a time-out: a server that stands still would keep us for ever once its queue is full, which is
/// [`io::ErrorKind::WouldBlock`] then.
///
/// # Errors
/// The system's error: nobody listens, or the queue stayed full.
pub fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let milliseconds = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(milliseconds))?;
    let address = UnixAddr::new(path)?;
    // A signal may interrupt it while the queue is full; it has not begun then, and may be repeated.
    while let Err(errno) = nix::sys::socket::connect(socket.as_raw_fd(), &address) {
        if errno != Errno::EINTR {
            return Err(errno.into());
        }
    }
    Ok(socket.into())
}

/// One side of a connection.
#[derive(Debug)]
pub struct Blocking<P: Protocol> {
    stream: UnixStream,
    session: Session<P>,
}

impl<P: Protocol> Blocking<P> {
    /// Takes a connected socket; no call on it lasts longer than `timeout` without a byte.
    ///
    /// # Errors
    /// [`SessionError::Prepare`].
    pub fn new(stream: UnixStream, timeout: Duration) -> Result<Self, SessionError> {
        let prepare = || {
            stream.set_nonblocking(false)?;
            stream.set_write_timeout(Some(timeout))?;
            stream.set_read_timeout(Some(timeout))
        };
        prepare().map_err(|source| SessionError::Prepare { source })?;
        Ok(Self { stream, session: Session::default() })
    }

    /// Sets how long the other side may take for its next messages.
    ///
    /// # Errors
    /// [`SessionError::Prepare`].
    pub fn be_patient(&self, timeout: Duration) -> Result<(), SessionError> {
        self.stream.set_read_timeout(Some(timeout)).map_err(|source| SessionError::Prepare { source })
    }

    /// Returns the process at the other end: the one that listened, or connected.
    ///
    /// # Errors
    /// [`SessionError::Prepare`] when the kernel does not say.
    pub fn peer(&self) -> Result<UnixCredentials, SessionError> {
        let peer = getsockopt(&self.stream, sockopt::PeerCredentials);
        peer.map_err(|errno| SessionError::Prepare { source: errno.into() })
    }

    /// Sends a message with its descriptors.
    ///
    /// # Errors
    /// [`SessionError::Unsendable`] or [`SessionError::Socket`].
    pub fn send(&self, kind: Kind, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), SessionError> {
        self.write(self.session.frame(kind, message), fds)
    }

    fn write(&self, bytes: Result<Vec<u8>, CodecError>, fds: &[BorrowedFd<'_>]) -> Result<(), SessionError> {
        contd_descriptors::send(&self.stream, &bytes?, fds).map_err(|source| SessionError::Socket { source })
    }

    /// Waits for the next message, which must be of this kind; `wanted` names it in errors.
    ///
    /// # Errors
    /// [`SessionError`]; [`SessionError::HungUp`] when the other side has closed.
    pub fn next<T: DeserializeOwned>(&mut self, kind: Kind, wanted: &'static str) -> Result<T, SessionError> {
        self.receive(|session| session.next(kind, wanted))?.ok_or(SessionError::HungUp)
    }

    /// Takes the next descriptor that came.
    ///
    /// # Errors
    /// [`SessionError::NoDescriptor`].
    pub fn descriptor(&mut self) -> Result<OwnedFd, SessionError> {
        let taken = self.session.take_descriptors(1).ok().and_then(|mut fds| fds.pop());
        taken.ok_or(SessionError::NoDescriptor)
    }

    /// Reads until `take` finds a message; `None` when the other side has closed between frames.
    fn receive<T>(
        &mut self,
        take: impl Fn(&mut Session<P>) -> Result<Option<T>, Violation>,
    ) -> Result<Option<T>, SessionError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(message) = take(&mut self.session)? {
                return Ok(Some(message));
            }
            let mut fds = Vec::new();
            let count = contd_descriptors::receive(&self.stream, &mut buffer, &mut fds);
            self.session.push_descriptors(fds)?;
            match count.map_err(|source| SessionError::Socket { source })? {
                0 if self.session.is_mid_frame() => return Err(SessionError::HungUp),
                0 => return Ok(None),
                count => self.session.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Caller: says hello and waits for the answer.
    ///
    /// # Errors
    /// [`SessionError`]; [`SessionError::Refused`] when the other side does not want us.
    pub fn greet(&mut self, agent: &str) -> Result<Welcome, SessionError> {
        self.write(self.session.hello(agent), &[])?;
        let answer = self.receive(Session::hear_welcome)?.ok_or(SessionError::HungUp)?;
        answer.map_err(|source| SessionError::Refused { source })
    }

    /// Caller: asks and waits for the answer. Only for protocols without streams.
    ///
    /// # Errors
    /// [`SessionError`]; [`SessionError::Answer`] when the answer is an error.
    pub fn call(&mut self, request: P::Request) -> Result<P::Response, SessionError>
    where
        P: Protocol<Item = NoItem>,
    {
        self.send(Kind::Call, &Call { id: CALL_ID, request }, &[])?;
        let Reply { id, result } = self.next(Kind::Reply, "a reply")?;
        if id != CALL_ID {
            return Err(Violation::UnknownCall { id }.into());
        }
        result.map_err(|source| SessionError::Answer { source })
    }

    /// Answering side: waits for the hello and answers it; `None` when the caller has closed without one.
    ///
    /// # Errors
    /// [`SessionError`]; [`SessionError::Refused`] after a refusal was sent.
    pub fn welcome(&mut self, agent: &str) -> Result<Option<Hello>, SessionError> {
        let Some(hello) = self.receive(Session::hear_hello)? else { return Ok(None) };
        let (bytes, outcome) = self.session.answer_hello(&hello, agent, |_version| Ok(()))?;
        self.write(Ok(bytes), &[])?;
        outcome.map(|()| Some(hello)).map_err(|source| SessionError::Refused { source })
    }

    /// Answering side: refuses a caller, also before its hello has come.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn refuse(&self, refusal: &Refusal) -> Result<(), SessionError> {
        self.write(self.session.refuse(refusal), &[])
    }

    /// Answering side: waits for the next call; `None` when the caller has closed.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn next_call(&mut self) -> Result<Option<Call<P::Request>>, SessionError>
    where
        P: Protocol<Item = NoItem>,
    {
        match self.receive(Session::next_asked)? {
            Some(Asked::Call(call)) => Ok(Some(call)),
            // The session of a protocol without streams has refused both.
            Some(Asked::Cancel(_) | Asked::Credit(_)) | None => Ok(None),
        }
    }

    /// Answering side: answers a call, with the descriptors that belong to the answer.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn reply(
        &self,
        id: u64,
        result: Result<P::Response, ApiError>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), SessionError> {
        self.send(Kind::Reply, &Reply { id, result }, fds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_protocol::flistfs::{FlistSocket, Request, Response};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (Blocking<FlistSocket>, Blocking<FlistSocket>) {
        let (one, other) = UnixStream::pair().expect("a pair");
        (Blocking::new(one, LONG).expect("prepared"), Blocking::new(other, LONG).expect("prepared"))
    }

    #[test]
    fn a_call_is_answered_with_descriptors_and_the_end_is_told() {
        let (mut caller, mut server) = pair();
        let serving = std::thread::spawn(move || {
            server.welcome("server").expect("welcomed").expect("a hello");
            let call = server.next_call().expect("valid").expect("a call");
            let file = tempfile::tempfile().expect("scratch");
            server.reply(call.id, Ok(Response::Done), &[file.as_fd()]).expect("sent");
            assert!(server.next_call().expect("valid").is_none(), "the caller has closed");
        });
        assert_eq!(caller.greet("caller").expect("greeted").agent, "server");
        assert_eq!(caller.call(Request::Status).expect("answered"), Response::Done);
        caller.descriptor().expect("one came");
        assert!(matches!(caller.descriptor(), Err(SessionError::NoDescriptor)));
        drop(caller);
        serving.join().expect("no panic");
    }

    #[test]
    fn a_peer_that_breaks_off_is_a_hang_up_and_one_that_says_nothing_is_silence() {
        let (mut caller, server) = pair();
        drop(server);
        assert!(caller.greet("caller").expect_err("gone").is_hang_up());
        let (mut caller, _server) = pair();
        caller.be_patient(Duration::from_millis(20)).expect("set");
        assert!(caller.greet("caller").expect_err("silent").is_silence());
    }

    #[test]
    fn an_answer_is_waited_for_also_when_a_signal_comes_meanwhile() {
        let (mut own, server) = pair();
        let asked = std::thread::spawn(move || own.next::<u32>(Kind::Reply, "a reply"));
        // Being stopped and continued interrupts a wait with a deadline, as a handled signal does, and needs no handler.
        let script = format!("sleep 0.2; kill -STOP {0}; sleep 0.1; kill -CONT {0}", std::process::id());
        let stopper = std::process::Command::new("/bin/sh").args(["-c", &script]).status().expect("run a shell");
        assert!(stopper.success());
        server.send(Kind::Reply, &7u32, &[]).expect("answer");
        assert_eq!(asked.join().expect("no panic").expect("an answer"), 7);
    }

    #[test]
    fn a_server_whose_queue_is_full_is_silent_and_keeps_nobody_for_ever() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("sock");
        let _never_accepts = UnixListener::bind(&path).expect("bind");
        let mut held = Vec::new();
        let full = loop {
            // The queue has at most some thousand places (net.core.somaxconn).
            assert!(held.len() < 10_000, "the queue is never full");
            match connect(&path, Duration::from_millis(200)) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
