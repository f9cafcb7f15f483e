//! The rights of a peer: its user (`SO_PEERCRED`) and groups (`SO_PEERGROUPS`) against the rules of the configuration.
//!
//! Here: verbs and namespaces. The use of the host by a container is judged by [`contd_node::Rules`].

use std::sync::Arc;

use contd_protocol::api::{MakeKind, Request};
use contd_types::{ApiError, Caller, ErrorKind, NamespaceId};

use crate::daemon::places::Shares;
use contd_node::{Access, Limits, fits, is_in_scope};

/// The process at the other end of a connection, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its effective user when it connected.
    pub(crate) uid: u32,
    /// Its effective group when it connected.
    pub(crate) gid: u32,
    /// Its supplementary groups then.
    pub(crate) groups: Arc<[u32]>,
    /// Its process id, for the audit line; 0 when the kernel does not tell.
    pub(crate) pid: i32,
}

impl Peer {
    /// Returns who it is, for the rules.
    pub(crate) fn caller(&self) -> Caller {
        Caller { uid: self.uid, gid: self.gid, groups: self.groups.to_vec() }
    }
}

/// The rights of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// With their labels.
    rules: Vec<(String, Access)>,
    caller: Caller,
    is_all: bool,
}

impl Rights {
    /// Collects the rules that fit the peer; `None` when it may do nothing at all.
    pub(crate) fn of(peer: &Peer, own_uid: u32, rules: &[Access]) -> Option<Self> {
        let caller = peer.caller();
        if peer.uid == 0 || peer.uid == own_uid {
            return Some(Self { rules: Vec::new(), caller, is_all: true });
        }
        let labelled = rules.iter().enumerate().filter(|(_, rule)| fits(rule, &caller));
        let rules: Vec<_> = labelled.map(|(position, rule)| (rule.label(position), rule.clone())).collect();
        if rules.is_empty() { None } else { Some(Self { rules, caller, is_all: false }) }
    }

    /// Returns who it is if its rights are limited: then what its containers may have is judged.
    pub(crate) fn limited(&self) -> Option<&Caller> {
        (!self.is_all).then_some(&self.caller)
    }

    /// Tells what the peer may have at once; the most generous of its rules counts. `None` for rights that are none.
    pub(crate) fn shares(rights: Option<&Self>, limits: &Limits) -> Shares {
        let Some(rights) = rights else { return Shares::of(limits, None, None) };
        if rights.is_all {
            return Shares::UNLIMITED;
        }
        let most = |of: fn(&Access) -> Option<usize>| rights.rules.iter().filter_map(|(_, rule)| of(rule)).max();
        Shares::of(limits, most(|rule| rule.max_connections), most(|rule| rule.max_followers))
    }

    /// Checks a request, and names the rule that allows it; empty when none is needed.
    ///
    /// # Errors
    /// `PermissionDenied`, naming the verb and the namespace.
    pub(crate) fn check(&self, request: &Request) -> Result<String, ApiError> {
        let (verb, scope, is_mutation) = describe(request);
        let allowing = match scope {
            Scope::Nothing => Some(String::new()),
            Scope::One(namespace) => self.allowing(Some(namespace), is_mutation),
            Scope::All => self.allowing(None, is_mutation),
            Scope::Node => self.is_all.then(String::new),
        };
        if let Some(rule) = allowing {
            return Ok(rule);
        }
        let what = match scope {
            Scope::One(namespace) => format!("{verb} in namespace {namespace}"),
            Scope::All | Scope::Nothing => format!("{verb} over all namespaces"),
            Scope::Node => format!("{verb} of this node"),
        };
        let message = format!("{what}: no rule of uid {} allows that", self.caller.uid);
        Err(ApiError::new(ErrorKind::PermissionDenied, message).with_hint(self.what_is_allowed(is_mutation)))
    }

    /// Tells whether the peer may look at a namespace.
    pub(crate) fn may_see(&self, namespace: &NamespaceId) -> bool {
        self.allowing(Some(namespace), false).is_some()
    }

