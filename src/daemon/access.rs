//! Who may do what: the peer's uid and gid (`SO_PEERCRED`) against the rules of the configuration.

use contd_protocol::api::Request;
use contd_types::{ApiError, ErrorKind, NamespaceId};

use crate::config::{Access, Limits};
use crate::daemon::places::Shares;

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user when it connected.
    pub(crate) uid: u32,
    /// Its effective group when it connected.
    pub(crate) gid: u32,
    /// Its process id, for the audit line; 0 when the kernel does not tell.
    pub(crate) pid: i32,
}

/// What one peer may do.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    rules: Vec<Access>,
    is_all: bool,
}

impl Rights {
    /// Collects the rules that fit the peer; `None` when it may do nothing at all.
    pub(crate) fn of(peer: Peer, own_uid: u32, rules: &[Access]) -> Option<Self> {
        if peer.uid == 0 || peer.uid == own_uid {
            return Some(Self { rules: Vec::new(), is_all: true });
        }
        let fits = |rule: &&Access| match (rule.uid, rule.gid) {
            (None, None) => false,
            (uid, gid) => uid.is_none_or(|uid| uid == peer.uid) && gid.is_none_or(|gid| gid == peer.gid),
        };
        let rules: Vec<Access> = rules.iter().filter(fits).cloned().collect();
        if rules.is_empty() { None } else { Some(Self { rules, is_all: false }) }
    }

    /// Tells what the peer may have at once; the most generous of its rules counts. `None` for rights that are none.
    pub(crate) fn shares(rights: Option<&Self>, limits: &Limits) -> Shares {
        let Some(rights) = rights else { return Shares::of(limits, None, None) };
        if rights.is_all {
            return Shares::UNLIMITED;
        }
        let most = |of: fn(&Access) -> Option<usize>| rights.rules.iter().filter_map(of).max();
        Shares::of(limits, most(|rule| rule.max_connections), most(|rule| rule.max_followers))
    }

    /// Checks a request.
    ///
    /// # Errors
    /// `PermissionDenied`, naming the verb and the namespace.
    pub(crate) fn check(&self, request: &Request) -> Result<(), ApiError> {
        let (verb, scope, is_mutation) = describe(request);
        let is_allowed = match scope {
            Scope::Nothing => true,
            Scope::One(namespace) => self.allows(Some(namespace), is_mutation),
            Scope::All => self.allows(None, is_mutation),
            Scope::Node => self.is_all,
        };
        if is_allowed {
            return Ok(());
        }
        let what = match scope {
            Scope::One(namespace) => format!("{verb} in namespace {namespace}"),
            Scope::All | Scope::Nothing => format!("{verb} over all namespaces"),
            Scope::Node => format!("{verb} of this node"),
        };
        let hint = "ask the operator for an [[access]] rule in the configuration of contd";
        Err(ApiError::new(ErrorKind::PermissionDenied, format!("{what}: this user may not")).with_hint(hint))
    }

    /// Tells whether the peer may look at a namespace.
    pub(crate) fn may_see(&self, namespace: &NamespaceId) -> bool {
        self.allows(Some(namespace), false)
    }

    fn allows(&self, namespace: Option<&NamespaceId>, is_mutation: bool) -> bool {
        self.is_all
            || self.rules.iter().any(|rule| {
                let is_in_scope = rule.namespaces.is_empty()
                    || namespace.is_some_and(|namespace| rule.namespaces.contains(namespace));
                is_in_scope && !(is_mutation && rule.read_only)
            })
    }
}

/// Which namespaces a request touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope<'a> {
    /// None.
    Nothing,
    /// This one.
    One(&'a NamespaceId),
    /// Every one.
    All,
    /// The node itself: no rule gives that.
    Node,
}

