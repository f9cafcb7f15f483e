//! The fake's side of [`Shim`]: one connection to one pretended shim.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;

use contd_protocol::shim::{ExecProcess, TaskState};
use contd_types::{ApiError, ContainerId, ExecId, ExecInfo, Exit, ExitCause, Pid, RequestId, Signal, WindowSize};
use futures_util::future::{BoxFuture, FutureExt};

use super::node::{Node, exit};
use super::script::{Outcome, Program, ShimCall, Verb};
use super::{Inner, Reach, with_deadline};
use crate::{Executed, Shim, ShimError};

/// A connection to a pretended shim; got from [`super::FakeShimClient`].
#[derive(Debug, Clone)]
pub struct FakeShim {
    pub(super) inner: Arc<Inner>,
    pub(super) reach: Reach,
    pub(super) id: ContainerId,
    /// Which process it is connected to; a successor has another number.
    pub(super) number: i32,
}

impl FakeShim {
    /// Carries a call out as its script says. `effect` gives `None` to be asked again after the next change.
    async fn call<T: Send>(
        &self,
        call: ShimCall,
        mut effect: impl FnMut(&mut Node) -> Option<Result<T, ApiError>> + Send,
    ) -> Result<T, ShimError> {
        self.reach.alive().await;
        let verb = call.verb();
        let (outcome, breaks) = {
            let mut node = self.inner.lock();
            let outcome = node.record(call);
            (outcome, node.slots.get(&self.id).map(|slot| slot.breaks))
        };
        self.inner.announce();
        let is_lost = |node: &mut Node| {
            let slot = node.slots.get(&self.id);
            if verb == Verb::Shutdown && slot.is_none_or(|slot| slot.shim.is_none() && slot.init().is_none()) {
                // It is what was asked for; only the leftovers are to be removed.
                return None;
            }
            (slot.and_then(|s| s.shim) != Some(self.number) || slot.map(|s| s.breaks) != breaks).then_some(())
        };
        let work = async {
            outcome_begins(&outcome).await;
            if let Outcome::Fail(failure) = &outcome {
                return Err(failure.make(&self.id, verb));
            }
            let answer = self.inner.until(|node| effect(node)).await;
            self.inner.announce();
            if let Outcome::DoneThenFail(failure) = &outcome {
                return Err(failure.make(&self.id, verb));
            }
            answer.map_err(|source| ShimError::Refused { id: self.id.clone(), verb: verb.as_str(), source })
        };
        let raced = async {
            let (lost, work) = (pin!(self.inner.until(is_lost)), pin!(work));
            tokio::select! {
                biased;
                () = lost => Err(ShimError::Lost { id: self.id.clone(), verb: verb.as_str() }),
                answer = work => answer,
            }
        };
        with_deadline(&self.id, verb, raced).await
    }

    async fn start_now(&self) -> Result<Pid, ShimError> {
        let call = ShimCall::Start(self.id.clone());
        let (pid, program) = self
            .call(call, |node| {
                let was_running = matches!(node.slots.get(&self.id)?.state, TaskState::Running { .. });
                let program = if was_running { Program::RunsOn } else { node.program(&self.id) };
                Some(node.start(&self.id).map(|pid| (pid, program)))
            })
            .await?;
        if let Program::Ends { after, code } = program {
            let (inner, id) = (Arc::clone(&self.inner), self.id.clone());
            // The container's own life: nobody waits for this task, it ends with the container.
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let end = exit(ExitCause::Code(code), inner.clock.now());
                if inner.lock().end_if(&id, pid, end) {
                    inner.announce();
                }
            });
        }
        Ok(pid)
    }
}

async fn outcome_begins(outcome: &Outcome) {
    match outcome {
        Outcome::Hang => std::future::pending().await,
        Outcome::Delay(time) => tokio::time::sleep(*time).await,
        Outcome::Ok | Outcome::Fail(_) | Outcome::DoneThenFail(_) => {}
    }
}

impl Shim for FakeShim {
    fn for_operation(&self, _operation: RequestId) -> Arc<dyn Shim> {
        Arc::new(self.clone())
    }

