//! One connection of any of our protocols, without its socket: hello, agreed version, messages, limits, violations.
//!
//! ```text
//!   caller                                          answering side
//!   hello(agent) ─────────── Hello ───────────────► hear_hello
//!   hear_welcome ◄────────── HelloReply ─────────── answer_hello | refuse
//!   call(id, request) ────── Call ────────────────► next_asked
//!   next_answered ◄───────── Item* , then Reply ─── item | reply
//!   cancel, credit ───────── Cancel, Credit ──────► next_asked        protocols with streams only
//! ```
//!
//! A driver owns the socket. It pushes the bytes that it reads into a [`Session`], takes messages out until there is none,
//! and writes the bytes that a session makes. Drivers: `contd-session` (blocking, and for `poll(2)`), `contd-session-tokio`.
//! Descriptors that come with a message are pushed as well, and taken with it: how many, the [`Protocol`] says by its content.
//! Any [`Violation`] ends the connection: where the next frame begins, or what it answers, is not known any more.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use contd_types::{ApiError, ErrorKind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hello::{HELLO_VERSION, Hello, HelloReply, Refusal, VersionRange, negotiate};
use crate::{CodecError, Frame, FrameError, FrameReader, Kind, decode};

/// A protocol: what is asked and answered on a socket, and how much of it at once.
pub trait Protocol: Debug + Send + Sync + 'static {
    /// The requests of callers.
    type Request: Debug + Send + Serialize + DeserializeOwned;
    /// A piece of a call's stream; [`NoItem`] where there are no streams.
    type Item: Debug + Send + Serialize + DeserializeOwned;
    /// The last answer to a call.
    type Response: Debug + Send + Serialize + DeserializeOwned;

    /// The versions that this build speaks.
    const VERSIONS: VersionRange;
    /// The most bytes of a frame's body; a larger one is a violation before anything is allocated for it.
    const MAX_BODY_BYTES: usize;
    /// The most calls under way on one connection; more are answered [`busy`].
    const MAX_CALLS: usize;
    /// How many items of a call may wait unread; 0 for a protocol without items, cancels and credit.
    const CREDIT: u32 = 0;
    /// How many bytes an async driver reads at once: room for a usual message.
    const READ_BYTES: usize = 4096;

    /// Returns how many descriptors come with a request.
    fn descriptors_of_request(_request: &Self::Request) -> usize {
        0
    }

    /// Returns how many descriptors come with a response.
    fn descriptors_of_response(_response: &Self::Response) -> usize {
        0
    }

    /// Checks an item beyond its form.
    ///
    /// # Errors
    /// The violation that it is.
    fn check_item(_item: &Self::Item) -> Result<(), Violation> {
        Ok(())
    }
}

/// The most descriptors that may have come while the messages that they belong to have not: more than any message has.
pub const MAX_DESCRIPTORS_WAITING: usize = 256;

/// The item of a protocol without streams: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoItem {}

/// A request with its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call<R> {
    /// Chosen by the caller, and not in use on this connection.
    pub id: u64,
    /// The request.
    pub request: R,
}

/// The last answer to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply<R> {
    /// The call's id.
    pub id: u64,
    /// The answer.
    pub result: Result<R, ApiError>,
}

/// One piece of a call's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamItem<I> {
    /// The call's id.
    pub id: u64,
    /// The piece.
    pub item: I,
}

/// The caller wants no more of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The call's id.
    pub id: u64,
}

/// The caller can take more items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The call's id.
    pub id: u64,
    /// How many more.
    pub items: u32,
}

/// A message of a caller after the hello.
#[derive(Debug)]
pub enum Asked<P: Protocol> {
    /// A call.
    Call(Call<P::Request>),
    /// The end of the caller's interest in a call.
    Cancel(Cancel),
    /// Room for more items.
    Credit(Credit),
}

/// A message to a caller after the hello.
#[derive(Debug)]
pub enum Answered<P: Protocol> {
    /// A piece of a call's stream.
    Item(StreamItem<P::Item>),
    /// The end of a call.
    Reply(Reply<P::Response>),
}

/// The agreement of the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version of all further frames.
    pub version: u16,
    /// The answering side's name and version.
    pub agent: String,
}

