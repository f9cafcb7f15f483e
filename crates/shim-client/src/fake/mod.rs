//! A scripted node without processes, for tests of whoever uses [`ShimClient`]. Feature `testing`.
//!
//! [`FakeShimClient`] is the node: keep a clone while the program under test comes and goes, and it is a daemon restart.
//! Containers "run" until a signal, [`FakeShimClient::exit`] or their [`Program`] ends them. Every call is written down;
//! scripts decide how it goes. All time is tokio's, so a paused clock works.

mod node;
mod script;
mod shim;

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_protocol::shim::{TaskSpec, TaskState};
use contd_types::{ApiError, Clock, ContainerId, ExecId, Exit, ExitCause, NamespaceId, Pid, Signal, SystemClock};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::Notify;

use node::{Node, exit};
pub use script::{EndedBy, Failure, InitEvent, Outcome, Program, Reaction, ShimCall, Verb};
pub use shim::FakeShim;

use crate::{Attached, FoundShim, Holdout, Shim, ShimClient, ShimError};

/// The scripted client, and the node behind it. Clones are the same node.
#[derive(Debug, Clone)]
pub struct FakeShimClient {
    inner: Arc<Inner>,
    reach: Reach,
}

/// Whether a daemon still lives to call: after its death, calls that it has not begun never begin.
#[derive(Debug, Clone, Default)]
struct Reach(Arc<AtomicBool>);

impl Reach {
    async fn alive(&self) {
        if self.0.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug)]
struct Inner {
    node: Mutex<Node>,
    /// Wakes in the order in which they began to wait, so that a test can be repeated.
    changed: Notify,
    clock: Arc<dyn Clock>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Node> {
        // A test that panicked under the lock has failed already; the others may look.
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changed.notify_waiters();
    }

    /// Looks at the node again after every change until it finds something.
    async fn until<T>(&self, mut look: impl FnMut(&mut Node) -> Option<T>) -> T {
        loop {
            // Before the look: a change right after it is not missed.
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

async fn with_deadline<T>(
    id: &ContainerId,
    verb: Verb,
    work: impl Future<Output = Result<T, ShimError>>,
) -> Result<T, ShimError> {
    let Some(waited) = verb.deadline() else { return work.await };
    match tokio::time::timeout(waited, work).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(ShimError::Silent { id: id.clone(), verb: verb.as_str(), waited }),
    }
}

impl Default for FakeShimClient {
    fn default() -> Self {
        Self::new()
    }
}

/// The part that a test sets up.
impl FakeShimClient {
    /// Makes an empty node on which every call does what it should.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }

    /// Makes an empty node whose exits carry this clock's time.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let inner = Arc::new(Inner { node: Mutex::default(), changed: Notify::new(), clock });
        Self { inner, reach: Reach::default() }
    }

    /// Gives a daemon of its own to the same node, to be [`Self::cut_off`].
    pub fn for_daemon(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), reach: Reach::default() }
    }

    /// Has this daemon, as by SIGKILL, make no further call; all other handles work.
    pub fn cut_off(&self) {
        self.reach.0.store(true, Ordering::Relaxed);
    }

    /// Has the next calls of a verb, of whatever container, go like this, one each; then they go as usual.
    pub fn script(&self, verb: Verb, outcomes: impl IntoIterator<Item = Outcome>) {
        self.inner.lock().scripts.entry((None, verb)).or_default().extend(outcomes);
    }

    /// Has the next calls of a verb for one container go like this; these come before those of [`Self::script`].
    pub fn script_for(&self, id: &ContainerId, verb: Verb, outcomes: impl IntoIterator<Item = Outcome>) {
        self.inner.lock().scripts.entry((Some(id.clone()), verb)).or_default().extend(outcomes);
    }

    /// Has every call of a verb go like this when no script is left; [`Outcome::Ok`] brings it back to normal.
    pub fn always(&self, verb: Verb, outcome: Outcome) {
        self.inner.lock().defaults.insert(verb, outcome);
    }

    /// Says what containers do once they are started from now on: one, or (`None`) all that have nothing of their own.
    pub fn set_program(&self, id: Option<&ContainerId>, program: Program) {
        self.inner.lock().programs.insert(id.cloned(), program);
    }

    /// Has an executed process end with a code.
    pub fn end_exec(&self, id: &ContainerId, exec: ExecId, code: u8) -> Result<(), ApiError> {
        let end = exit(ExitCause::Code(code), self.inner.clock.now());
        let ended = self.inner.lock().end_exec(id, exec, end);
        self.inner.announce();
        ended
    }

    /// Says what a container does on a signal.
    pub fn on_signal(&self, id: &ContainerId, signal: Signal, reaction: Reaction) {
        self.inner.lock().reactions.insert((id.clone(), u8::from(signal)), reaction);
    }
}

