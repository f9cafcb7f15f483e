//! The flist servers and the cache of a node, as they are on disk: read with or without a running node.

use std::path::PathBuf;
use std::time::Duration;

use contd_flist::CacheOptions;
use contd_flist::cache::{self, KindUsage};
use contd_lease::LeaseState;
use contd_protocol::api::{
    CacheInfo, CacheKindInfo, CachedFlistInfo, FlistServerInfo, FlistServerState, MAX_CACHED_FLISTS,
};
use contd_rootfs::survey::{self, FoundServer};
use contd_types::{ApiError, Timestamp, one_line};

use crate::config::Config;

/// Where the leases of flist servers are, below the run directory.
const SERVERS_DIR: &str = "f";

/// The directories, as the configuration names them.
#[derive(Debug, Clone)]
pub struct FlistPlaces {
    run_dir: PathBuf,
    /// The root of the cache.
    pub cache_dir: PathBuf,
    /// Its limits, and where those are that use it.
    pub options: CacheOptions,
}

impl FlistPlaces {
    /// Takes them from a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let options = CacheOptions { limits: config.cache.limits(), servers: Some(config.run_dir.join(SERVERS_DIR)) };
        Self { run_dir: config.run_dir.clone(), cache_dir: config.cache_dir.clone(), options }
    }

    /// Lists the servers. A node that never ran anything has no directory, and no servers.
    ///
    /// # Errors
    /// The run directory cannot be read.
    pub fn servers(&self) -> Result<Vec<FlistServerInfo>, ApiError> {
        if !self.run_dir.exists() {
            return Ok(Vec::new());
        }
        let found = survey::servers(&self.run_dir).map_err(|error| ApiError::from_error(&error))?;
        Ok(found.into_iter().map(server).collect())
    }

    /// Looks at the cache.
    #[must_use]
    pub fn cache(&self) -> CacheInfo {
        let usage = cache::usage(&self.cache_dir, &self.options);
        let kinds = usage.kinds;
        let flists = usage.flists.into_iter().take(MAX_CACHED_FLISTS).map(|flist| CachedFlistInfo {
            hash: flist.hash,
            bytes: flist.bytes,
            fetched: timestamp(flist.last_use),
            is_served: flist.is_in_use,
            from: flist.name,
        });
        CacheInfo {
            cache_dir: self.cache_dir.display().to_string(),
            max_bytes: usage.limits.max_bytes,
            min_free_bytes: usage.limits.min_free_bytes,
            free_bytes: usage.free_bytes,
            kinds: [kinds.blocks, kinds.files, kinds.flists, kinds.temps].map(kind),
            flists: flists.collect(),
            failure: usage.failure.map(|(path, error)| format!("{}: {}", path.display(), one_line(&error))),
        }
    }
}

fn server(found: FoundServer) -> FlistServerInfo {
    let (state, lease) = match found.state {
        Ok(LeaseState::Held(lease)) => (FlistServerState::Serving, Some(lease)),
        Ok(LeaseState::Dead(lease) | LeaseState::OtherBoot(lease)) => (FlistServerState::Dead, Some(lease)),
        Ok(LeaseState::Reserved) => (FlistServerState::Starting, None),
        Ok(LeaseState::Absent) => (FlistServerState::Gone, None),
        Err(_unreadable) => (FlistServerState::Unknown, None),
    };
    FlistServerInfo {
        server: found.key,
        state,
        keeper_pid: lease.as_ref().and_then(|lease| lease.process.as_ref()).map(|process| process.pid),
        version: lease.map(|lease| lease.binary_version).filter(|version| !version.is_empty()),
        is_mounted: found.is_mounted,
        containers: found.users,
    }
}

fn kind(usage: KindUsage) -> CacheKindInfo {
    CacheKindInfo {
        count: usage.amount.count,
        bytes: usage.amount.bytes,
        last_used: usage.latest_use.map(timestamp),
        oldest_use: usage.oldest_use.map(timestamp),
    }
}

fn timestamp(since_1970: Duration) -> Timestamp {
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}
