//! The flist servers of this node: one per flist, found by its lease, started when the first container wants it, ended with
//! the last.
//!
//! A server has a directory of its own, and in it its mount point. The first of a flist has the beginning of its hash as name,
//! the next one the same with `-1`, `-2`…: another begins whenever the ones that are there cannot be used any more, because
//! they died under containers that still have their tree below them, or because they are ending and something resists.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contd_durable::{Fs, RealFs, replace_volatile};
use contd_flist::{FetchedFlist, ImageDefaults};
use contd_lease::LeaseState;
use contd_per_key::{PerKey, hold};
use contd_protocol::flistfs::{CacheLimits, LimitedRoutes, SERVE_SPEC_VERSION, ServeSpec};
use contd_types::{ApiError, ErrorKind};
use tracing::{debug, info, warn};

use crate::images::Images;
use crate::mount_table::MountTable;
use crate::provider::{PrepareRootfs, RootfsError};
use crate::server::{Found, Server};
use crate::source;
use crate::start::{self, START_TIMEOUT};
use crate::survey::FoundServer;
use crate::users::{self, User, disk, unwritten};

/// How many digits of the hash name a server's directory: 64 bits tell the flists of a node apart, and the socket's path
/// stays short. The whole hash is compared before a server is used.
const KEY_DIGITS: usize = 16;

/// How many directories one flist may have at once. More than one is there only while something resists.
const MAX_DIRECTORIES: usize = 100;

/// The file in a server's directory that says what to serve.
const SPEC_FILE: &str = "serve.json";

/// Far above any real one: it holds four paths.
const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// How often it is looked for a server again after one was started: once, unless it is killed in that moment.
const MAX_ROUNDS: u32 = 4;

/// All servers below one run directory.
#[derive(Debug)]
pub(crate) struct Servers {
    binary: PathBuf,
    dir: PathBuf,
    cache: PathBuf,
    cache_limits: CacheLimits,
    /// The cgroup for the servers; `None` leaves them in that of their daemon.
    cgroup: Option<PathBuf>,
    /// By flist: who looks for a server, starts one, or says that one is to end. Nobody waits for an end under it.
    locks: PerKey<String, Mutex<()>>,
    /// The directories of servers that are being ended right now.
    ending: Mutex<HashSet<String>>,
    images: Images,
}

impl Servers {
    /// Names them; `run_dir` must be without symlinks.
    pub(crate) fn new(binary: PathBuf, run_dir: &Path, cache: PathBuf) -> Self {
        Self {
            binary,
            dir: Self::dir_in(run_dir),
            cache,
            cache_limits: CacheLimits::default(),
            cgroup: None,
            locks: PerKey::default(),
            ending: Mutex::default(),
            images: Images::default(),
        }
    }

    /// Tells the servers to come how large their cache may become.
    pub(crate) fn with_cache_limits(self, cache_limits: CacheLimits) -> Self {
        Self { cache_limits, ..self }
    }

    /// Has the servers to come in a cgroup of their own.
    pub(crate) fn with_cgroup(self, cgroup: Option<PathBuf>) -> Self {
        Self { cgroup, ..self }
    }

    /// Says where the lease directories of all servers are.
    pub(crate) fn dir_in(run_dir: &Path) -> PathBuf {
        run_dir.join("f")
    }

    /// Makes sure that the flist is served, notes the user, and returns where it is mounted.
    ///
    /// With limited routes it is another server than without, and another one for other limits: what one caller's may not
    /// reach must not fail for those whose flist may route there.
    pub(crate) fn acquire(
        &self,
        flist: &FetchedFlist,
        shown: &str,
        user: &User,
        request: &PrepareRootfs,
    ) -> Result<PathBuf, RootfsError> {
        let prefix = &limited_prefix(prefix_of(&flist.hash), limited_routes(request));
        let lock = self.lock_of(prefix);
        let _guard = hold(&lock);
        for _ in 0..MAX_ROUNDS {
            for key in self.keys_of(prefix)? {
                let server = self.server(&key, shown);
                if self.join(&key, &server, &flist.hash, user)? {
                    return Ok(server.mount_point);
                }
            }
            let key = self.free_key(prefix, shown)?;
            self.start(&key, &self.server(&key, shown), flist, user, request)?;
        }
        Err(RootfsError::ServerSilent { flist: shown.to_owned(), waited: START_TIMEOUT })
    }

