//! Where the addresses of actors are: only their parent writes them, everybody reads them.
//!
//! An address changes when a lost actor is made again. A reader that finds none waits for the next one, within its deadline.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, Message};
use contd_types::Backoff;
use tokio::sync::watch;

use crate::call::{CallError, ask};
use crate::random::jitter;

/// How often a service is asked again when its actor was lost: with [`Backoff::REBUILD`] that is some 0.6 s, longer
/// than a rebuild takes, shorter than any deadline of a step.
const SERVICE_ATTEMPTS: u32 = 6;

/// An address, or `None` while its actor is made again.
type Address<A> = watch::Sender<Option<Addr<A>>>;

/// The addresses of all actors of one kind.
#[derive(Debug)]
pub(crate) struct Addresses<K, A: Actor>(RwLock<HashMap<K, Address<A>>>);

impl<K, A: Actor> Default for Addresses<K, A> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

/// Why there is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// There is no such actor, or there will be none any more.
    Unknown,
    /// It is being made again, and that takes longer.
    Late,
}

impl<K: Eq + Hash, A: Actor> Addresses<K, A> {
    /// Writes an address, or that there is none for now.
    pub(crate) fn publish(&self, key: K, addr: Option<Addr<A>>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(key).or_insert_with(|| watch::Sender::new(None)).send_replace(addr);
    }

    /// Forgets an actor that is gone for good; who waits for its address hears of it.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Returns an address as it is now.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn get(&self, key: &K) -> Option<Addr<A>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).and_then(|addr| addr.borrow().clone())
    }

    /// Returns an address, once there is one.
    pub(crate) async fn find(&self, key: &K, longest: Duration) -> Result<Addr<A>, NoAddress> {
        let address = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).map(watch::Sender::subscribe);
        let mut address = address.ok_or(NoAddress::Unknown)?;
        let found = tokio::time::timeout(longest, address.wait_for(Option::is_some)).await;
        let found = found.map_err(|_elapsed| NoAddress::Late)?.map_err(|_forgotten| NoAddress::Unknown)?;
        found.clone().ok_or(NoAddress::Unknown)
    }
}

/// Where the address of a service is.
#[derive(Debug)]
pub(crate) struct Slot<A: Actor>(RwLock<Option<Addr<A>>>);

impl<A: Actor> Default for Slot<A> {
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    /// Returns the address, once there is one.
    pub(crate) fn get(&self) -> Option<Addr<A>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands the address of a new actor to everyone.
    pub(crate) fn set(&self, addr: Addr<A>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(addr);
    }

    /// Asks the service; when its actor is lost, asks the rebuilt one.
    pub(crate) async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, CallError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Clone + Send + 'static,
        M::Result: Send,
    {
        let mut lost = CallError::ActorLost { actor: std::any::type_name::<A>() };
        for attempt in 1..=SERVICE_ATTEMPTS {
            if let Some(addr) = self.get() {
                match ask(&addr, message.clone(), deadline).await {
                    Err(error @ CallError::ActorLost { .. }) => lost = error,
                    answer => return answer,
                }
            }
            tokio::time::sleep(Backoff::REBUILD.delay(attempt, jitter())).await;
        }
        Err(lost)
    }
}
