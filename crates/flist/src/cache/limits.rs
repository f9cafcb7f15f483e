//! The limits on the size of a cache, and how much to evict.

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// The default of [`CacheLimits::max_bytes`]: the blocks of some thirty Debian trees.
const DEFAULT_MAX_BYTES: u64 = 16 << 30;

/// The default of [`CacheLimits::min_free_bytes`]: twice the threshold of `contd doctor`.
const DEFAULT_MIN_FREE_BYTES: u64 = 1 << 30;

/// `min_free_bytes` counts at most as this part of the file system, so that a small one is not kept mostly free.
const MIN_FREE_PART: u64 = 10;

/// Eviction begins when less than this part of the limit is left, and ends when twice as much is left: one scan of the
/// cache then serves the writing of a sixteenth of it.
const MARGIN_PART: u64 = 16;

/// The limits on the size of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// The most bytes of disk that fetched flists, blocks and whole files may take together.
    pub max_bytes: u64,
    /// The bytes that must stay free on the file system, even if the cache is small; at most a tenth of its size counts.
    pub min_free_bytes: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { max_bytes: DEFAULT_MAX_BYTES, min_free_bytes: DEFAULT_MIN_FREE_BYTES }
    }
}

impl CacheLimits {
    /// Returns how many bytes must be removed from a cache of this size on this file system; 0 within the limits.
    pub(super) fn excess(&self, total: u64, space: Space) -> u64 {
        let margin = self.max_bytes / MARGIN_PART;
        let above = |mark: u64| total.saturating_sub(self.max_bytes.saturating_sub(mark));
        let size = if above(margin) > 0 { above(2 * margin) } else { 0 };
        let min_free = self.min_free(space);
        let free = match min_free.saturating_sub(space.free_bytes) {
            0 => 0,
            missing => missing + min_free / MARGIN_PART,
        };
        size.max(free).min(total)
    }

    /// Tells whether nothing may be added to a cache of this size.
    pub(super) fn forbid(&self, total: u64, space: Space) -> bool {
        total >= self.max_bytes || space.free_bytes < self.min_free(space)
    }

    fn min_free(&self, space: Space) -> u64 {
        self.min_free_bytes.min(space.size_bytes / MIN_FREE_PART)
    }
}

/// The size and free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) size_bytes: u64,
    pub(super) free_bytes: u64,
}

impl Space {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(Self {
            size_bytes: stat.blocks().saturating_mul(unit),
            free_bytes: stat.blocks_available().saturating_mul(unit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMY: Space = Space { size_bytes: 1 << 40, free_bytes: 1 << 39 };

    #[test]
    fn a_cache_is_made_smaller_before_it_reaches_its_limit_and_by_enough_to_pay_for_the_scan() {
        let limits = CacheLimits { max_bytes: 1600, min_free_bytes: 0 };
        assert_eq!(limits.excess(1500, ROOMY), 0);
        assert_eq!(limits.excess(1501, ROOMY), 101, "down to 1400");
        assert!(!limits.forbid(1599, ROOMY));
        assert!(limits.forbid(1600, ROOMY));
    }

    #[test]
    fn a_file_system_filled_by_others_makes_the_cache_smaller_too() {
        let limits = CacheLimits { max_bytes: 1 << 40, min_free_bytes: 160 };
        let space = |free_bytes| Space { size_bytes: 16_000, free_bytes };
        assert_eq!(limits.excess(500, space(160)), 0);
        assert_eq!(limits.excess(500, space(100)), 70, "what is missing and a little more");
        assert_eq!(limits.excess(50, space(0)), 50, "no more than there is");
        assert!(limits.forbid(0, space(159)) && !limits.forbid(0, space(160)));
    }

    #[test]
    fn a_small_file_system_is_not_kept_empty() {
        let limits = CacheLimits { max_bytes: 1 << 40, min_free_bytes: 1 << 30 };
        let space = Space { size_bytes: 1000, free_bytes: 100 };
        assert!(!limits.forbid(0, space));
        assert!(limits.forbid(0, Space { free_bytes: 99, ..space }));
    }
}
