//! How much of the API each user has: connections, calls, followers and dry runs. All are counted, and each has its key.
//!
//! A place is taken when something begins and free again when it is dropped. Root (and the daemon's own user) has no limit
//! of its own, and connections that are kept for it: what others have taken never keeps it from acting.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_types::{ApiError, ErrorKind};

use contd_node::Limits;

/// The kinds of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections, from the moment that one is accepted.
    Connection,
    /// Calls that end by themselves, until their reply was written.
    Call,
    /// Calls that last as long as their caller wants: logs and events that are followed, waits, attached runs.
    Follower,
    /// Dry runs.
    DryRun,
}

impl Kind {
    /// The key of the limit of each user.
    fn key(self) -> &'static str {
        match self {
            Self::Connection => "limits.connections_per_user",
            Self::Call => "limits.calls_per_user",
            Self::Follower => "limits.followers_per_user",
            Self::DryRun => "limits.dry_runs_per_user",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Call => "calls",
            Self::Follower => "followers (logs -f, events, wait, attached runs)",
            Self::DryRun => "dry runs",
        }
    }
}

/// The most that one user may have at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    connections: usize,
    calls: usize,
    followers: usize,
    dry_runs: usize,
}

impl Shares {
    /// Returns what root has: no limit of its own.
    pub(crate) const UNLIMITED: Self =
        Self { connections: usize::MAX, calls: usize::MAX, followers: usize::MAX, dry_runs: usize::MAX };

    /// Returns what a user has; what its rules say comes first.
    pub(crate) fn of(limits: &Limits, max_connections: Option<usize>, max_followers: Option<usize>) -> Self {
        Self {
            connections: max_connections.unwrap_or(limits.connections_per_user),
            calls: limits.calls_per_user,
            followers: max_followers.unwrap_or(limits.followers_per_user),
            dry_runs: limits.dry_runs_per_user,
        }
    }

    fn of_kind(&self, kind: Kind) -> usize {
        match kind {
            Kind::Connection => self.connections,
            Kind::Call => self.calls,
            Kind::Follower => self.followers,
            Kind::DryRun => self.dry_runs,
        }
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    kind: Kind,
    /// The user whose limit it is; `None` for that of all together.
    uid: Option<u32>,
    limit: usize,
}

impl Full {
    /// The key of the limit.
    pub(crate) fn key(&self) -> &'static str {
        if self.uid.is_none() { "limits.connections" } else { self.kind.key() }
    }

