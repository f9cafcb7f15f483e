//! Completes hints by what only the API knows: the namespace of the request, and which containers its caller may see.

use contd_actors::messages::FindElsewhere;
use contd_actors::{Supervisor, ask_api};
use contd_protocol::api::{Request, Target};
use contd_types::{ApiError, ErrorKind, NamespaceId, StateName, complete_commands};

use crate::daemon::access::{Rights, Scope, describe};
use crate::daemon::calls::QUERY_DEADLINE;

/// Namespaces that a hint names; others are counted.
const MAX_NAMED: usize = 3;

/// The part of a request that the hint of its error is about.
#[derive(Debug)]
pub(crate) struct About {
    namespace: Option<NamespaceId>,
    target: Option<Target>,
}

impl About {
    /// Takes what is needed, before the request is carried out.
    pub(crate) fn of(request: &Request) -> Self {
        let (_, scope, _) = describe(request);
        let namespace = if let Scope::One(namespace) = scope { Some(namespace.clone()) } else { None };
        Self { namespace, target: request.target().cloned() }
    }

    /// Completes the hint of an error: its commands can be pasted, and a name that is known elsewhere is found.
    pub(crate) async fn complete(
        self,
        node: &actix::Addr<Supervisor>,
        rights: &Rights,
        mut error: ApiError,
    ) -> ApiError {
        if error.kind == ErrorKind::NotFound
            && let Some(target) = self.target
            && let Ok(found) = ask_api(node, FindElsewhere { target: target.clone() }, QUERY_DEADLINE).await
        {
            let seen: Vec<_> = found.into_iter().filter(|(namespace, _)| rights.may_see(namespace)).collect();
            error.hint = elsewhere(&seen, &target).or(error.hint);
        }
        error.hint = error.hint.map(|hint| complete_commands(&hint, self.namespace.as_ref(), ""));
        error
    }
}

/// Says where a container of this name is.
fn elsewhere(found: &[(NamespaceId, StateName)], target: &Target) -> Option<String> {
    let (namespace, _) = found.first()?;
    let named: Vec<String> =
        found.iter().take(MAX_NAMED).map(|(namespace, state)| format!("{namespace} ({state})")).collect();
    let more = match found.len().checked_sub(MAX_NAMED) {
        Some(more @ 1..) => format!(" and {more} more"),
        _ => String::new(),
    };
    let (word, verb) = if found.len() == 1 { ("namespace", "has") } else { ("namespaces", "have") };
    let container = &target.container;
    Some(format!("{word} {}{more} {verb} one: contd -n {namespace} inspect {container}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::ContainerRef;

    #[test]
    fn where_else_a_name_is_known_is_said_with_a_command() {
        let namespace = |name: &str| NamespaceId::new(name).expect("valid");
        let target = Target { namespace: namespace("a"), container: ContainerRef::new("web").expect("valid") };
        assert_eq!(elsewhere(&[], &target), None);
        let one = [(namespace("b"), StateName::Stopped)];
        let hint = elsewhere(&one, &target).expect("found");
        assert_eq!(hint, "namespace b (stopped) has one: contd -n b inspect web");
        let many: Vec<_> = ["b", "c", "d", "e"].map(|name| (namespace(name), StateName::Running)).to_vec();
        let hint = elsewhere(&many, &target).expect("found");
        let said = "namespaces b (running), c (running), d (running) and 1 more have one: contd -n b inspect web";
        assert_eq!(hint, said);
    }
}