    /// Notes the user at a server that serves this flist; `false` when this one cannot be used.
    fn join(&self, key: &str, server: &Server, hash: &str, user: &User) -> Result<bool, RootfsError> {
        match server.look()? {
            Found::Serving(status) if status.hash == hash && server.is_mounted()? => {
                users::add(server.lease.path(), user, hash)?;
                if !server.is_ending() {
                    return Ok(true);
                }
                // Another process than this daemon (a doctor) ends it in this moment.
                users::remove(server.lease.path(), user)?;
            }
            // Its containers go on with it.
            Found::Dead if !server.is_unused_but_by(Some(user))? => {}
            Found::Dead => {
                warn!(flist = %server.flist, "clearing away a dead flist server");
                self.end_and_tell(key, server);
            }
            Found::Nothing => self.end_and_tell(key, server),
            Found::Serving(_) | Found::Ending => {}
        }
        Ok(false)
    }

    /// Forgets that the container uses any flist, and ends the server if it was the last user: without waiting for whoever
    /// else has its mount. If the word of the end cannot be left it stays a user, so that a repeated release finds it.
    /// Servers of other flists are not touched: one may be stuck.
    pub(crate) fn release(&self, user: &User) -> Result<(), RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            let dir = server.lease.path();
            if users::hash_of(dir, user)?.is_none() {
                continue;
            }
            {
                let lock = self.lock_of(prefix_of(&key));
                let _guard = hold(&lock);
                let is_last = server.is_unused_but_by(Some(user))?;
                if is_last {
                    server.leave_word_of_the_end()?;
                }
                users::remove(dir, user)?;
                if !is_last {
                    continue;
                }
            }
            self.end_and_tell(&key, &server);
        }
        Ok(())
    }

    /// Ends a server whose directory nobody takes any more. What resists is left to [`Self::tidy`].
    fn end_and_tell(&self, key: &str, server: &Server) {
        match server.leave_word_of_the_end().and_then(|()| self.end(key, server)) {
            Ok(()) => {}
            Err(error @ RootfsError::Successor { .. }) => {
                info!(flist = %key, error = %ApiError::from_error(&error), "a flist server ends later");
            }
            // With its reason, since one that is stuck must not keep anybody.
            Err(error) => {
                warn!(flist = %key, error = %ApiError::from_error(&error), "something is left of a flist server, trying again later");
            }
        }
    }

    fn end(&self, key: &str, server: &Server) -> Result<(), RootfsError> {
        if !self.ending().insert(key.to_owned()) {
            // Somebody is at it.
            return Ok(());
        }
        let ended = server.end();
        self.ending().remove(key);
        ended
    }

    /// Goes on with the ends that something has resisted.
    pub(crate) fn tidy(&self) -> Result<(), RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            if server.is_ending()
                && let Err(error) = self.end(&key, &server)
            {
                debug!(flist = %key, error = %ApiError::from_error(&error), "something is still left of a flist server");
            }
        }
        Ok(())
    }

    /// Returns the hash of the flist that the container uses, and whether its server lives.
    pub(crate) fn used_by(&self, user: &User) -> Result<Option<(String, bool)>, RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            if let Some(hash) = users::hash_of(server.lease.path(), user)? {
                let state = server.lease.probe().map_err(|error| server.lease_failed(&error))?;
                return Ok(Some((hash, matches!(state, LeaseState::Held(_)))));
            }
        }
        Ok(None)
    }

    /// Lists the users of servers that have ended without being asked, with the hash of their flist and the reason.
    pub(crate) fn lost(&self) -> Result<Vec<(User, String, ApiError)>, RootfsError> {
        let mut lost = Vec::new();
        for key in self.keys()? {
            let server = self.server(&key, &key);
            // A directory that cannot be understood is for `recover` and the doctor to tell of, once.
            let Ok(LeaseState::Dead(_)) = server.lease.probe() else { continue };
            // Ended by a release, which notes that before it kills and removes its user afterwards.
            if server.is_ending() {
                continue;
            }
            for user in users::list(server.lease.path())? {
                if let Some(hash) = users::hash_of(server.lease.path(), &user)? {
                    server.tell_the_log();
                    lost.push((user, hash, server.last_words()));
                }
            }
        }
        Ok(lost)
    }

    /// Has a server of this program take the place of the one that serves, under its containers. `false` when none serves.
    pub(crate) fn upgrade(&self, key: &str) -> Result<bool, RootfsError> {
        let lock = self.lock_of(prefix_of(key));
        let _guard = hold(&lock);
        let server = self.server(key, key);
        match server.look()? {
            Found::Serving(_) => {
                start::succeed(&self.binary, server.lease.path(), key)?;
                self.take_in(&server);
                Ok(true)
            }
            Found::Nothing | Found::Dead | Found::Ending => Ok(false),
        }
    }

    /// Tells how the image of a fetched flist is run.
    pub(crate) fn image(&self, flist: &FetchedFlist, shown: &str) -> Result<ImageDefaults, RootfsError> {
        self.images.get(&flist.hash, || source::image(&flist.path, shown))
    }

    /// Tells how the image of the container's flist is run: by the file that its server serves.
    pub(crate) fn image_of(&self, user: &User) -> Result<ImageDefaults, RootfsError> {
        for key in self.keys()? {
            let dir = self.dir.join(&key);
            let Some(hash) = users::hash_of(&dir, user)? else { continue };
            return self.images.get(&hash, || {
                let path = dir.join(SPEC_FILE);
                let failed = |error| disk("read", &path, error);
                let text = RealFs.read(&path, MAX_SPEC_BYTES).map_err(failed)?;
                let spec: ServeSpec = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
                source::image(&spec.flist, &key)
            });
        }
        Ok(ImageDefaults::default())
    }

    /// Lists all users with the hash of their flist.
    pub(crate) fn users(&self) -> Result<Vec<(User, String)>, RootfsError> {
        let mut all = Vec::new();
        for key in self.keys()? {
            let dir = self.dir.join(&key);
            for user in users::list(&dir)? {
                if let Some(hash) = users::hash_of(&dir, &user)? {
                    all.push((user, hash));
                }
            }
        }
        Ok(all)
    }

    /// Returns the lock of all servers of one flist.
    fn lock_of(&self, prefix: &str) -> Arc<Mutex<()>> {
        self.locks.of(&prefix.to_owned(), Mutex::default)
    }

    /// Ends every server without users and removes what dead ones left.
    pub(crate) fn sweep(&self) -> Result<(), RootfsError> {
        for key in self.keys()? {
            let server = self.server(&key, &key);
            {
                let lock = self.lock_of(prefix_of(&key));
                let _guard = hold(&lock);
                if !server.is_unused_but_by(None)? {
                    continue;
                }
                server.leave_word_of_the_end()?;
            }
            self.end_and_tell(&key, &server);
        }
        Ok(())
    }

    /// Ends one server if nobody is noted as its user, also one that answers no more; `false` when somebody is. May be called
    /// beside a daemon: whoever begins to use it in the same moment keeps it, or has another one started.
    pub(crate) fn end_unused(&self, key: &str) -> Result<bool, RootfsError> {
        let server = self.server(key, key);
        let was_ending = server.is_ending();
        if !server.is_unused_but_by(None)? {
            return Ok(false);
        }
        server.leave_word_of_the_end()?;
        if !was_ending && !server.is_unused_but_by(None)? {
            return server.take_word_back().map(|()| false);
        }
        self.end(key, &server).map(|()| true)
    }

    /// Describes every directory of a server as it is; changes nothing.
    pub(crate) fn survey(&self) -> Result<Vec<FoundServer>, RootfsError> {
        let table = MountTable::read()?;
        let look = |key: String| {
            let server = self.server(&key, &key);
            let users = users::list(server.lease.path())?.into_iter().map(|user| (user.namespace, user.id)).collect();
            let is_mounted = table.is_mounted(&server.mount_point);
            let (state, is_ending) = (server.lease.probe(), server.is_ending());
            Ok(FoundServer { key, state, dir: server.lease.path().to_owned(), users, is_mounted, is_ending })
        };
        self.keys()?.into_iter().filter(|key| self.dir.join(key).is_dir()).map(look).collect()
    }

    fn server(&self, key: &str, shown: &str) -> Server {
        Server::at(self.dir.join(key), shown)
    }

    fn ending(&self) -> MutexGuard<'_, HashSet<String>> {
        // Only inserts and removes happen under it: a panic leaves the set whole.
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the directories of one flist, the oldest name first.
    fn keys_of(&self, prefix: &str) -> Result<Vec<String>, RootfsError> {
        let mut keys = self.keys()?;
        keys.retain(|key| prefix_of(key) == prefix);
        Ok(keys)
    }

    /// Finds a name under which there is nothing, and from which nothing is being removed.
    fn free_key(&self, prefix: &str, shown: &str) -> Result<String, RootfsError> {
        for number in 0..MAX_DIRECTORIES {
            let key = if number == 0 { prefix.to_owned() } else { format!("{prefix}-{number}") };
            if self.dir.join(&key).symlink_metadata().is_err() && !self.ending().contains(&key) {
                return Ok(key);
            }
        }
        let message = format!("{MAX_DIRECTORIES} earlier servers of it are still there");
        let source = ApiError::new(ErrorKind::Busy, message).with_hint(
            "see what keeps them: contd flist server ls, contd doctor, grep contd-flistfs /proc/*/mountinfo",
        );
        Err(RootfsError::Server { flist: shown.to_owned(), source })
    }

    fn keys(&self) -> Result<Vec<String>, RootfsError> {
        match RealFs.list(&self.dir) {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(disk("list", &self.dir, source)),
        }
    }

    fn start(
        &self,
        key: &str,
        server: &Server,
        flist: &FetchedFlist,
        user: &User,
        request: &PrepareRootfs,
    ) -> Result<(), RootfsError> {
        RealFs.create_dir_all(&self.dir, 0o711).map_err(|source| disk("make", &self.dir, source))?;
        std::fs::set_permissions(&self.dir, std::fs::Permissions::from_mode(0o711))
            .map_err(|source| disk("set the mode of", &self.dir, source))?;
        let owner = format!("flist {}", flist.hash);
        server.lease.reserve(&owner, &server.socket).map_err(|error| server.lease_failed(&error))?;
        let started = self
            .describe(server, flist, request)
            // Before the start: if we die in between, the next daemon finds a user without a root and cleans up.
            .and_then(|()| users::add(server.lease.path(), user, &flist.hash))
            .and_then(|()| start::launch(&self.binary, server.lease.path(), &server.flist));
        match started {
            Ok(()) => {
                info!(flist = %server.flist, hash = %flist.hash, "flist server started");
                server.tell_the_log();
                self.take_in(server);
                Ok(())
            }
            Err(error) => {
                self.end_and_tell(key, server);
                Err(error)
            }
        }
    }

    /// Has a server that has just begun in the cgroup where it belongs, in the background: nobody waits for that.
    fn take_in(&self, server: &Server) {
        let Some(cgroup) = self.cgroup.clone() else { return };
        let (server, flist) = (server.clone(), server.flist.clone());
        let take_in = move || {
            if let Err(error) = server.take_in(&cgroup) {
                // Only the counting is lost.
                warn!(flist = %server.flist, error = %ApiError::from_error(&error), "flist server is not in the unit of containers");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("cgroup".to_owned()).spawn(take_in) {
            warn!(flist, %error, "flist server is not in the unit of containers");
        }
    }

    fn describe(&self, server: &Server, flist: &FetchedFlist, request: &PrepareRootfs) -> Result<(), RootfsError> {
        let point = &server.mount_point;
        RealFs.create_dir_all(point, 0o700).map_err(|source| disk("make", point, source))?;
        let spec = ServeSpec {
            version: SERVE_SPEC_VERSION,
            flist: flist.path.clone(),
            hash: flist.hash.clone(),
            mount_point: point.clone(),
            cache: self.cache.clone(),
            source: server.flist.clone(),
            cache_limits: self.cache_limits,
            limited_routes: limited_routes(request).cloned(),
            operation: request.operation,
        };
        let path = server.lease.path().join(SPEC_FILE);
        let text = serde_json::to_vec(&spec).map_err(|error| disk("write", &path, error.into()))?;
        replace_volatile(&RealFs, &path, &text, 0o600).map_err(|error| unwritten(&path, &error))
    }
}

/// Returns the limits on the routes of a flist, for a caller with limited rights.
fn limited_routes(request: &PrepareRootfs) -> Option<&LimitedRoutes> {
    request.grant.as_ref().map(|grant| &grant.routes)
}

/// Names the first directory of the servers of a flist with limited routes, in place of the beginning of its hash.
fn limited_prefix(prefix: &str, routes: Option<&LimitedRoutes>) -> String {
    let (Some(routes), Ok(number)) = (routes, u64::from_str_radix(prefix, 16)) else { return prefix.to_owned() };
    // FNV-1a: it only tells apart what operators write, and is the same in every version.
    let mix = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let dirs = routes.dirs.iter().map(|dir| dir.as_os_str().as_bytes());
    let parts = dirs.chain([&b"servers"[..]]).chain(routes.servers.iter().map(String::as_bytes));
    let digest = parts.flat_map(|part| part.iter().chain(&[0])).fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{:016x}", number ^ digest)
}

/// The beginning of a flist's hash, or of the name of one of its servers' directories.
fn prefix_of(hash_or_key: &str) -> &str {
    hash_or_key.get(..KEY_DIGITS).unwrap_or(hash_or_key)
}