/// A message that a side must not send.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// The bytes are no frame.
    #[error("read a frame")]
    Frame(#[source] FrameError),
    /// The frame holds no such message.
    #[error("read a message")]
    Message(#[source] CodecError),
    /// A frame of another version than the one agreed on.
    #[error("a frame of version {got} came where {agreed} was agreed on")]
    FrameVersion {
        /// The version of the hello.
        agreed: u16,
        /// The version of the frame.
        got: u16,
    },
    /// The answer to the hello names a version that this side did not offer.
    #[error("the other side chose version {got}, which was not offered")]
    ChosenVersion {
        /// The chosen version.
        got: u16,
    },
    /// A kind of frame that may not come here.
    #[error("a frame of kind {got:?} came where {wanted} was due")]
    FrameKind {
        /// The kind that came.
        got: Kind,
        /// The message that was due.
        wanted: &'static str,
    },
    /// A reply or an item of a call that is not under way.
    #[error("an answer came to call {id}, which is not under way")]
    UnknownCall {
        /// The call.
        id: u64,
    },
    /// More items than credit was given for.
    #[error("more items came on call {id} than it had credit for")]
    OverCredit {
        /// The call.
        id: u64,
    },
    /// A message without the descriptors that belong to it.
    #[error("a message came with {came} descriptors, where {wanted} belong to it")]
    Descriptors {
        /// How many belong to it.
        wanted: usize,
        /// How many have come.
        came: usize,
    },
    /// Descriptors to which no message came.
    #[error("more than {MAX_DESCRIPTORS_WAITING} descriptors came without their messages")]
    StrayDescriptors,
    /// Output in a larger piece than the protocol allows.
    #[error("an item with {bytes} bytes of output came")]
    LargeItem {
        /// Its size.
        bytes: usize,
    },
}

/// One side of a connection: its agreed version, and the bytes that have come and are no message yet.
#[derive(Debug)]
pub struct Session<P: Protocol> {
    frames: FrameReader,
    /// [`HELLO_VERSION`] until both sides have agreed.
    version: u16,
    /// The descriptors that have come and were not taken yet.
    descriptors: VecDeque<OwnedFd>,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Default for Session<P> {
    fn default() -> Self {
        let frames = FrameReader::new(P::MAX_BODY_BYTES);
        Self { frames, version: HELLO_VERSION, descriptors: VecDeque::new(), protocol: PhantomData }
    }
}

impl<P: Protocol> Session<P> {
    /// Adds bytes from the socket. Take messages until there is none before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// Adds descriptors that came with bytes; before the bytes are pushed.
    ///
    /// # Errors
    /// [`Violation::StrayDescriptors`] when too many wait for their messages.
    pub fn push_descriptors(&mut self, descriptors: impl IntoIterator<Item = OwnedFd>) -> Result<(), Violation> {
        self.descriptors.extend(descriptors);
        if self.descriptors.len() > MAX_DESCRIPTORS_WAITING { Err(Violation::StrayDescriptors) } else { Ok(()) }
    }

    /// Takes the descriptors of the message that was taken last: the first that have come.
    ///
    /// # Errors
    /// [`Violation::Descriptors`] when fewer have come: they come before the end of their message.
    pub fn take_descriptors(&mut self, wanted: usize) -> Result<Vec<OwnedFd>, Violation> {
        let came = self.descriptors.len();
        if came < wanted {
            Err(Violation::Descriptors { wanted, came })
        } else {
            Ok(self.descriptors.drain(..wanted).collect())
        }
    }

    /// Tells whether a frame has begun and not ended: a peer that closes now has broken off.
    pub fn is_mid_frame(&self) -> bool {
        self.frames.is_mid_frame()
    }

    /// Returns the version of the frames that are sent now: [`HELLO_VERSION`] before both sides have agreed.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Makes the frame of a message, of the version agreed on.
    ///
    /// # Errors
    /// [`CodecError`] for a message that no reader accepts.
    pub fn frame(&self, kind: Kind, message: &impl Serialize) -> Result<Vec<u8>, CodecError> {
        Ok(Frame::new(self.version, kind, message)?.to_bytes())
    }

    /// Returns the next frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`Violation::Frame`], and [`Violation::FrameVersion`] for one of another version than [`Self::version`].
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        let frame = self.frames.next_frame().map_err(Violation::Frame)?;
        match frame {
            Some(frame) if frame.version != self.version => {
                Err(Violation::FrameVersion { agreed: self.version, got: frame.version })
            }
            frame => Ok(frame),
        }
    }

    /// Returns the next message, which must be of this kind; `wanted` names it in errors.
    ///
    /// # Errors
    /// As [`Self::next_frame`]; [`Violation::FrameKind`] and [`Violation::Message`].
    pub fn next<T: DeserializeOwned>(&mut self, kind: Kind, wanted: &'static str) -> Result<Option<T>, Violation> {
        match self.next_frame()? {
            Some(frame) if frame.kind == kind => decode(&frame.body).map(Some).map_err(Violation::Message),
            Some(frame) => Err(Violation::FrameKind { got: frame.kind, wanted }),
            None => Ok(None),
        }
    }

    /// Caller: makes the hello, the first bytes on a connection.
    ///
    /// # Errors
    /// [`CodecError`] for an agent of a megabyte.
    pub fn hello(&self, agent: &str) -> Result<Vec<u8>, CodecError> {
        self.frame(Kind::Hello, &Hello { versions: P::VERSIONS, agent: agent.to_owned() })
    }

    /// Caller: takes the answer to the hello; `None` until it has come. From a welcome on, frames have its version.
    ///
    /// # Errors
    /// Any [`Violation`] of the other side's.
    pub fn hear_welcome(&mut self) -> Result<Option<Result<Welcome, Refusal>>, Violation> {
        Ok(match self.next(Kind::HelloReply, "the answer to the hello")? {
            None => None,
            Some(HelloReply::Refused(refusal)) => Some(Err(refusal)),
            Some(HelloReply::Welcome { version, agent, .. }) => {
                if !(P::VERSIONS.min..=P::VERSIONS.max).contains(&version) {
                    return Err(Violation::ChosenVersion { got: version });
                }
                self.version = version;
                Some(Ok(Welcome { version, agent }))
            }
        })
    }

    /// Answering side: takes the hello; `None` until it has come.
    ///
    /// # Errors
    /// Any [`Violation`] of the caller's.
    pub fn hear_hello(&mut self) -> Result<Option<Hello>, Violation> {
        self.next(Kind::Hello, "a hello")
    }

    /// Answering side: agrees on a version, or refuses as `decide` says, which gets the version; close after a refusal.
    /// Returns the answer's bytes with the outcome.
    ///
    /// # Errors
    /// [`CodecError`] for an agent of a megabyte.
    pub fn answer_hello(
        &mut self,
        hello: &Hello,
        agent: &str,
        decide: impl FnOnce(u16) -> Result<(), Refusal>,
    ) -> Result<(Vec<u8>, Result<(), Refusal>), CodecError> {
        let agreed = negotiate(hello.versions, P::VERSIONS).and_then(|version| decide(version).map(|()| version));
        match agreed {
            Ok(version) => {
                let reply = HelloReply::Welcome { version, agent: agent.to_owned(), features: Vec::new() };
                let bytes = self.frame(Kind::HelloReply, &reply)?;
                self.version = version;
                Ok((bytes, Ok(())))
            }
            Err(refusal) => Ok((self.refuse(&refusal)?, Err(refusal))),
        }
    }

    /// Answering side: makes the bytes of a refusal, also before a hello has come.
    ///
    /// # Errors
    /// [`CodecError`] for a text of a megabyte.
    pub fn refuse(&self, refusal: &Refusal) -> Result<Vec<u8>, CodecError> {
        Ok(Frame::new(HELLO_VERSION, Kind::HelloReply, &HelloReply::Refused(refusal.clone()))?.to_bytes())
    }

    /// Answering side: takes what the caller says next; `None` until more bytes have come.
    ///
    /// # Errors
    /// Any [`Violation`] of the caller's: also a cancel or credit where there are no streams.
    pub fn next_asked(&mut self) -> Result<Option<Asked<P>>, Violation> {
        let Some(frame) = self.next_frame()? else { return Ok(None) };
        let asked = match frame.kind {
            Kind::Call => decode(&frame.body).map(Asked::Call),
            Kind::Cancel if P::CREDIT > 0 => decode(&frame.body).map(Asked::Cancel),
            Kind::Credit if P::CREDIT > 0 => decode(&frame.body).map(Asked::Credit),
            got => return Err(Violation::FrameKind { got, wanted: "what callers send" }),
        };
        asked.map(Some).map_err(Violation::Message)
    }

    /// Caller: takes what the other side says next; `None` until more bytes have come.
    ///
    /// # Errors
    /// Any [`Violation`] of the other side's; whether the call is under way is the driver's to know.
    pub fn next_answered(&mut self) -> Result<Option<Answered<P>>, Violation> {
        let Some(frame) = self.next_frame()? else { return Ok(None) };
        match frame.kind {
            Kind::Reply => decode(&frame.body).map(Answered::Reply).map(Some).map_err(Violation::Message),
            Kind::Item if P::CREDIT > 0 => {
                let item: StreamItem<P::Item> = decode(&frame.body).map_err(Violation::Message)?;
                P::check_item(&item.item)?;
                Ok(Some(Answered::Item(item)))
            }
            got => Err(Violation::FrameKind { got, wanted: "a reply or an item" }),
        }
    }
}

/// Makes the answer to a call beyond [`Protocol::MAX_CALLS`].
pub fn busy<P: Protocol>(id: u64) -> ApiError {
    let message = format!("call {id}: {} calls are under way on this connection", P::MAX_CALLS);
    ApiError::new(ErrorKind::Busy, message).with_hint("wait for one of them, or open a connection")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{self, ApiSocket};
    use crate::shim::{self, ShimSocket};

    fn agreed<P: Protocol>() -> (Session<P>, Session<P>) {
        let (mut caller, mut other) = (Session::<P>::default(), Session::<P>::default());
        // Byte by byte: nothing may depend on how a socket cuts.
        for byte in caller.hello("caller").expect("small") {
            assert!(other.hear_hello().expect("valid").is_none());
            other.push(&[byte]);
        }
        let hello = other.hear_hello().expect("valid").expect("whole");
        let (bytes, outcome) = other.answer_hello(&hello, "other", |_| Ok(())).expect("small");
        assert_eq!(outcome, Ok(()));
        caller.push(&bytes);
        let welcome = caller.hear_welcome().expect("valid").expect("whole").expect("welcome");
        assert_eq!(welcome, Welcome { version: P::VERSIONS.max, agent: "other".into() });
        (caller, other)
    }

    #[test]
    fn a_call_its_items_and_its_reply_cross_in_the_agreed_version() {
        let (mut caller, mut other) = agreed::<ApiSocket>();
        let call = api::Call { id: 7, request: api::Request::Version };
        other.push(&caller.frame(Kind::Call, &call).expect("small"));
        other.push(&caller.frame(Kind::Credit, &Credit { id: 7, items: 3 }).expect("small"));
        assert!(matches!(other.next_asked(), Ok(Some(Asked::Call(got))) if got == call));
        assert!(matches!(other.next_asked(), Ok(Some(Asked::Credit(Credit { id: 7, items: 3 })))));
        assert!(matches!(other.next_asked(), Ok(None)));
        let item = api::StreamItem { id: 7, item: api::Item::EventGap { from: 1, to: 2 } };
        let reply = api::Reply { id: 7, result: Ok(api::Response::Done) };
        caller.push(&other.frame(Kind::Item, &item).expect("small"));
        caller.push(&other.frame(Kind::Reply, &reply).expect("small"));
        assert!(matches!(caller.next_answered(), Ok(Some(Answered::Item(got))) if got == item));
        assert!(matches!(caller.next_answered(), Ok(Some(Answered::Reply(got))) if got == reply));
    }

    #[test]
    fn a_protocol_without_streams_takes_no_cancel_and_no_item() {
        let (mut caller, mut other) = agreed::<ShimSocket>();
        other.push(&caller.frame(Kind::Cancel, &Cancel { id: 1 }).expect("small"));
        assert!(matches!(other.next_asked(), Err(Violation::FrameKind { got: Kind::Cancel, .. })));
        caller.push(&other.frame(Kind::Item, &1u64).expect("small"));
        assert!(matches!(caller.next_answered(), Err(Violation::FrameKind { got: Kind::Item, .. })));
    }

    #[test]
    fn frames_of_another_version_and_chosen_versions_that_were_not_offered_are_violations() {
        let (_, mut other) = agreed::<ShimSocket>();
        let call = shim::Call { id: 1, request: shim::Request::State };
        let newest = ShimSocket::VERSIONS.max;
        other.push(&Frame::new(newest + 1, Kind::Call, &call).expect("small").to_bytes());
        let refused = other.next_asked();
        assert!(
            matches!(refused, Err(Violation::FrameVersion { agreed, got }) if agreed == newest && got == newest + 1)
        );
        let mut caller = Session::<ShimSocket>::default();
        let reply = HelloReply::Welcome { version: 9, agent: String::new(), features: vec![] };
        caller.push(&Frame::new(HELLO_VERSION, Kind::HelloReply, &reply).expect("small").to_bytes());
        assert!(matches!(caller.hear_welcome(), Err(Violation::ChosenVersion { got: 9 })));
    }

    #[test]
    fn a_refusal_travels_and_nothing_is_agreed() {
        let mut other = Session::<ShimSocket>::default();
        let hello = Hello { versions: ShimSocket::VERSIONS, agent: String::new() };
        let refusal = Refusal::Forbidden { uid: 5 };
        let (bytes, outcome) = other.answer_hello(&hello, "other", |_| Err(refusal.clone())).expect("small");
        assert_eq!((outcome, other.version()), (Err(refusal.clone()), HELLO_VERSION));
        let mut caller = Session::<ShimSocket>::default();
        caller.push(&bytes);
        assert_eq!(caller.hear_welcome().expect("valid"), Some(Err(refusal)));
    }

    #[test]
    fn an_item_larger_than_the_protocol_allows_is_a_violation() {
        let (mut caller, other) = agreed::<ApiSocket>();
        let content = vec![b'x'; api::MAX_LOG_ITEM_BYTES + 1];
        let log = api::LogItem { at: contd_types::Timestamp(0), stream: api::LogStream::Stdout, content };
        let item = api::StreamItem { id: 1, item: api::Item::Log(log) };
        caller.push(&other.frame(Kind::Item, &item).expect("small"));
        assert!(matches!(caller.next_answered(), Err(Violation::LargeItem { .. })));
    }
}
