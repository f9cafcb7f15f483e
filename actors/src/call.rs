//! The only way of one actor to another: a request with a deadline, or a message whose fate is known.

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, MailboxError, Message, Recipient};
use contd_types::{ApiError, ErrorKind, Explain};

/// Why an actor did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It ended, by a panic or by intent, before it answered.
    #[error("ask {actor}: it ended before it answered")]
    ActorLost {
        /// The actor's type.
        actor: &'static str,
    },
    /// It did not answer in time; what was asked may still happen.
    #[error("ask {actor}: no answer within {waited:?}")]
    Deadline {
        /// The actor's type.
        actor: &'static str,
        /// How long was waited.
        waited: Duration,
    },
}

impl Explain for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ActorLost { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Timeout,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ActorLost { .. } => "retry: it is rebuilt from what is on disk".to_owned(),
            Self::Deadline { .. } => "inspect the container before repeating the request".to_owned(),
        })
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        Self::from_error(&error)
    }
}

/// Asks an actor and waits for its answer, at most so long.
///
/// Not cancelled with the caller: a handler that has begun goes on unseen, so every effect must be repeatable.
///
/// # Errors
/// [`CallError`]; the handler's own error is inside the `Ok`.
pub async fn ask<A, M>(addr: &Addr<A>, message: M, deadline: Duration) -> Result<M::Result, CallError>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    let actor = actor_name::<A>();
    #[cfg(test)]
    crate::tests::cost::message::<M>();
    #[expect(clippy::disallowed_methods, reason = "the one place where requests are sent, always with a deadline")]
    let request = addr.send(message);
    match tokio::time::timeout(deadline, request).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(MailboxError::Closed)) => Err(CallError::ActorLost { actor }),
        Ok(Err(MailboxError::Timeout)) | Err(_) => Err(CallError::Deadline { actor, waited: deadline }),
    }
}

/// Asks an actor whose reply is a `Result` that travels, and flattens both failures into one.
///
/// # Errors
/// The handler's error, or a [`CallError`] as one.
pub async fn ask_api<A, M, T>(addr: &Addr<A>, message: M, deadline: Duration) -> Result<T, ApiError>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = Result<T, ApiError>> + Send + 'static,
    T: Send + 'static,
{
    ask(addr, message, deadline).await?
}

/// Tells an actor something without waiting for it; `false` when the actor is gone.
///
/// Never bounded: only for what is bounded where it arises (an exit per container, a death per child).
pub fn tell<A, M>(addr: &Addr<A>, message: M) -> bool
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    if !addr.connected() {
        return false;
    }
    #[cfg(test)]
    crate::tests::cost::message::<M>();
    #[expect(clippy::disallowed_methods, reason = "the one place where messages are told")]
    addr.do_send(message);
    true
}

/// [`tell`], to whatever actor hears this kind of message.
pub(crate) fn tell_recipient<M>(recipient: &Recipient<M>, message: M)
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    #[cfg(test)]
    crate::tests::cost::message::<M>();
    #[expect(clippy::disallowed_methods, reason = "the one place where messages are told")]
    recipient.do_send(message);
}

/// Returns the type's own name, without its path.
fn actor_name<A>() -> &'static str {
    let path = std::any::type_name::<A>();
    path.rsplit("::").next().unwrap_or(path)
}
