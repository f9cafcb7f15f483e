//! Containers whose actor was lost: their records are read again, and each gets another actor, with back-off and a limit.

use std::sync::Arc;

use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use contd_store::ContainerRecord;
use contd_types::{ContainerId, State, Step};
use tracing::error;

use super::NamespaceActor;
use crate::container::Origin;
use crate::error::one_line;
use crate::records::RecordError;

impl NamespaceActor {
    /// Reads the record of a container whose actor was lost, and starts another.
    fn rebuild(&self, id: ContainerId, ctx: &mut Context<Self>) {
        let (records, namespace) = (self.shared.records.clone(), self.namespace.clone());
        let (locks, wanted) = (self.shared.locks.of(&id), id.clone());
        let read = async move { records.get(&locks, namespace, wanted).await };
        ctx.spawn(read.into_actor(self).map(move |found, actor, ctx| actor.finish_rebuild(&id, found, ctx)));
    }

    fn finish_rebuild(
        &mut self,
        id: &ContainerId,
        found: Result<Option<ContainerRecord>, RecordError>,
        ctx: &mut Context<Self>,
    ) {
        match found {
            Ok(Some(record)) => {
                let Some(child) = self.children.get_mut(id) else { return };
                child.generation = child.generation.saturating_add(1);
                // Its policy may have been changed since it was admitted.
                child.spec = Arc::new(record.spec.clone());
                child.key.clone_from(&record.idempotency_key);
                if let Some(key) = &child.key {
                    self.keys.insert(key.clone(), id.clone());
                }
                let (generation, spec, has_place) = (child.generation, Arc::clone(&child.spec), child.place.is_some());
                let place = if has_place { None } else { self.place_of(&record) };
                let origin = Origin::Recorded { may_have_shim: true };
                let subject = self.subject(id, &spec, record.caller.clone());
                self.start_actor(subject, record, origin, generation, ctx);
                self.shared.count_rebuild();
                if let Some(child) = self.children.get_mut(id) {
                    child.place = child.place.take().or(place);
                }
            }
            Ok(None) => {
                // It was lost before its record was written, or after it was removed: nothing is left of it.
                self.shared.view.remove(id);
                self.forget(id);
            }
            Err(failure) => {
                error!(container = %id, ns = %self.namespace, error = one_line(&failure), "record of a lost actor not read");
                self.rebuild_later(id.clone(), ctx);
            }
        }
    }

    pub(super) fn rebuild_later(&mut self, id: ContainerId, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if let Some(delay) = child.budget.next_delay() {
            ctx.run_later(delay, move |actor, ctx| actor.rebuild(id, ctx));
            return;
        }
        error!(container = %id, ns = %self.namespace, "its actor was lost too often, giving up; the container itself is not touched");
        if let Some(info) = self.shared.view.get(&id) {
            let mut shown = (*info).clone();
            let reason = "its actor was lost too often; restart the daemon to look after it again".to_owned();
            shown.state = State::Failed { step: Step::Record, reason };
            self.shared.view.publish(shown);
        }
    }
}
