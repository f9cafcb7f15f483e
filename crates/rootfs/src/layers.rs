//! The mounts of one container: its writable layer and its root. Made in order, undone in reverse, each step repeatable.

use std::fs::{File, FileTimes, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{O_DIRECTORY, O_PATH};
use nix::mount::{MsFlags, mount};

use crate::detach::{MountPoint, remove_mount_point};
use crate::mount_table::MountTable;
use crate::provider::{PrepareRootfs, RootfsError};
use crate::sources::{self, Keep};
use crate::users::disk;

/// What the mount table shows as source of our mounts.
const SOURCE: &str = "contd";

/// The smallest tmpfs: 0 would mean "no limit" to the kernel.
const MIN_LAYER_BYTES: u64 = 64 * 1024;
/// One inode per page of the layer, and at least so many: copying up a path takes one per directory.
const MIN_LAYER_INODES: u64 = 4096;
const PAGE_BYTES: u64 = 4096;

/// What metadata-only copies, redirects and the index would do: trust extended attributes of the lower and upper layers,
/// which come from flists and callers. `xino` needs nothing of that; the kernel's default stays.
const OVERLAY_OPTIONS: &str = "metacopy=off,redirect_dir=off,index=off";

/// Where one container's root and layer are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `<state>/<ns>/<id>`; others keep files there, too.
    dir: PathBuf,
    /// The root's mount point.
    pub(crate) root: PathBuf,
    /// The mount point of the tmpfs.
    layer: PathBuf,
    /// Where the sources of binds are attached.
    pub(crate) binds: PathBuf,
}

impl Place {
    /// Names it; `state` must be without symlinks.
    pub(crate) fn new(state: &Path, namespace: &str, id: &str) -> Self {
        let dir = state.join(namespace).join(id);
        Self { root: dir.join("rootfs"), layer: dir.join("layer"), binds: dir.join("binds"), dir }
    }

    /// Tells whether anything of it is there.
    pub(crate) fn has_traces(&self) -> bool {
        [&self.root, &self.layer, &self.binds].iter().any(|path| path.symlink_metadata().is_ok())
    }

    /// Mounts the root over `lower`. On an error the caller undoes with [`Self::unstack`].
    pub(crate) fn stack(&self, lower: &Path, request: &PrepareRootfs) -> Result<(), RootfsError> {
        make_dir(&self.dir, 0o700)?;
        make_dir(&self.root, 0o755)?;
        let restrictions = if request.is_trusted { MsFlags::empty() } else { MsFlags::MS_NOSUID | MsFlags::MS_NODEV };
        if request.is_read_only {
            return self.bind(lower, restrictions | MsFlags::MS_RDONLY);
        }
        if let Some(place) = request.grant.as_ref().and_then(|grant| grant.upper.as_ref()) {
            let opened = sources::open_upper(place, lower, &self.binds)?;
            let layers = [Layer::opened(opened.upper), Layer::opened(opened.work)];
            return self.overlay(lower, layers, false, restrictions);
        }
        let (upper, work, is_volatile) = match &request.upper_dir {
            Some(dir) => {
                let dir = caller_dir(dir)?;
                if MountTable::read()?.is_upper(&dir.join("upper")) {
                    return Err(self.overlay_failed(Errno::EBUSY.into()));
                }
                (dir.join("upper"), dir.join("work"), false)
            }
            None => {
                self.mount_layer(request.size_bytes)?;
                (self.layer.join("upper"), self.layer.join("work"), true)
            }
        };
        make_upper(&upper, lower)?;
        make_dir(&work, 0o700)?;
        let failed = |source| self.overlay_failed(source);
        let layers = [Layer::new(&upper).map_err(failed)?, Layer::new(&work).map_err(failed)?];
        self.overlay(lower, layers, is_volatile, restrictions)
    }

    /// Unmounts and removes it all, whoever uses it; fine when there is nothing, or only a part. Says what became of the
    /// mount points.
    pub(crate) fn unstack(&self) -> Result<MountPoint, RootfsError> {
        sources::detach(&self.binds, Keep::Nothing)?;
        let (root, layer) = (remove_mount_point(&self.root)?, remove_mount_point(&self.layer)?);
        // Somebody else's files may be there: then it stays.
        let _only_when_empty = std::fs::remove_dir(&self.dir);
        Ok(if root == MountPoint::Gone { layer } else { root })
    }

    fn mount_layer(&self, size_bytes: u64) -> Result<(), RootfsError> {
        make_dir(&self.layer, 0o700)?;
        let size = size_bytes.max(MIN_LAYER_BYTES);
        let inodes = (size / PAGE_BYTES).max(MIN_LAYER_INODES);
        let options = format!("size={size},nr_inodes={inodes},mode=0700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(SOURCE), &self.layer, Some("tmpfs"), flags, Some(options.as_str()))
            .map_err(|errno| mount_failed("tmpfs", &self.layer, errno))?;
        make_private(&self.layer)
    }

    fn overlay(
        &self,
        lower: &Path,
        [upper, work]: [Layer; 2],
        is_volatile: bool,
        flags: MsFlags,
    ) -> Result<(), RootfsError> {
        let failed = |source| self.overlay_failed(source);
        let lower = Layer::new(lower).map_err(failed)?;
        let mut options = Vec::new();
        for (key, layer) in [(&b"lowerdir="[..], &lower), (b",upperdir=", &upper), (b",workdir=", &work)] {
            options.extend_from_slice(key);
            options.extend_from_slice(layer.path.as_os_str().as_bytes());
        }
        options.push(b',');
        options.extend_from_slice(OVERLAY_OPTIONS.as_bytes());
        if is_volatile {
            // What is lost with a power cut was in memory anyway; syncing it would only take time.
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
    fn opened(open: OwnedFd) -> Self {
        Self { path: sources::path_of(&open), _open: Some(File::from(open)) }
    }

    fn new(path: &Path) -> io::Result<Self> {
        if !path.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b',' | b':' | b'\\')) {
            return Ok(Self { path: path.to_owned(), _open: None });
        }
        let open = File::options().read(true).custom_flags(O_PATH | O_DIRECTORY).open(path)?;
        Ok(Self { path: PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())), _open: Some(open) })
    }
}

/// Finds the caller's own directory; it must be there.
fn caller_dir(dir: &Path) -> Result<PathBuf, RootfsError> {
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