    /// Names the first rule that allows something there.
    fn allowing(&self, namespace: Option<&NamespaceId>, is_mutation: bool) -> Option<String> {
        if self.is_all {
            return Some(String::new());
        }
        let allows = |rule: &Access| {
            let is_there = namespace.map_or(rule.namespaces.is_empty(), |namespace| is_in_scope(rule, namespace));
            is_there && !(is_mutation && rule.read_only)
        };
        self.rules.iter().find(|(_, rule)| allows(rule)).map(|(label, _)| label.clone())
    }

    fn what_is_allowed(&self, is_mutation: bool) -> String {
        let mut namespaces: Vec<&str> =
            self.rules.iter().flat_map(|(_, rule)| &rule.namespaces).map(contd_types::NamespaceId::as_str).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let is_looking_only = self.rules.iter().all(|(_, rule)| rule.read_only);
        let own = if is_mutation && is_looking_only {
            "your rules let you look only".to_owned()
        } else if namespaces.is_empty() {
            "your rules let you change nothing there".to_owned()
        } else {
            format!("your rules are about: {} (choose one with -n)", namespaces.join(", "))
        };
        format!("{own}; for more ask the operator for an [[access]] rule in the configuration of contd")
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
        Request::Update { target, .. } | Request::Change { target, .. } => {
            ("update", Scope::One(&target.namespace), true)
        }
        Request::UpgradeShim { target } => ("upgrade shim", Scope::One(&target.namespace), true),
        Request::Start { target } => ("start", Scope::One(&target.namespace), true),
        Request::Restart { target, .. } => ("restart", Scope::One(&target.namespace), true),
        Request::Pause { target } => ("pause", Scope::One(&target.namespace), true),
        Request::Unpause { target } => ("unpause", Scope::One(&target.namespace), true),
        Request::Stop { target, .. } => ("stop", Scope::One(&target.namespace), true),
        Request::Kill { target, .. } => ("kill", Scope::One(&target.namespace), true),
        Request::Delete { target, .. } => ("delete", Scope::One(&target.namespace), true),
        Request::Inspect { target } => ("inspect", Scope::One(&target.namespace), false),
        Request::List { namespace, .. } => ("list", namespace.as_ref().map_or(Scope::All, Scope::One), false),
        Request::ListNamespaces => ("list namespaces", Scope::All, false),
        // A user of one namespace does not learn which flists another one has fetched.
        Request::FlistServers => ("list flist servers", Scope::All, false),
        Request::CacheUsage => ("look at the cache", Scope::All, false),
        Request::Attach { target } => ("attach", Scope::One(&target.namespace), true),
        Request::CloseInput { target } => ("close input", Scope::One(&target.namespace), true),
        Request::Resize { target, .. } => ("resize", Scope::One(&target.namespace), true),
        Request::Stats { target } => ("stats", Scope::One(&target.namespace), false),
        Request::ListStats { namespace, .. } => ("stats", namespace.as_ref().map_or(Scope::All, Scope::One), false),
        Request::Processes { target } => ("top", Scope::One(&target.namespace), false),
        Request::Wait { target } => ("wait", Scope::One(&target.namespace), false),
        Request::Logs { target, .. } => ("logs", Scope::One(&target.namespace), false),
        Request::Make(make) => {
            let verb = match make.kind {
                MakeKind::Run => "run",
                MakeKind::Create => "create",
                MakeKind::DryRun => "dry run",
            };
            (verb, Scope::One(&make.namespace), true)
        }
        // A dry run mounts the flist for a moment and fetches it: as much work for the node as a run.
        Request::DryRun(run) => ("dry run", Scope::One(&run.namespace), true),
        Request::ShutDown { .. } => ("shutdown", Scope::Node, true),
        Request::Exec(exec) | Request::ExecStream(exec) => ("exec", Scope::One(&exec.target.namespace), true),
        Request::KillExec { target, .. } => ("kill exec", Scope::One(&target.namespace), true),
        Request::ExecInput { target, .. } => ("exec input", Scope::One(&target.namespace), true),
        Request::ResizeExec { target, .. } => ("resize exec", Scope::One(&target.namespace), true),
        Request::WaitExec { target, .. } => ("wait exec", Scope::One(&target.namespace), false),
        Request::ListExecs { target } => ("list execs", Scope::One(&target.namespace), false),
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
        Peer { uid, gid: uid, groups: Arc::from([61_007]), pid: 1 }
    }

