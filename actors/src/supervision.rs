//! The tie between a parent actor and one child: the child hears when the parent goes, the parent when the child does.
//!
//! actix ends an actor and its `Supervisor` on a panic; so parents rebuild children themselves (docs/architecture.md, facts). A child
//! tells from `stopped()`, which runs even then. A child ends when its parent is gone: nobody would route to it, and a
//! rebuilt parent makes another.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context};
use contd_types::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::random::jitter;

/// Held by a parent; dropping it ends all its children.
pub(crate) type Lifeline = watch::Sender<()>;

/// Held by a child: hears of its parent's end, and tells of its own.
pub(crate) struct ParentLink {
    parent: watch::Receiver<()>,
    on_end: Box<dyn Fn(bool) + Send>,
    is_expected: bool,
}

impl fmt::Debug for ParentLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentLink").field("is_expected", &self.is_expected).finish_non_exhaustive()
    }
}

impl ParentLink {
    /// Ties a child to its parent. `on_end` tells the parent, and is given whether the child panicked.
    pub(crate) fn new(lifeline: &Lifeline, on_end: impl Fn(bool) + Send + 'static) -> Self {
        Self { parent: lifeline.subscribe(), on_end: Box::new(on_end), is_expected: false }
    }

    /// Ends the actor when its parent goes; to be called from `started()`.
    pub(crate) fn follow<A: Actor<Context = Context<A>>>(&self, ctx: &mut Context<A>) -> actix::SpawnHandle {
        let mut parent = self.parent.clone();
        let orphaned = async move { while parent.changed().await.is_ok() {} };
        let stopping = actix::fut::wrap_future::<_, A>(orphaned).map(|(), _actor, ctx: &mut Context<A>| ctx.stop());
        ctx.spawn(stopping)
    }

    /// Says that the end to come is wanted, so that the parent is not told.
    pub(crate) fn expect_end(&mut self) {
        self.is_expected = true;
    }

    /// Tells the parent of an end that nobody asked for; to be called from `stopped()`.
    pub(crate) fn tell_parent(&self) {
        let is_orphan = self.parent.has_changed().is_err();
        if !self.is_expected && !is_orphan {
            (self.on_end)(std::thread::panicking());
        }
    }
}

/// The most rebuilds of one child within [`REBUILD_WINDOW`]: what panics faster is not one bad message.
const MAX_REBUILDS: usize = 5;
/// See [`MAX_REBUILDS`].
const REBUILD_WINDOW: Duration = Duration::from_secs(60);

/// When a child was rebuilt lately; decides about the next time.
#[derive(Debug, Default)]
pub(crate) struct RebuildBudget {
    recent: VecDeque<Instant>,
}

impl RebuildBudget {
    /// Returns how long to wait before the next rebuild, or `None` when there were too many.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        let now = Instant::now();
        self.recent.retain(|at| now.duration_since(*at) < REBUILD_WINDOW);
        if self.recent.len() >= MAX_REBUILDS {
            return None;
        }
        self.recent.push_back(now);
        let attempt = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        Some(Backoff::REBUILD.delay(attempt, jitter()))
    }
}

/// Makes the actor that gets it panic.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Copy, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;

/// Lets an actor panic when a test asks for it.
#[cfg(any(test, feature = "testing"))]
macro_rules! panics_on_demand {
    ($actor:ty) => {
        impl actix::Handler<crate::supervision::Panic> for $actor {
            type Result = ();

            fn handle(&mut self, _message: crate::supervision::Panic, _ctx: &mut Self::Context) {
                panic!("planted");
            }
        }
    };
}
#[cfg(any(test, feature = "testing"))]
pub(crate) use panics_on_demand;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rebuilds_are_limited_within_a_minute_and_allowed_again_after_it() {
        let mut budget = RebuildBudget::default();
        let delays: Vec<Option<Duration>> = (0..6).map(|_| budget.next_delay()).collect();
        assert!(delays.iter().take(5).all(Option::is_some));
        assert_eq!(delays.last(), Some(&None));
        assert!(delays[0] < delays[3], "the delays do not grow: {delays:?}");
        tokio::time::advance(REBUILD_WINDOW).await;
        assert!(budget.next_delay().is_some());
    }
}