    fn create(&self) -> BoxFuture<'_, Result<Pid, ShimError>> {
        self.call(ShimCall::Create(self.id.clone()), |node| Some(node.create(&self.id))).boxed()
    }

    fn start(&self) -> BoxFuture<'_, Result<Pid, ShimError>> {
        self.start_now().boxed()
    }

    fn state(&self) -> BoxFuture<'_, Result<TaskState, ShimError>> {
        let look = |node: &mut Node| Some(node.slot(&self.id).map(|slot| slot.state.clone()));
        self.call(ShimCall::State(self.id.clone()), look).boxed()
    }

    fn kill(&self, signal: Signal, is_for_all: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        let call = ShimCall::Kill { id: self.id.clone(), signal, is_for_all };
        self.call(call, move |node| Some(node.kill(&self.id, signal, self.inner.clock.now()))).boxed()
    }

    fn set_paused(&self, is_paused: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        let call = ShimCall::SetPaused { id: self.id.clone(), is_paused };
        self.call(call, move |node| Some(node.set_paused(&self.id, is_paused))).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, Result<Exit, ShimError>> {
        let mut was_alive = false;
        let ended = move |node: &mut Node| {
            let slot = node.slots.get(&self.id)?;
            was_alive |= slot.init().is_some();
            match (&slot.state, &slot.exit_file) {
                (TaskState::Exited { exit }, _) => Some(Ok(exit.clone())),
                // Killed and deleted in one step while we waited. Who asks after the delete waits for the next container.
                (TaskState::Empty, Some(exit)) if was_alive => Some(Ok(exit.clone())),
                _ => None,
            }
        };
        self.call(ShimCall::Wait(self.id.clone()), ended).boxed()
    }

    fn delete(&self, force: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        let call = ShimCall::Delete { id: self.id.clone(), force };
        let delete = move |node: &mut Node| {
            // The real one waits for the end of init.
            let waits = force && node.survives_kill(&self.id);
            (!waits).then(|| node.delete(&self.id, force, self.inner.clock.now()))
        };
        self.call(call, delete).boxed()
    }

    fn hand_over(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        // The process is the same, and the connection is made anew unseen: nothing changes.
        self.call(ShimCall::HandOver(self.id.clone()), |_node| Some(Ok(()))).boxed()
    }

    fn exec(
        &self,
        exec: ExecId,
        process: ExecProcess,
        _stdio: Option<[OwnedFd; 3]>,
    ) -> BoxFuture<'_, Result<Executed, ShimError>> {
        let call = ShimCall::Exec { id: self.id.clone(), exec, process: Box::new(process.clone()) };
        let has_terminal = process.terminal.is_some();
        let effect = move |node: &mut Node| Some(node.exec(&self.id, exec, &process, self.inner.clock.now()));
        async move {
            let pid = self.call(call, effect).await?;
            let broken =
                |source: std::io::Error| ShimError::NoThread { id: self.id.clone(), verb: "pretend in", source };
            // Something that can be held, waited for and never ends.
            let own = i32::try_from(std::process::id()).unwrap_or_default();
            let pidfd = contd_descriptors::pidfd::open(own).map_err(broken)?;
            let terminal = has_terminal.then(|| File::open("/dev/null")).transpose().map_err(broken)?;
            Ok(Executed { pid, pidfd, terminal: terminal.map(OwnedFd::from) })
        }
        .boxed()
    }

    fn wait_exec(&self, exec: ExecId) -> BoxFuture<'_, Result<Exit, ShimError>> {
        let call = ShimCall::WaitExec { id: self.id.clone(), exec };
        self.call(call, move |node| node.end_of_exec(&self.id, exec)).boxed()
    }

    fn kill_exec(&self, exec: ExecId, signal: Signal) -> BoxFuture<'_, Result<(), ShimError>> {
        let call = ShimCall::KillExec { id: self.id.clone(), exec, signal };
        let end = move |node: &mut Node| {
            let end = exit(ExitCause::Signal(signal), self.inner.clock.now());
            Some(node.end_exec(&self.id, exec, end))
        };
        self.call(call, end).boxed()
    }

    fn execs(&self) -> BoxFuture<'_, Result<Vec<ExecInfo>, ShimError>> {
        self.call(ShimCall::Execs(self.id.clone()), |node| Some(node.execs(&self.id))).boxed()
    }

    fn open_input(&self) -> BoxFuture<'_, Result<Option<OwnedFd>, ShimError>> {
        async move {
            self.call(ShimCall::OpenInput(self.id.clone()), |node| Some(node.slot(&self.id).map(drop))).await?;
            let broken = |source| ShimError::NoThread { id: self.id.clone(), verb: "pretend in", source };
            let null = File::options().write(true).open("/dev/null").map_err(broken)?;
            Ok(Some(null.into()))
        }
        .boxed()
    }

    fn close_input(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        self.call(ShimCall::CloseInput(self.id.clone()), |node| Some(node.slot(&self.id).map(drop))).boxed()
    }

    fn resize(&self, size: WindowSize) -> BoxFuture<'_, Result<(), ShimError>> {
        let call = ShimCall::Resize { id: self.id.clone(), size };
        self.call(call, |node| Some(node.slot(&self.id).map(drop))).boxed()
    }

    fn rotate_log(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        self.call(ShimCall::RotateLog(self.id.clone()), |_node| Some(Ok(()))).boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        self.call(ShimCall::Shutdown(self.id.clone()), |node| Some(node.shutdown(&self.id))).boxed()
    }
}
