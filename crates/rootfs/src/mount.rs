//! The real provider: servers below, layers above, and what a new daemon finds of both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use contd_durable::{Fs, RealFs};
use contd_flist::{BlockCache, CacheLimits, CacheOptions, ImageDefaults};
use contd_per_key::{PerKey, hold};
use contd_protocol::flistfs;
use contd_types::{ApiError, ContainerId, NamespaceId};
use tracing::{info, warn};

use crate::detach::MountPoint;
use crate::grant::{Grant, Sources};
use crate::layers::{Place, caller_dir};
use crate::mount_table::{MountTable, is_mount_point, resolve};
use crate::provider::{
    FetchProgress, LostRootfs, PrepareRootfs, PreparedRootfs, RecoveredRootfs, RootfsError, RootfsProvider,
};
use crate::quota::Quotas;
use crate::removal::Removals;
use crate::servers::Servers;
use crate::source::{self, Base};
use crate::sources;
use crate::uppers::{Claim, Uppers};
use crate::users::{User, disk};

/// Where things are. Directories are made when they are first wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountConfig {
    /// The `contd-flistfs` program.
    pub flistfs_binary: PathBuf,
    /// On tmpfs: `/run/contd`.
    pub run_dir: PathBuf,
    /// `/var/lib/contd`.
    pub state_dir: PathBuf,
    /// `/var/cache/contd`.
    pub cache_dir: PathBuf,
}

/// Makes roots out of real mounts. One per daemon: its locks are what keeps two preparations from starting two servers.
#[derive(Debug)]
pub struct MountRootfs {
    config: MountConfig,
    cache_limits: Option<CacheLimits>,
    cgroup: Option<PathBuf>,
    node: OnceLock<Node>,
}

/// The configured directories, once they exist.
#[derive(Debug)]
struct Node {
    state: PathBuf,
    servers: Servers,
    /// Where flists are fetched to, if its limits are known here.
    cache: Option<BlockCache>,
    containers: PerKey<String, Mutex<()>>,
    uppers: Uppers,
    quotas: Quotas,
    removals: Removals,
    /// Containers that are gone but for mount points that something covers.
    covered: Mutex<BTreeSet<User>>,
}

impl MountRootfs {
    /// Makes a provider; nothing is touched before the first call.
    #[must_use]
    pub fn new(config: MountConfig) -> Self {
        Self { config, cache_limits: None, cgroup: None, node: OnceLock::new() }
    }

    /// Sets how large the cache may become, for the servers and for the flists that are fetched. Without it the servers
    /// have their own defaults, and nothing is removed from here.
    #[must_use]
    pub fn with_cache_limits(self, limits: CacheLimits) -> Self {
        Self { cache_limits: Some(limits), ..self }
    }

    /// Has the flist servers in a cgroup of their own, such as `/u.service/helpers`.
    #[must_use]
    pub fn with_cgroup(self, cgroup: Option<PathBuf>) -> Self {
        Self { cgroup, ..self }
    }

    /// Waits until all layers are removed that were set aside here: for whoever ends with the call.
    pub fn wait_for_removals(&self) {
        if let Some(node) = self.node.get() {
            node.removals.wait();
        }
    }

    fn open_cache(&self, root: &Path, run_dir: &Path) -> Option<BlockCache> {
        let options = CacheOptions { limits: self.cache_limits?, servers: Some(Servers::dir_in(run_dir)) };
        Some(BlockCache::at(root, options))
    }

    fn node(&self) -> Result<&Node, RootfsError> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        let config = &self.config;
        let [run, state, cache] = [(&config.run_dir, 0o711), (&config.state_dir, 0o700), (&config.cache_dir, 0o700)]
            .map(|(dir, mode)| {
                let made = RealFs.create_dir_all(dir, mode).and_then(|()| resolve(dir));
                made.map_err(|source| disk("make", dir, source))
            });
        let (run, cache) = (run?, cache?);
        let limits = self.cache_limits.map_or_else(Default::default, |limits| flistfs::CacheLimits {
            max_bytes: Some(limits.max_bytes),
            min_free_bytes: Some(limits.min_free_bytes),
        });
        let state = state?;
        let node = Node {
            removals: Removals::new(&state),
            state,
            cache: self.open_cache(&cache, &run),
            servers: Servers::new(config.flistfs_binary.clone(), &run, cache)
                .with_cache_limits(limits)
                .with_cgroup(self.cgroup.clone()),
            containers: PerKey::default(),
            uppers: Uppers::default(),
            quotas: Quotas::default(),
            covered: Mutex::default(),
        };
        // If another thread was faster, its node is the one, with its locks.
        Ok(self.node.get_or_init(|| node))
    }
}

