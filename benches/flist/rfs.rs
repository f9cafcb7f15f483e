//! The figures of the real `rfs`, as ratios to ext4 on the same tree and machine: 576 MiB of Debian, 19,506 entries, 4
//! cores, Linux 6.18; medians in seconds. Only the ratios can be compared with another machine.

/// `find`, page cache dropped: 4.06 / 0.183.
pub(crate) const FIND_COLD: f64 = 4.06 / 0.183;
/// `find` again: 0.092 / 0.031.
pub(crate) const FIND_WARM: f64 = 0.092 / 0.031;
/// `stat` of every entry, cold: 23.1 / 0.366.
pub(crate) const STAT_COLD: f64 = 23.1 / 0.366;
/// `stat` again: 0.295 / 0.066.
pub(crate) const STAT_WARM: f64 = 0.295 / 0.066;
/// `tar`, its block cache empty: 52.9 / 3.11.
pub(crate) const TAR_EMPTY: f64 = 52.9 / 3.11;
/// `tar`, its block cache kept, page cache dropped: 55 / 3.11.
pub(crate) const TAR_KEPT: f64 = 55.0 / 3.11;
/// `tar` again: 6.57 / 0.58.
pub(crate) const TAR_WARM: f64 = 6.57 / 0.58;
/// Four `cat`, its block cache empty: 116 / 1.47.
pub(crate) const CATS_EMPTY: f64 = 116.0 / 1.47;
/// Four `cat`, its block cache kept: 122 / 1.47.
pub(crate) const CATS_KEPT: f64 = 122.0 / 1.47;
/// Four `cat` again: 53.4 / 0.80.
pub(crate) const CATS_WARM: f64 = 53.4 / 0.80;
/// Pack, page cache dropped, beside four `cat` of the tree from ext4, cold: 47.6 / 1.47.
pub(crate) const PACK_COLD: f64 = 47.6 / 1.47;
/// Mount, overlay and `bash -c true`, beside chroot on ext4, page cache dropped and block cache empty: 1.231 / 0.034.
pub(crate) const START_EMPTY: f64 = 1.231 / 0.034;
/// The same with its block cache kept: 1.226 / 0.034.
pub(crate) const START_KEPT: f64 = 1.226 / 0.034;
/// Unpack of everything beside four `cat` from ext4, cold: 14.8 / 1.47.
pub(crate) const UNPACK: f64 = 14.8 / 1.47;