    /// Makes the answer to a call.
    pub(crate) fn to_error(self, call: u64) -> ApiError {
        let hint = format!("wait until one of them has ended, or have the operator raise {}", self.key());
        ApiError::new(ErrorKind::Busy, format!("call {call}: {self}")).with_hint(hint)
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, uid, limit } = self;
        match uid {
            Some(uid) => write!(f, "uid {uid} has {limit} {}, the most allowed ({})", kind.plural(), self.key()),
            None => write!(f, "{limit} {} are open, the most allowed ({})", kind.plural(), self.key()),
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Taken([usize; 4]);

impl Taken {
    fn of_kind(&mut self, kind: Kind) -> &mut usize {
        let Self([connections, calls, followers, dry_runs]) = self;
        match kind {
            Kind::Connection => connections,
            Kind::Call => calls,
            Kind::Follower => followers,
            Kind::DryRun => dry_runs,
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    /// Only those who have anything.
    users: HashMap<u32, Taken>,
    connections: usize,
    /// Those of them that root has.
    of_root: usize,
}

/// The places that are taken, by user.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Counts>);

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    kind: Kind,
    uid: u32,
    is_root: bool,
}

impl Places {
    /// Takes a place for a connection: one of the user's and one of all.
    pub(crate) fn connect(
        self: &Arc<Self>,
        uid: u32,
        is_root: bool,
        shares: Shares,
        limits: &Limits,
    ) -> Result<Place, Full> {
        let mut counts = self.lock();
        // These are left for root, however many the others have; the places of root beyond them are its own.
        let kept = limits.connections_for_root.min(limits.connections / 2);
        let is_full = if is_root {
            counts.connections >= limits.connections
        } else {
            counts.connections - counts.of_root >= limits.connections - kept || counts.connections >= limits.connections
        };
        let limit = if is_root { limits.connections } else { limits.connections - kept };
        if is_full {
            return Err(Full { kind: Kind::Connection, uid: None, limit });
        }
        counts.take(Kind::Connection, uid, shares)?;
        counts.connections += 1;
        counts.of_root += usize::from(is_root);
        Ok(Place { places: Arc::clone(self), kind: Kind::Connection, uid, is_root })
    }

    /// Takes a place for something else.
    pub(crate) fn take(self: &Arc<Self>, kind: Kind, uid: u32, shares: Shares) -> Result<Place, Full> {
        self.lock().take(kind, uid, shares)?;
        Ok(Place { places: Arc::clone(self), kind, uid, is_root: false })
    }

    /// Tells how many a user has.
    #[cfg(test)]
    pub(crate) fn of(&self, uid: u32, kind: Kind) -> usize {
        self.lock().users.get_mut(&uid).map_or(0, |taken| *taken.of_kind(kind))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn take(&mut self, kind: Kind, uid: u32, shares: Shares) -> Result<(), Full> {
        let limit = shares.of_kind(kind);
        let taken = self.users.get(&uid).copied().unwrap_or_default().of_kind(kind).to_owned();
        if taken >= limit {
            return Err(Full { kind, uid: Some(uid), limit });
        }
        *self.users.entry(uid).or_default().of_kind(kind) += 1;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        if self.kind == Kind::Connection {
            counts.connections = counts.connections.saturating_sub(1);
            counts.of_root = counts.of_root.saturating_sub(usize::from(self.is_root));
        }
        if let Some(taken) = counts.users.get_mut(&self.uid) {
            let of_kind = taken.of_kind(self.kind);
            *of_kind = of_kind.saturating_sub(1);
            if taken.0 == [0; 4] {
                counts.users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { connections: 10, connections_for_root: 3, connections_per_user: 4, ..Limits::default() }
    }

    fn shares() -> Shares {
        Shares::of(&limits(), None, None)
    }

    fn connect(places: &Arc<Places>, uid: u32) -> Result<Place, Full> {
        let shares = if uid == 0 { Shares::UNLIMITED } else { shares() };
        places.connect(uid, uid == 0, shares, &limits())
    }

    #[test]
    fn users_together_leave_root_the_connections_that_are_kept_for_it() {
        let places = Arc::new(Places::default());
        let mut kept = Vec::new();
        for uid in [1000, 1001] {
            while let Ok(place) = connect(&places, uid) {
                kept.push(place);
            }
        }
        assert_eq!(kept.len(), 7);
        assert_eq!(connect(&places, 1000).unwrap_err().key(), "limits.connections");
        let root: Vec<_> = (0..3).map(|_| connect(&places, 0).unwrap()).collect();
        assert_eq!(
            connect(&places, 0).unwrap_err().to_string(),
            "10 connections are open, the most allowed (limits.connections)"
        );
        drop(root);
        kept.truncate(4);
        let full = connect(&places, 1000).unwrap_err();
        assert_eq!(full.to_string(), "uid 1000 has 4 connections, the most allowed (limits.connections_per_user)");
        assert!(connect(&places, 1001).is_ok());
    }

    #[test]
    fn what_root_has_does_not_count_against_the_others_until_all_are_taken() {
        let places = Arc::new(Places::default());
        let root: Vec<_> = (0..9).map(|_| connect(&places, 0).unwrap()).collect();
        let user = connect(&places, 1000).unwrap();
        assert!(connect(&places, 1000).is_err());
        drop((root, user));
        assert!(places.lock().users.is_empty());
        assert_eq!(places.lock().connections, 0);
    }

    #[test]
    fn each_kind_is_counted_for_each_user_and_free_again() {
        let places = Arc::new(Places::default());
        let shares = Shares { connections: 1, calls: 2, followers: 1, dry_runs: 1 };
        for kind in [Kind::Call, Kind::Follower, Kind::DryRun] {
            let most = shares.of_kind(kind);
            let kept: Vec<_> = (0..most).map(|_| places.take(kind, 7, shares).unwrap()).collect();
            let error = places.take(kind, 7, shares).unwrap_err().to_error(5);
            assert_eq!(error.kind, ErrorKind::Busy);
            assert!(error.message.contains(kind.key()) && error.message.contains("uid 7"), "{}", error.message);
            assert!(places.take(kind, 8, shares).is_ok() && places.take(kind, 0, Shares::UNLIMITED).is_ok());
            drop(kept);
            assert!(places.take(kind, 7, shares).is_ok());
        }
        assert!(places.lock().users.is_empty(), "users pile up");
    }

    #[test]
    fn a_rule_may_give_more_or_less_than_the_default() {
        let shares = Shares::of(&limits(), Some(1), Some(99));
        assert_eq!((shares.connections, shares.followers, shares.calls), (1, 99, limits().calls_per_user));
    }
}
