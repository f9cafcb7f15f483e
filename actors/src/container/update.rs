//! Changes of a container's settings: first in the kernel, while it runs, then in the record.

use std::future::Future;
use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{Context, Handler, ResponseActFuture, WrapFuture};
use contd_bundle::{Defaults, ResourceLimits, cgroup_limits, limits};
use contd_meters::Metered;
use contd_types::{CgroupLimits, Changes, State};

use super::ContainerActor;
use crate::error::{ContainerError, StepError};
use crate::messages::container::Update;
use crate::records::RecordError;

type Answer<T> = Result<T, ContainerError>;

const VERB: &str = "update";

impl Handler<Update> for ContainerActor {
    type Result = ResponseActFuture<Self, Answer<()>>;

    fn handle(&mut self, Update { changes }: Update, _ctx: &mut Context<Self>) -> Self::Result {
        // One after the other: each begins with what the one before has left.
        let turn = Arc::clone(&self.update_turn).lock_owned().into_actor(self);
        Box::pin(turn.then(move |turn, actor, _ctx| {
            let generation = actor.generation;
            let limited = actor.change_limits(&changes).into_actor(actor);
            limited.then(move |done, actor, ctx| {
                let written = done.and_then(|()| actor.take_changes(&changes, generation, ctx));
                async move {
                    let result = written?.await;
                    drop(turn);
                    result
                }
                .into_actor(actor)
            })
        }))
    }
}

impl ContainerActor {
    /// Changes the limits that are in force, if it runs.
    fn change_limits(&self, changes: &Changes) -> impl Future<Output = Answer<()>> + use<> {
        let id = self.subject.id.clone();
        let wrap = {
            let id = id.clone();
            move |source| ContainerError::Step { id, verb: VERB, source: Arc::new(source) }
        };
        let shared = Arc::clone(&self.subject.shared);
        let job = self.limits_to_change(changes).map(|job| {
            job.map(|(of, from, to)| {
                let meters = Arc::clone(&shared.meters);
                move || meters.limit(&of, &from, &to)
            })
        });
        async move {
            let Some(job) = job? else { return Ok(()) };
            let done = shared.meter_pool.run("change the limits of a container", job).await;
            done.map_err(StepError::Job).and_then(|limited| limited.map_err(StepError::Limits)).map_err(wrap)
        }
    }

    /// Returns the limits before and after; `None` when none is in force that changes.
    fn limits_to_change(&self, changes: &Changes) -> Answer<Option<(Metered, CgroupLimits, CgroupLimits)>> {
        let id = self.subject.id.clone();
        if self.is_gone {
            return Err(self.gone(VERB));
        }
        let spec = changes.apply(&self.subject.spec);
        let spec = spec.map_err(|source| ContainerError::Spec { id: id.clone(), source })?;
        if !changes.has_limits() {
            return Ok(None);
        }
        match self.state {
            State::Running { pid } | State::Paused { pid } => {
                let defaults = self.defaults_in_force();
                let (from, to) = (cgroup_limits(&self.subject.spec, &defaults), cgroup_limits(&spec, &defaults));
                Ok((from != to).then_some((Metered { id, pid }, from, to)))
            }
            // It has them from its next start on.
            State::Stopped { .. } | State::Backoff { .. } | State::Failed { .. } | State::Prepared => Ok(None),
            _ => Err(ContainerError::Forbidden { id, verb: VERB, state: self.state.name() }),
        }
    }

    /// Takes the changes into the record; returns the write.
    fn take_changes(
        &mut self,
        changes: &Changes,
        generation: u64,
        ctx: &mut Context<Self>,
    ) -> Answer<impl Future<Output = Answer<()>> + use<>> {
        let id = self.subject.id.clone();
        if self.is_gone {
            return Err(self.gone(VERB));
        }
        if changes.has_limits() && self.generation != generation {
            return Err(ContainerError::StartedAnew { id, verb: VERB });
        }
        let spec = changes.apply(&self.subject.spec);
        let spec = spec.map_err(|source| ContainerError::Spec { id: id.clone(), source })?;
        let ResourceLimits { memory_bytes, cpu, pids_limit } = limits(&spec, &self.defaults_in_force());
        if let Some(in_force) = &mut self.record.in_force {
            (in_force.memory_bytes, in_force.cpu, in_force.pids_limit) = (memory_bytes, cpu, pids_limit);
        }
        self.record.spec = spec.clone();
        self.subject.spec = Arc::new(spec);
        self.drop_unwanted_restart(ctx);
        self.show();
        let write = self.save();
        let wrap = move |source: Arc<RecordError>| ContainerError::Step {
            id,
            verb: VERB,
            source: StepError::Record(source).into(),
        };
        Ok(async move { write.await.map_err(wrap) })
    }

    /// Returns the node's limits as they were when the container was made: the node's own may be others by now.
    fn defaults_in_force(&self) -> Defaults {
        let node = self.subject.shared.settings().defaults.limits;
        self.record.in_force.as_ref().map_or(node, |made| Defaults {
            memory_bytes: made.memory_bytes,
            cpu: made.cpu,
            pids_limit: made.pids_limit,
            ..node
        })
    }
}