/// Tells the verb of a request, what it touches, and whether it changes anything.
pub(crate) fn describe(request: &Request) -> (&'static str, Scope<'_>, bool) {
    match request {
        Request::Version => ("version", Scope::Nothing, false),
        Request::Run(run) => ("run", Scope::One(&run.namespace), true),
        Request::Create(run) => ("create", Scope::One(&run.namespace), true),
        Request::Update { target, .. } => ("update", Scope::One(&target.namespace), true),
        Request::UpgradeShim { target } => ("upgrade shim", Scope::One(&target.namespace), true),
        Request::Start { target } => ("start", Scope::One(&target.namespace), true),
        Request::Stop { target, .. } => ("stop", Scope::One(&target.namespace), true),
        Request::Kill { target, .. } => ("kill", Scope::One(&target.namespace), true),
        Request::Delete { target, .. } => ("delete", Scope::One(&target.namespace), true),
        Request::Inspect { target } => ("inspect", Scope::One(&target.namespace), false),
        Request::List { namespace, .. } => ("list", namespace.as_ref().map_or(Scope::All, Scope::One), false),
        Request::ListNamespaces => ("list namespaces", Scope::All, false),
        // What one tenant has fetched is nothing that another learns.
        Request::FlistServers => ("list flist servers", Scope::All, false),
        Request::CacheUsage => ("look at the cache", Scope::All, false),
        Request::Wait { target } => ("wait", Scope::One(&target.namespace), false),
        Request::Logs { target, .. } => ("logs", Scope::One(&target.namespace), false),
        // A dry run mounts the flist for a moment and fetches it: as much work for the node as a run.
        Request::DryRun(run) => ("dry run", Scope::One(&run.namespace), true),
        Request::ShutDown { .. } => ("shutdown", Scope::Node, true),
        Request::Events { namespace, .. } => ("events", namespace.as_ref().map_or(Scope::All, Scope::One), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_protocol::api::Target;
    use contd_types::{ContainerRef, Signal};

    fn namespace(name: &str) -> NamespaceId {
        NamespaceId::new(name).expect("valid")
    }

    fn target(name: &str) -> Target {
        Target { namespace: namespace(name), container: ContainerRef::new("c").expect("valid") }
    }

    fn rule(uid: u32, namespaces: &[&str], read_only: bool) -> Access {
        let namespaces = namespaces.iter().map(|name| namespace(name)).collect();
        Access { uid: Some(uid), namespaces, read_only, ..Access::default() }
    }

    fn peer(uid: u32) -> Peer {
        Peer { uid, gid: uid, pid: 1 }
    }

    #[test]
    fn a_user_without_a_rule_may_not_even_connect() {
        assert!(Rights::of(peer(1000), 0, &[rule(1001, &[], false)]).is_none());
        assert!(Rights::of(peer(1000), 0, &[Access::default()]).is_none());
    }

    #[test]
    fn a_tenant_reaches_its_own_namespace_only() {
        let rights = Rights::of(peer(1000), 0, &[rule(1000, &["a"], false)]).expect("has a rule");
        assert!(rights.check(&Request::Inspect { target: target("a") }).is_ok());
        assert!(rights.check(&Request::Kill { target: target("a"), signal: Signal::KILL }).is_ok());
        let refused = rights.check(&Request::Inspect { target: target("b") }).expect_err("another tenant");
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
        assert!(rights.may_see(&namespace("a")) && !rights.may_see(&namespace("b")));
        assert!(rights.check(&Request::ListNamespaces).is_err());
        // What others run and have fetched.
        assert!(rights.check(&Request::FlistServers).is_err() && rights.check(&Request::CacheUsage).is_err());
        assert!(rights.check(&Request::List { namespace: None, after: None, limit: 1 }).is_err());
    }

    #[test]
    fn a_read_only_right_changes_nothing() {
        let rights = Rights::of(peer(1000), 0, &[rule(1000, &[], true)]).expect("has a rule");
        assert!(rights.check(&Request::ListNamespaces).is_ok());
        assert!(rights.check(&Request::FlistServers).is_ok() && rights.check(&Request::CacheUsage).is_ok());
        assert!(rights.check(&Request::Delete { target: target("a"), force: true, timeout: None }).is_err());
    }

    #[test]
    fn the_node_itself_is_roots() {
        let shut_down = Request::ShutDown { longest: std::time::Duration::ZERO };
        let rights = Rights::of(peer(1000), 0, &[rule(1000, &[], false)]).expect("has a rule for everything");
        assert_eq!(rights.check(&shut_down).expect_err("not root").kind, ErrorKind::PermissionDenied);
        assert!(Rights::of(peer(0), 0, &[]).expect("root").check(&shut_down).is_ok());
    }

    #[test]
    fn root_may_do_everything() {
        let rights = Rights::of(peer(0), 0, &[]).expect("root");
        assert!(rights.check(&Request::Delete { target: target("a"), force: true, timeout: None }).is_ok());
    }
}
