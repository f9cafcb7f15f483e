//! The mounts of one container: its writable layer and its root. Made in order, undone in reverse, each step repeatable.
//!
//! | layer | where | lives |
//! |---|---|---|
//! | on disk | `disk/upper` and `disk/work` in the container's directory; limited by a project quota, or as a subvolume of btrfs, where the file system can | until the container is removed, also over a reboot |
//! | in memory | a size-limited tmpfs at `layer` | as long as one run: its pages are charged to the run's cgroup, which goes with it |
//! | the caller's | `upper` and `work` in that directory | as the caller likes |

use std::ffi::CStr;
use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use contd_durable::{Fs, RealFs, replace};
use contd_types::LayerKind;
use nix::errno::Errno;
use nix::libc::{O_DIRECTORY, O_PATH};
use nix::mount::{MsFlags, mount};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno as Refusal;

use crate::btrfs;
use crate::detach::{MountPoint, remove_mount_point};
use crate::mount_table::{MountTable, is_mount_point};
use crate::provider::{NoLimitReason, PrepareRootfs, PreparedLayer, RootfsError};
use crate::quota::{self, Quotas, UNLIMITED};
use crate::sources;
use crate::users::{disk, unwritten};

/// The source of our mounts in the mount table.
const SOURCE: &str = "contd";

/// The smallest tmpfs: 0 would mean "no limit" to the kernel.
const MIN_LAYER_BYTES: u64 = 64 * 1024;
/// One inode per page of the layer, and at least so many: copying up a path takes one per directory.
const MIN_LAYER_INODES: u64 = 4096;
const PAGE_BYTES: u64 = 4096;

/// Metadata-only copies, redirects and the index would trust extended attributes of the lower and upper layers, which come
/// from flists and callers. `xino` needs nothing of that: the files of a root have one `st_dev`, since the inode numbers of a
/// flist are small and leave the high bits free.
const OVERLAY_OPTIONS: &str = "metacopy=off,redirect_dir=off,index=off,xino=on";

/// The layer on disk in the container's directory.
const DISK_DIR: &CStr = c"disk";

/// The attribute of the layer's directory with the hash of the flist that it was made over. A power loss may leave a file that nobody
/// synced without its content; this comes to the disk with the directory itself.
const FLIST_ATTRIBUTE: &str = "trusted.contd.flist";

/// A hash has 64 digits.
const MAX_HASH_BYTES: u64 = 256;
const HASH_BYTES: usize = 64;

/// Where one container's root and layer are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    state: PathBuf,
    /// `<state>/<ns>/<id>`; others keep files there, too.
    dir: PathBuf,
    /// The root's mount point.
    pub(crate) root: PathBuf,
    /// The mount point of the tmpfs of a layer in memory.
    layer: PathBuf,
    /// The layer on disk.
    pub(crate) disk: PathBuf,
    /// The note of the callers' directories that the container uses.
    pub(crate) claim: PathBuf,
    /// Where the sources of binds are attached.
    pub(crate) binds: PathBuf,
}

/// The parts of a layer that an overlay is made of.
struct Parts {
    upper: PathBuf,
    work: PathBuf,
    /// Whether nothing of it outlives the power.
    is_volatile: bool,
    /// Whether a quota is to limit it once it is mounted: a layer that is full must be mountable.
    has_quota: bool,
}

impl Place {
    /// Names it; `state` must be without symlinks.
    pub(crate) fn new(state: &Path, namespace: &str, id: &str) -> Self {
        let dir = state.join(namespace).join(id);
        Self {
            state: state.to_owned(),
            root: dir.join("rootfs"),
            layer: dir.join("layer"),
            disk: dir.join("disk"),
            claim: dir.join("directories.json"),
            binds: dir.join("binds"),
            dir,
        }
    }

    /// Tells whether anything of it is there.
    pub(crate) fn has_traces(&self) -> bool {
        let parts = [&self.root, &self.layer, &self.disk, &self.claim, &self.binds];
        parts.iter().any(|path| path.symlink_metadata().is_ok())
    }

    /// Tells whether it has a layer on disk.
    pub(crate) fn has_disk(&self) -> bool {
        self.disk.symlink_metadata().is_ok()
    }

    /// Tells whether its layer is in memory.
    pub(crate) fn is_in_memory(&self) -> Result<bool, RootfsError> {
        is_mount_point(&self.layer)
    }