impl RootfsProvider for MountRootfs {
    fn prepare(
        &self,
        request: &PrepareRootfs,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<PreparedRootfs, RootfsError> {
        let node = self.node()?;
        let user = User { namespace: request.namespace.clone(), id: request.id.clone() };
        let lock = node.lock_of(&user);
        {
            let _guard = hold(&lock);
            if let Some(there) = node.existing(&user, request)? {
                return node.attach(&user, request, there);
            }
        }
        // Without the lock: a download may take minutes, and a release must not wait for it.
        let base = node.base(&user, request, &self.config.cache_dir, progress)?;
        if let Some(cache) = &node.cache {
            cache.enforce_limits();
        }
        let _guard = hold(&lock);
        if let Some(there) = node.existing(&user, request)? {
            return node.attach(&user, request, there);
        }
        let had_disk = node.place(&user).has_disk();
        node.make(&user, &base, request).inspect_err(|_| {
            // The data of an earlier run is not affected by this failure.
            if let Err(also) = if had_disk { node.take_down(&user) } else { node.unmake(&user) } {
                let error = ApiError::from_error(&also);
                warn!(ns = %user.namespace, container = %user.id, %error, "a half-made root could not be removed");
            }
        })
    }

    fn release(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError> {
        let node = self.node()?;
        let user = User { namespace: namespace.clone(), id: id.clone() };
        let lock = node.lock_of(&user);
        let _guard = hold(&lock);
        node.unmake(&user)
    }

    fn free_memory(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), RootfsError> {
        let node = self.node()?;
        let user = User { namespace: namespace.clone(), id: id.clone() };
        let lock = node.lock_of(&user);
        let _guard = hold(&lock);
        let place = node.place(&user);
        // It stays a user of its flist, and finds it again as it was.
        if place.is_in_memory()? { node.unstack(&user).map(drop) } else { Ok(()) }
    }

    fn take_down(&self) -> Result<(), RootfsError> {
        let node = self.node()?;
        let users = node.servers.users()?.into_iter().map(|(user, _)| user);
        let all: BTreeSet<User> = users.chain(node.traces()?).collect();
        for user in all {
            let lock = node.lock_of(&user);
            let _guard = hold(&lock);
            if let Err(error) = node.take_down(&user) {
                // One that is stuck must not keep the others.
                let error = ApiError::from_error(&error);
                warn!(ns = %user.namespace, container = %user.id, %error, "a root could not be taken down");
            }
        }
        Ok(())
    }

    fn recover(&self) -> Result<Vec<RecoveredRootfs>, RootfsError> {
        let node = self.node()?;
        node.removals.go_on()?;
        let users: BTreeMap<User, String> = node.servers.users()?.into_iter().collect();
        let table = MountTable::read()?;
        let mut roots = Vec::new();
        let mut leftovers: Vec<User> = Vec::new();
        for user in node.traces()? {
            let place = node.place(&user);
            if table.is_mounted(&place.root) {
                node.uppers.remember(&user, &place.claim)?;
                let flist_hash = users.get(&user).cloned();
                let (image, layer, sources) = (ImageDefaults::default(), None, Sources::new());
                let rootfs = PreparedRootfs { root: place.root, flist_hash, image, layer, sources };
                roots.push(RecoveredRootfs { namespace: user.namespace, id: user.id, rootfs });
            } else {
                leftovers.push(user);
            }
        }
        let is_known = |user: &User| {
            roots.iter().any(|root: &RecoveredRootfs| root.namespace == user.namespace && root.id == user.id)
        };
        leftovers.extend(users.keys().filter(|user| !is_known(user)).cloned());
        leftovers.sort();
        leftovers.dedup();
        for user in leftovers {
            let lock = node.lock_of(&user);
            let _guard = hold(&lock);
            info!(ns = %user.namespace, container = %user.id, "removing what is left of a root that is not mounted");
            let place = node.place(&user);
            let taken_down = if place.has_disk() {
                // Of an earlier boot, or stopped: its container begins again where it was, if there is a record of it.
                let rootfs = PreparedRootfs {
                    flist_hash: place.flist_below()?,
                    root: place.root,
                    image: ImageDefaults::default(),
                    layer: None,
                    sources: Sources::new(),
                };
                let (namespace, id) = (user.namespace.clone(), user.id.clone());
                roots.push(RecoveredRootfs { namespace, id, rootfs });
                node.take_down(&user)
            } else {
                node.unmake(&user)
            };
            if let Err(error) = taken_down {
                // One that is stuck must not keep the daemon from the others.
                let error = ApiError::from_error(&error);
                warn!(ns = %user.namespace, container = %user.id, %error, "a leftover root could not be removed");
            }
        }
        node.servers.sweep()?;
        Ok(roots)
    }

    fn tidy(&self) -> Result<(), RootfsError> {
        let node = self.node()?;
        node.uncover();
        node.removals.tidy();
        node.servers.tidy()
    }

    fn lost(&self) -> Result<Vec<LostRootfs>, RootfsError> {
        let lost = self.node()?.servers.lost()?.into_iter();
        let named = |(User { namespace, id }, flist_hash, why)| LostRootfs { namespace, id, flist_hash, why };
        Ok(lost.map(named).collect())
    }
}

impl Node {
    fn place(&self, user: &User) -> Place {
        Place::new(&self.state, user.namespace.as_str(), user.id.as_str())
    }

    /// Finds a root that is mounted and whose server lives. One whose server died is taken down: it would only give
    /// errors.
    fn existing(&self, user: &User, request: &PrepareRootfs) -> Result<Option<PreparedRootfs>, RootfsError> {
        let place = self.place(user);
        if !is_mount_point(&place.root)? {
            return Ok(None);
        }
        let (flist_hash, image) = match self.servers.used_by(user)? {
            Some((_, false)) => {
                warn!(ns = %user.namespace, container = %user.id, "the flist server of this root died, making it anew");
                self.take_down(user)?;
                return Ok(None);
            }
            Some((hash, true)) => (Some(hash), self.servers.image_of(user)?),
            None => (None, ImageDefaults::default()),
        };
        let layer = place.made(request)?;
        Ok(Some(PreparedRootfs { root: place.root, flist_hash, image, layer, sources: Sources::new() }))
    }

    fn make(&self, user: &User, base: &Base, request: &PrepareRootfs) -> Result<PreparedRootfs, RootfsError> {
        let place = self.place(user);
        if place.has_traces() {
            // One that is covered is mounted over: nobody sees the copy from here.
            place.unstack()?;
        }
        self.covered().remove(user);
        let (lower, flist_hash, image) = match base {
            Base::Directory(path) => (path.clone(), None, ImageDefaults::default()),
            Base::Opened(dir) => (sources::path_of(dir), None, ImageDefaults::default()),
            Base::Flist { fetched, shown } => {
                let image = self.servers.image(fetched, shown)?;
                let mount_point = self.servers.acquire(fetched, shown, user, request)?;
                (mount_point, Some(fetched.hash.clone()), image)
            }
        };
        let upper = match request.grant.as_ref().and_then(|grant| grant.upper.as_ref()) {
            _ if request.is_read_only => None,
            Some(place) => Some(sources::real_path(place)?),
            None => request.upper_dir.as_deref().map(caller_dir).transpose()?,
        };
        let plain = match base {
            Base::Directory(path) => Some(path.clone()),
            Base::Opened(dir) => Some(sources::real_path_of(dir).map_err(|source| disk("look at", &lower, source))?),
            Base::Flist { .. } => None,
        };
        self.uppers.claim(user, &Claim::new(upper.as_deref(), plain.as_deref())?, &place.claim)?;
        place.stack(&lower, flist_hash.as_deref(), request, &self.quotas)?;
        let layer = place.made(request)?;
        let sources = Sources::new();
        self.attach(user, request, PreparedRootfs { root: place.root, flist_hash, image, layer, sources })
    }

    /// Attaches the sources of a caller with limited rights: each time anew, since they are judged anew each time.
    fn attach(
        &self,
        user: &User,
        request: &PrepareRootfs,
        prepared: PreparedRootfs,
    ) -> Result<PreparedRootfs, RootfsError> {
        match &request.grant {
            None => Ok(prepared),
            Some(grant) => {
                let sources = sources::attach(&self.place(user).binds, &grant.binds)?;
                Ok(PreparedRootfs { sources, ..prepared })
            }
        }
    }

    /// Finds what the root lies over. For one whose layer was made before it is the same flist as then, whatever is behind its
    /// name by now.
    fn base(
        &self,
        user: &User,
        request: &PrepareRootfs,
        cache: &Path,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<Base, RootfsError> {
        let (flist, grant): (&str, Option<&Grant>) = (&request.flist, request.grant.as_deref());
        let wanted = match self.place(user).flist_below()? {
            Some(hash) => Some(hash),
            None => self.servers.used_by(user)?.map(|(hash, _)| hash),
        };
        if let Some(base) = wanted.as_deref().and_then(|hash| source::cached(flist, hash, cache)) {
            return Ok(base);
        }
        let base = source::fetch(flist, grant, cache, progress)?;
        match (wanted, &base) {
            (Some(wanted), Base::Flist { fetched, shown }) if fetched.hash != wanted => {
                Err(RootfsError::FlistChanged { flist: shown.clone(), found: fetched.hash.clone(), wanted })
            }
            _ => Ok(base),
        }
    }

    /// Unmounts root and layer. What is covered is noted, for later.
    fn unstack(&self, user: &User) -> Result<(), RootfsError> {
        match self.place(user).unstack()? {
            MountPoint::Gone => self.covered().remove(user),
            MountPoint::Covered => {
                let (ns, container) = (&user.namespace, &user.id);
                info!(%ns, %container, "a copy of the mount in our namespace covers the root, it is removed later");
                self.covered().insert(user.clone())
            }
        };
        Ok(())
    }

    /// Takes down the mounts, then lets go of the server and of callers' directories. A layer on disk stays.
    fn take_down(&self, user: &User) -> Result<(), RootfsError> {
        // While the root is mounted the container still uses the flist, so its server must stay.
        self.unstack(user)?;
        self.servers.release(user)?;
        self.uppers.give_back(user, &self.place(user).claim)
    }

    /// Takes it all down, with the layer on disk.
    fn unmake(&self, user: &User) -> Result<(), RootfsError> {
        let place = self.place(user);
        let root = place.hold().filter(|_| place.has_disk());
        self.take_down(user)?;
        self.removals.set_aside(&place.disk, &user.to_string(), root)?;
        place.remove_dir();
        Ok(())
    }

    /// Returns the lock of a container: what happens with its root happens one after the other.
    fn lock_of(&self, user: &User) -> Arc<Mutex<()>> {
        self.containers.of(&user.to_string(), Mutex::default)
    }

    /// Tries again to remove mount points that something covered.
    fn uncover(&self) {
        let covered: Vec<User> = self.covered().iter().cloned().collect();
        for user in covered {
            let lock = self.lock_of(&user);
            let _guard = hold(&lock);
            // It may have been made anew meanwhile: then it is none of these.
            if self.covered().contains(&user) && matches!(self.place(&user).unstack(), Ok(MountPoint::Gone)) {
                self.covered().remove(&user);
                self.place(&user).remove_dir();
            }
        }
    }

    fn covered(&self) -> MutexGuard<'_, BTreeSet<User>> {
        // Only inserts and removes happen under it: a panic leaves the set whole.
        self.covered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the containers that have a root's directory below the state directory.
    fn traces(&self) -> Result<Vec<User>, RootfsError> {
        let mut found = Vec::new();
        for namespace in names::<NamespaceId>(&self.state)? {
            for id in names::<ContainerId>(&self.state.join(&namespace))? {
                let user = User { namespace: namespace.clone(), id };
                if self.place(&user).has_traces() {
                    found.push(user);
                }
            }
        }
        Ok(found)
    }
}

/// Lists the entries of a directory whose names are of this kind; something that is no directory has none.
fn names<T: std::str::FromStr>(dir: &Path) -> Result<Vec<T>, RootfsError> {
    match RealFs.list(dir) {
        Ok(names) => Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect()),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound) => {
            Ok(Vec::new())
        }
        Err(source) => Err(disk("list", dir, source)),
    }
}