/// The events that a test makes happen.
impl FakeShimClient {
    /// Ends a running or waiting container; its shim writes the exit down and tells whoever waits. `false` when there is none.
    pub fn exit(&self, id: &ContainerId, exit: Exit) -> bool {
        let has_ended = self.inner.lock().end(id, exit, EndedBy::World);
        self.inner.announce();
        has_ended
    }

    /// [`Self::exit`] with a code, now.
    pub fn exit_code(&self, id: &ContainerId, code: u8) -> bool {
        self.exit(id, exit(ExitCause::Code(code), self.inner.clock.now()))
    }

    /// Ends the shim's process: pending and later calls are [`ShimError::Lost`]. The container's init runs on as an
    /// orphan when `is_init_left`; otherwise it is gone and nobody knows how. `false` when no shim lives.
    pub fn lose_shim(&self, id: &ContainerId, is_init_left: bool) -> bool {
        if !is_init_left {
            self.inner.lock().lose_init(id, EndedBy::World);
        }
        self.change(id, |slot| slot.shim.take().is_some())
    }

    /// Breaks the connections to a shim that lives on: pending calls are lost, later ones work.
    pub fn disconnect(&self, id: &ContainerId) -> bool {
        self.change(id, |slot| {
            slot.breaks += 1;
            slot.shim.is_some()
        })
    }

    /// Restarts the node: no process and no lease is left, every connection is lost.
    pub fn reboot(&self) {
        {
            let mut node = self.inner.lock();
            let ids: Vec<_> = node.slots.keys().cloned().collect();
            for id in ids {
                node.lose_init(&id, EndedBy::World);
            }
            node.slots.clear();
        }
        self.inner.announce();
    }

    fn change(&self, id: &ContainerId, change: impl FnOnce(&mut node::Slot) -> bool) -> bool {
        let has_done = self.inner.lock().slots.get_mut(id).is_some_and(change);
        self.inner.announce();
        has_done
    }
}

/// The state that a test looks at.
impl FakeShimClient {
    /// Returns all calls in the order in which they began.
    pub fn calls(&self) -> Vec<ShimCall> {
        self.inner.lock().calls.clone()
    }

    /// Returns what happened to inits, without the first `seen` events.
    pub fn inits_since(&self, seen: usize) -> Vec<InitEvent> {
        self.inner.lock().inits.iter().skip(seen).cloned().collect()
    }

    /// Has every call go as usual from now on: whatever scripts are left are forgotten, and so is what containers do.
    pub fn heal(&self) {
        let mut node = self.inner.lock();
        node.scripts.clear();
        node.defaults.clear();
        node.programs.clear();
        node.reactions.clear();
    }

    /// Returns how often a verb was called.
    pub fn count(&self, verb: Verb) -> usize {
        self.inner.lock().calls.iter().filter(|call| call.verb() == verb).count()
    }

    /// Waits until a verb was called so often; bound it with a time-out of your own.
    pub async fn until_called(&self, verb: Verb, times: usize) {
        let enough =
            |node: &mut Node| (node.calls.iter().filter(|call| call.verb() == verb).count() >= times).then_some(());
        self.inner.until(enough).await;
    }

    /// Waits until a container's state is as wanted, and returns it; bound it with a time-out of your own.
    pub async fn until_state(&self, id: &ContainerId, is_wanted: impl Fn(&TaskState) -> bool) -> TaskState {
        let look = |node: &mut Node| node.slots.get(id).map(|slot| slot.state.clone()).filter(|state| is_wanted(state));
        self.inner.until(look).await
    }

    /// Returns where a container really is; `None` when it has no lease.
    pub fn state_of(&self, id: &ContainerId) -> Option<TaskState> {
        self.inner.lock().slots.get(id).map(|slot| slot.state.clone())
    }

    /// Returns the pid of a container's living init.
    pub fn pid_of(&self, id: &ContainerId) -> Option<Pid> {
        self.inner.lock().slots.get(id).and_then(node::Slot::init)
    }

    /// Returns what the shim was told to make.
    pub fn task_of(&self, id: &ContainerId) -> Option<TaskSpec> {
        self.inner.lock().slots.get(id).map(|slot| slot.task.clone())
    }

    /// Returns how many shim processes were really started for a container, successors included.
    pub fn starts_of(&self, id: &ContainerId) -> usize {
        self.inner.lock().starts.get(id).copied().unwrap_or(0)
    }

    /// Returns how often `spawn` was called for a container whose shim lived already.
    pub fn duplicate_spawns(&self) -> usize {
        self.inner.lock().duplicate_starts
    }

    /// Returns the containers whose shim process lives; empty at the end of a test, or it has leaked.
    pub fn live_shims(&self) -> Vec<ContainerId> {
        self.ids(|slot| slot.shim.is_some())
    }