    /// Returns the hash of the flist over which the layer on disk was made.
    pub(crate) fn flist_below(&self) -> Result<Option<String>, RootfsError> {
        let mut hash = [0; HASH_BYTES];
        match File::open(&self.disk).map(|dir| fgetxattr(dir, FLIST_ATTRIBUTE, &mut hash)) {
            Ok(Ok(HASH_BYTES)) => return Ok(Some(String::from_utf8_lossy(&hash).into_owned())),
            Ok(Ok(_) | Err(Refusal::NODATA | Refusal::NOTSUP)) => {}
            Ok(Err(refusal)) => return Err(disk("read the flist of", &self.disk, refusal.into())),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(disk("open", &self.disk, source)),
        }
        let note = self.note();
        match RealFs.read(&note, MAX_HASH_BYTES) {
            // A power loss took the content of one that an earlier version wrote.
            Ok(hash) if hash.is_empty() => Ok(None),
            Ok(hash) => Ok(Some(String::from_utf8_lossy(&hash).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(disk("read", &note, source)),
        }
    }

    /// Notes over which flist the layer on disk is made.
    fn note_flist(&self, hash: &str) -> Result<(), RootfsError> {
        let dir = File::open(&self.disk).map_err(|source| disk("open", &self.disk, source))?;
        match fsetxattr(dir, FLIST_ATTRIBUTE, hash.as_bytes(), XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Refusal::NOTSUP) => {
                let note = self.note();
                replace(&RealFs, &note, hash.as_bytes(), 0o600).map_err(|error| unwritten(&note, &error))
            }
            Err(refusal) => Err(disk("note the flist of", &self.disk, refusal.into())),
        }
    }

    /// The note of earlier versions, and of file systems without extended attributes.
    fn note(&self) -> PathBuf {
        self.disk.join("flist")
    }

    /// Mounts the root over `lower`, which is that of the flist of this hash. On an error the caller undoes.
    pub(crate) fn stack(
        &self,
        lower: &Path,
        flist_hash: Option<&str>,
        request: &PrepareRootfs,
        quotas: &Quotas,
    ) -> Result<(), RootfsError> {
        make_dir(&self.dir, 0o700)?;
        make_dir(&self.root, 0o755)?;
        let restrictions = if request.is_trusted { MsFlags::empty() } else { MsFlags::MS_NOSUID | MsFlags::MS_NODEV };
        if request.is_read_only {
            return self.bind(lower, restrictions | MsFlags::MS_RDONLY);
        }
        if let Some(place) = request.grant.as_ref().and_then(|grant| grant.upper.as_ref()) {
            if request.is_size_required {
                return Err(RootfsError::NoLimit { path: place.path(), reason: NoLimitReason::FileSystem });
            }
            // Both stay open until the mount is made.
            let (upper, work) = sources::open_upper(place, lower)?;
            let (upper_path, work_path) = (sources::path_of(&upper), sources::path_of(&work));
            let parts = Parts { upper: upper_path, work: work_path, is_volatile: false, has_quota: false };
            return self.overlay(lower, &parts, restrictions);
        }
        let parts = self.layer_for(lower, flist_hash, request, quotas)?;
        make_upper(&parts.upper, lower)?;
        make_dir(&parts.work, 0o700)?;
        self.overlay(lower, &parts, restrictions).map_err(|error| match error {
            RootfsError::Mount { source, .. }
                if parts.upper.starts_with(&self.disk) && source.raw_os_error() == Some(Errno::EINVAL as i32) =>
            {
                RootfsError::NoUpper { path: self.dir.clone(), source }
            }
            other => other,
        })?;
        if parts.has_quota {
            let (bytes, inodes) = (request.size_bytes, inodes_of(request.size_bytes));
            let limited = quotas.limit(&self.disk, bytes, inodes);
            limited.map_err(|source| disk("limit the size of", &self.disk, source))?;
        }
        Ok(())
    }

    /// Finds or makes the writable layer that is asked for.
    fn layer_for(
        &self,
        lower: &Path,
        flist_hash: Option<&str>,
        request: &PrepareRootfs,
        quotas: &Quotas,
    ) -> Result<Parts, RootfsError> {
        let parts = |dir: &Path, is_volatile| Parts {
            upper: dir.join("upper"),
            work: dir.join("work"),
            is_volatile,
            has_quota: false,
        };
        if let Some(dir) = &request.upper_dir {
            if request.is_size_required {
                return Err(RootfsError::NoLimit { path: dir.clone(), reason: NoLimitReason::FileSystem });
            }
            let parts = parts(&caller_dir(dir)?, false);
            // Containers of ours were asked by their claims; the kernel would only warn.
            return match MountTable::read()?.is_upper(&parts.upper) {
                true => Err(RootfsError::UpperOfOthers { path: parts.upper }),
                false => Ok(parts),
            };
        }
        match request.layer {
            // The kernel refuses a layer that lies in its own lower directory.
            LayerKind::Disk if self.dir.starts_with(lower) && !request.is_layer_required => {
                self.mount_layer(request.size_bytes)?;
                Ok(parts(&self.layer, true))
            }
            LayerKind::Disk if self.dir.starts_with(lower) => {
                Err(RootfsError::UpperIsLower { path: self.dir.clone(), lower: lower.to_owned() })
            }
            LayerKind::Disk => {
                let has_quota = self.make_disk(lower, flist_hash, request, quotas)?;
                Ok(Parts { has_quota, ..parts(&self.disk, false) })
            }
            LayerKind::Memory => {
                self.mount_layer(request.size_bytes)?;
                Ok(parts(&self.layer, true))
            }
        }
    }

    /// Makes the directory of the layer on disk, without limits for now; `false` when it cannot have any.
    fn make_disk(
        &self,
        lower: &Path,
        hash: Option<&str>,
        request: &PrepareRootfs,
        quotas: &Quotas,
    ) -> Result<bool, RootfsError> {
        let failed = |source| disk("limit the size of", &self.disk, source);
        let is_subvolume =
            self.make_subvolume(lower).map_err(|source| disk("make the subvolume", &self.disk, source))?;
        make_dir(&self.disk, 0o700)?;
        let has_quota = quotas.limit(&self.disk, UNLIMITED, UNLIMITED).map_err(failed)?;
        if !has_quota && request.is_size_required {
            let reason = match is_subvolume {
                None => NoLimitReason::FileSystem,
                Some(true) => NoLimitReason::BtrfsOff { state: self.state.clone() },
                Some(false) => NoLimitReason::BtrfsDirectory,
            };
            return Err(RootfsError::NoLimit { path: self.disk.clone(), reason });
        }
        hash.map_or(Ok(()), |hash| self.note_flist(hash))?;
        Ok(has_quota)
    }

    /// Makes the layer a subvolume, on btrfs, unless its files would then seem to be those of `lower`. Tells whether it is one, and
    /// nothing on other file systems.
    fn make_subvolume(&self, lower: &Path) -> io::Result<Option<bool>> {
        let dir = File::open(&self.dir)?;
        if !btrfs::is_on(&dir)? {
            return Ok(None);
        }
        // A flist is served by FUSE: whoever asks gets no btrfs.
        if !self.has_disk() && !btrfs::is_same(&dir, &File::open(lower)?)? {
            btrfs::make_subvolume(&dir, DISK_DIR)?;
        }
        match File::open(&self.disk) {
            Ok(layer) => btrfs::subvolume(&layer).map(|number| Some(number.is_some())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    /// Tells what layer the root has, by what is there.
    pub(crate) fn made(&self, request: &PrepareRootfs) -> Result<Option<PreparedLayer>, RootfsError> {
        if request.is_read_only || request.upper_dir.is_some() {
            return Ok(None);
        }
        let size = Some(request.size_bytes);
        if self.is_in_memory()? {
            return Ok(Some(PreparedLayer { kind: LayerKind::Memory, limit_bytes: size }));
        }
        let open = match File::open(&self.disk) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(disk("open", &self.disk, source)),
        };
        let is_limited = quota::is_limited(&open).map_err(|source| disk("look at the quota of", &self.disk, source))?;
        let limit_bytes = size.filter(|_| is_limited);
        Ok(Some(PreparedLayer { kind: LayerKind::Disk, limit_bytes }))
    }

    /// Opens the root as it is now, so that giving it up, which writes what is unwritten to the disk, is left to whoever drops
    /// this.
    pub(crate) fn hold(&self) -> Option<OwnedFd> {
        if !is_mount_point(&self.root).unwrap_or(false) {
            return None;
        }
        let open = File::options().read(true).custom_flags(O_PATH | O_DIRECTORY).open(&self.root);
        open.ok().map(OwnedFd::from)
    }

    /// Unmounts it all, whoever uses it; fine when there is nothing, or only a part. A layer on disk stays as it is. Says what
    /// became of the mount points.
    pub(crate) fn unstack(&self) -> Result<MountPoint, RootfsError> {
        sources::detach(&self.binds)?;
        let (root, layer) = (remove_mount_point(&self.root)?, remove_mount_point(&self.layer)?);
        Ok(if root == MountPoint::Gone { layer } else { root })
    }

    /// Removes the container's directory, unless there are files of somebody else in it.
    pub(crate) fn remove_dir(&self) {
        let _only_when_empty = std::fs::remove_dir(&self.dir);
    }

    fn mount_layer(&self, size_bytes: u64) -> Result<(), RootfsError> {
        make_dir(&self.layer, 0o700)?;
        let (size, inodes) = (size_bytes.max(MIN_LAYER_BYTES), inodes_of(size_bytes));
        let options = format!("size={size},nr_inodes={inodes},mode=0700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(SOURCE), &self.layer, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| mount_failed("tmpfs", &self.layer, errno))?;
        make_private(&self.layer)
    }

    fn overlay(&self, lower: &Path, parts: &Parts, flags: MsFlags) -> Result<(), RootfsError> {
        let failed = |source| self.overlay_failed(source);
        let layer = |path: &Path| Layer::new(path).map_err(failed);
        let (lower, upper, work) = (layer(lower)?, layer(&parts.upper)?, layer(&parts.work)?);
        let mut options = Vec::new();
        for (key, layer) in [(&b"lowerdir="[..], &lower), (b",upperdir=", &upper), (b",workdir=", &work)] {
            options.extend_from_slice(key);
            options.extend_from_slice(layer.path.as_os_str().as_bytes());
        }
        options.push(b',');
        options.extend_from_slice(OVERLAY_OPTIONS.as_bytes());
        if parts.is_volatile {
            // A power cut loses what was in memory anyway; syncing it would only take time.
            options.extend_from_slice(b",volatile");
        }
        mount(Some(SOURCE), &self.root, Some("overlay"), flags, Some(options.as_slice()))
            .map_err(|errno| failed(errno.into()))?;
        make_private(&self.root)
    }

    fn bind(&self, lower: &Path, flags: MsFlags) -> Result<(), RootfsError> {
        let failed = |errno| mount_failed("bind", &self.root, errno);
        mount(Some(lower), &self.root, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(failed)?;
        make_private(&self.root)?;
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(None::<&str>, &self.root, None::<&str>, remount, None::<&str>).map_err(failed)
    }

    fn overlay_failed(&self, source: io::Error) -> RootfsError {
        RootfsError::Mount { what: "overlay", path: self.root.clone(), source }
    }
}

/// A directory as an overlay option can name it: commas, colons and backslashes mean something there, so a path that
/// holds any is named by a descriptor, which must stay open until the mount is made.
struct Layer {
    path: PathBuf,
    _open: Option<File>,
}

impl Layer {
    fn new(path: &Path) -> io::Result<Self> {
        if !path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b',' | b':' | b'\\')) {
            return Ok(Self { path: path.to_owned(), _open: None });
        }
        let open = File::options().read(true).custom_flags(O_PATH | O_DIRECTORY).open(path)?;
        Ok(Self { path: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())), _open: Some(open) })
    }
}

/// As many as there can be pages, and some for copying up.
fn inodes_of(size_bytes: u64) -> u64 {
    (size_bytes / PAGE_BYTES).max(MIN_LAYER_INODES)
}

/// Finds the caller's own directory; it must be there.
pub(crate) fn caller_dir(dir: &Path) -> Result<PathBuf, RootfsError> {
    let failed = |source| RootfsError::Directory { path: dir.to_owned(), source };
    if dir.is_relative() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let dir = std::fs::canonicalize(dir).map_err(failed)?;
    if dir.is_dir() { Ok(dir) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}

/// Makes the upper directory. It shows as the root of the overlay, so a new one looks like the root of the lower.
fn make_upper(upper: &Path, lower: &Path) -> Result<(), RootfsError> {
    if upper.is_dir() {
        return Ok(());
    }
    let like = std::fs::metadata(lower).map_err(|source| disk("look at", lower, source))?;
    make_dir(upper, 0o700)?;
    chown(upper, Some(like.uid()), Some(like.gid())).map_err(|source| disk("set the owner of", upper, source))?;
    std::fs::set_permissions(upper, Permissions::from_mode(like.mode() & 0o7777))
        .map_err(|source| disk("set the mode of", upper, source))?;
    let time = like.modified().map_err(|source| disk("look at", lower, source))?;
    File::open(upper)
        .and_then(|open| open.set_times(FileTimes::new().set_modified(time).set_accessed(time)))
        .map_err(|source| disk("set the times of", upper, source))
}

/// Makes a directory and its parents (0700), and sets its mode whatever the umask says.
fn make_dir(path: &Path, mode: u32) -> Result<(), RootfsError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|source| disk("make", path, source))
}

fn make_private(path: &Path) -> Result<(), RootfsError> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| mount_failed("private propagation", path, errno))
}

fn mount_failed(what: &'static str, path: &Path, errno: Errno) -> RootfsError {
    RootfsError::Mount { what, path: path.to_owned(), source: errno.into() }
}