    #[test]
    fn a_user_without_a_rule_may_not_even_connect() {
        assert!(Rights::of(&peer(1000), 0, &[rule(1001, &[], false)]).is_none());
        assert!(Rights::of(&peer(1000), 0, &[Access::default()]).is_none());
    }

    #[test]
    fn a_namespace_reaches_its_own_namespace_only() {
        let rights = Rights::of(&peer(1000), 0, &[rule(1000, &["a"], false)]).expect("has a rule");
        assert!(rights.check(&Request::Inspect { target: target("a") }).is_ok());
        assert!(rights.check(&Request::Kill { target: target("a"), signal: Signal::KILL }).is_ok());
        let refused = rights.check(&Request::Inspect { target: target("b") }).expect_err("another namespace");
        assert_eq!(refused.kind, ErrorKind::PermissionDenied);
        assert!(rights.may_see(&namespace("a")) && !rights.may_see(&namespace("b")));
        assert!(rights.check(&Request::ListNamespaces).is_err());
        // The flists that others run and have fetched.
        assert!(rights.check(&Request::FlistServers).is_err() && rights.check(&Request::CacheUsage).is_err());
        assert!(rights.check(&Request::List { namespace: None, after: None, limit: 1 }).is_err());
    }

    #[test]
    fn a_read_only_right_changes_nothing() {
        let rights = Rights::of(&peer(1000), 0, &[rule(1000, &[], true)]).expect("has a rule");
        assert!(rights.check(&Request::ListNamespaces).is_ok());
        assert!(rights.check(&Request::FlistServers).is_ok() && rights.check(&Request::CacheUsage).is_ok());
        assert!(rights.check(&Request::Delete { target: target("a"), force: true, timeout: None }).is_err());
    }

    #[test]
    fn a_supplementary_group_counts_and_the_rule_is_named() {
        let rule = |gid| Access { gid: Some(gid), name: Some("ops".into()), ..Access::default() };
        assert!(Rights::of(&peer(1000), 0, &[rule(61_008)]).is_none());
        let rights = Rights::of(&peer(1000), 0, &[rule(1000)]).expect("the primary group");
        assert_eq!(rights.check(&Request::ListNamespaces).as_deref(), Ok("ops"));
        let rights = Rights::of(&peer(1000), 0, &[rule(61_007)]).expect("a supplementary group");
        assert_eq!(rights.check(&Request::Inspect { target: target("a") }).as_deref(), Ok("ops"));
        assert_eq!(rights.limited().map(|caller| caller.uid), Some(1000));
        let both = Access { uid: Some(1001), ..rule(61_007) };
        assert!(Rights::of(&peer(1000), 0, &[both]).is_none(), "a rule with both wants both");
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let hint = |rule, request: &Request| {
            let rights = Rights::of(&peer(1000), 0, &[rule]).expect("has a rule");
            rights.check(request).expect_err("refused").hint.unwrap_or_default()
        };
        assert!(hint(rule(1000, &["mine"], false), &Request::Inspect { target: target("b") }).contains("mine"));
        let kill = Request::Kill { target: target("mine"), signal: Signal::KILL };
        assert!(hint(rule(1000, &["mine"], true), &kill).contains("look only"));
    }

    #[test]
    fn the_node_itself_is_roots() {
        let shut_down = Request::ShutDown { longest: std::time::Duration::ZERO };
        let rights = Rights::of(&peer(1000), 0, &[rule(1000, &[], false)]).expect("has a rule for everything");
        assert_eq!(rights.check(&shut_down).expect_err("not root").kind, ErrorKind::PermissionDenied);
        assert!(Rights::of(&peer(0), 0, &[]).expect("root").check(&shut_down).is_ok());
    }

    #[test]
    fn root_may_do_everything() {
        let rights = Rights::of(&peer(0), 0, &[]).expect("root");
        assert!(rights.limited().is_none());
        assert!(rights.check(&Request::Delete { target: target("a"), force: true, timeout: None }).is_ok());
    }
}