    /// Returns the containers whose init lives, with a shim or without.
    pub fn live_containers(&self) -> Vec<ContainerId> {
        self.ids(|slot| slot.init().is_some())
    }

    /// Returns the containers that have a lease directory; empty at the end of a test, or it has leaked.
    pub fn leases(&self) -> Vec<ContainerId> {
        self.ids(|_slot| true)
    }

    fn ids(&self, is_wanted: impl Fn(&node::Slot) -> bool) -> Vec<ContainerId> {
        self.inner.lock().slots.iter().filter(|(_, slot)| is_wanted(slot)).map(|(id, _)| id.clone()).collect()
    }
}

impl FakeShimClient {
    async fn call<T>(
        &self,
        call: ShimCall,
        effect: impl FnOnce(&mut Node) -> Result<T, ShimError> + Send,
    ) -> Result<T, ShimError> {
        self.reach.alive().await;
        let verb = call.verb();
        let id = call.id().cloned().unwrap_or_else(|| ContainerId::from_random([0; 16]));
        let outcome = self.inner.lock().record(call);
        self.inner.announce();
        let work = async {
            match &outcome {
                Outcome::Fail(failure) => return Err(failure.make(&id, verb)),
                Outcome::Hang => std::future::pending().await,
                Outcome::Delay(time) => tokio::time::sleep(*time).await,
                Outcome::Ok | Outcome::DoneThenFail(_) => {}
            }
            let answer = effect(&mut self.inner.lock());
            self.inner.announce();
            match &outcome {
                Outcome::DoneThenFail(failure) => Err(failure.make(&id, verb)),
                _ => answer,
            }
        };
        with_deadline(&id, verb, work).await
    }

    fn connect(&self, id: &ContainerId, number: i32) -> Arc<dyn Shim> {
        Arc::new(FakeShim { inner: Arc::clone(&self.inner), reach: self.reach.clone(), id: id.clone(), number })
    }
}

impl ShimClient for FakeShimClient {
    fn spawn(&self, task: TaskSpec) -> BoxFuture<'_, Result<Arc<dyn Shim>, ShimError>> {
        let id = task.id.clone();
        async move {
            let number = self
                .call(ShimCall::Spawn(id.clone()), move |node| {
                    node.spawn(&task).ok_or(ShimError::Orphaned { id: task.id })
                })
                .await?;
            Ok(self.connect(&id, number))
        }
        .boxed()
    }

    fn attach(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<Attached, ShimError>> {
        let id = id.clone();
        async move {
            self.call(ShimCall::Attach(id.clone()), |node| {
                node.succeed(&id);
                let Some(slot) = node.slots.get(&id) else { return Ok(Attached::Absent) };
                Ok(match slot.shim {
                    Some(number) => Attached::Alive { shim: self.connect(&id, number), state: slot.state.clone() },
                    None => Attached::Dead { exit: slot.exit_file.clone() },
                })
            })
            .await
        }
        .boxed()
    }

    fn clean_up(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>> {
        let id = id.clone();
        async move {
            self.call(ShimCall::CleanUp(id.clone()), |node| {
                if node.slots.get(&id).is_some_and(|slot| slot.shim.is_some()) {
                    return Err(ShimError::StillAlive { id: id.clone() });
                }
                if node.survives_kill(&id) {
                    let source = std::io::ErrorKind::TimedOut.into();
                    return Err(ShimError::CleanUp { id: id.clone(), path: PathBuf::from("/fake/init"), source });
                }
                node.lose_init(&id, EndedBy::Verb(Verb::CleanUp));
                node.slots.remove(&id);
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn end_silent(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Result<(), ShimError>> {
        let id = id.clone();
        async move {
            self.call(ShimCall::EndSilent(id.clone()), |node| {
                if let Some(slot) = node.slots.get_mut(&id) {
                    slot.shim = None;
                }
                Ok(())
            })
            .await
        }
        .boxed()
    }

    fn holdouts(&self, _namespace: &NamespaceId, id: &ContainerId) -> BoxFuture<'_, Vec<Holdout>> {
        let holdout = |pid| Holdout { pid, name: "fake".into(), state: 'D', place: Some("fake_wait".into()) };
        let found = self.pid_of(id).map(holdout);
        async move { found.into_iter().collect() }.boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<FoundShim>, ShimError>> {
        self.call(ShimCall::List, |node| {
            let found = node.slots.values().map(|slot| FoundShim {
                namespace: slot.task.namespace.clone(),
                id: slot.task.id.clone(),
                dir: PathBuf::from("/fake/s").join(slot.task.id.as_str()),
                is_alive: slot.shim.is_some(),
            });
            Ok(found.collect())
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests;
