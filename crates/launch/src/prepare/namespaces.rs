//! `linux.namespaces` and the id mappings.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::config::{IdMapping, Linux};
use crate::fault::Fault;

/// The flags of `clone3` for new namespaces, as the 64-bit numbers that it takes.
pub(crate) const NEW_MOUNT: u64 = flag(libc::CLONE_NEWNS);
pub(crate) const NEW_CGROUP: u64 = flag(libc::CLONE_NEWCGROUP);
pub(crate) const NEW_UTS: u64 = flag(libc::CLONE_NEWUTS);
pub(crate) const NEW_IPC: u64 = flag(libc::CLONE_NEWIPC);
pub(crate) const NEW_USER: u64 = flag(libc::CLONE_NEWUSER);
pub(crate) const NEW_PID: u64 = flag(libc::CLONE_NEWPID);
pub(crate) const NEW_NET: u64 = flag(libc::CLONE_NEWNET);

const fn flag(number: libc::c_int) -> u64 {
    number.unsigned_abs() as u64
}

const KINDS: [(&str, u64); 7] = [
    ("mount", NEW_MOUNT),
    ("cgroup", NEW_CGROUP),
    ("uts", NEW_UTS),
    ("ipc", NEW_IPC),
    ("user", NEW_USER),
    ("pid", NEW_PID),
    ("network", NEW_NET),
];

/// The namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) new_flags: u64,
    pub(crate) joins: Vec<(OwnedFd, u64)>,
    pub(crate) id_maps: Option<IdMaps>,
}

/// The text of `uid_map` and `gid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMaps {
    uid: String,
    gid: String,
}

impl Namespaces {
    pub(crate) fn open(linux: &Linux) -> Result<Self, Fault> {
        let (mut new_flags, mut joined) = (0u64, 0u64);
        let mut joins = Vec::new();
        for (index, namespace) in linux.namespaces.iter().flatten().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let Some((_, flag)) = KINDS.iter().find(|(name, _)| *name == namespace.kind) else {
                let kind = &namespace.kind;
                return Err(if kind == "time" {
                    Fault::unsupported(format!("{field}.type (time)"))
                } else {
                    Fault::invalid(format!("{field}.type"), format!("{kind:?} is no kind of namespace"))
                });
            };
            if (new_flags | joined) & flag != 0 {
                return Err(Fault::invalid(field, format!("{} is there twice", namespace.kind)));
            }
            match namespace.path.as_deref().filter(|path| !path.as_os_str().is_empty()) {
                Some(_) if [NEW_MOUNT, NEW_USER, NEW_CGROUP].contains(flag) => {
                    return Err(Fault::unsupported(format!("{field}.path ({})", namespace.kind)));
                }
                Some(path) => {
                    let what = || format!("open {}", path.display());
                    let fd =
                        File::open(path).map_err(|error| Fault::kernel(format!("{field}.path"), what(), &error))?;
                    if kind_of(&fd) != Some(*flag) {
                        let what = format!("{} is no {} namespace", path.display(), namespace.kind);
                        return Err(Fault::invalid(format!("{field}.path"), what));
                    }
                    joined |= flag;
                    joins.push((fd.into(), *flag));
                }
                None => new_flags |= flag,
            }
        }
        if new_flags & NEW_MOUNT == 0 {
            let what = "a container without a mount namespace of its own is not supported by the native runtime";
            return Err(Fault::invalid("linux.namespaces", what));
        }
        let id_maps = id_maps(linux, new_flags & NEW_USER != 0)?;
        Ok(Self { new_flags, joins, id_maps })
    }

    /// Tells whether the container has its own namespace of this kind, new or joined.
    pub(crate) fn has(&self, flag: u64) -> bool {
        self.is_new(flag) || self.joins.iter().any(|(_, joined)| *joined == flag)
    }

    pub(crate) fn is_new(&self, flag: u64) -> bool {
        self.new_flags & flag != 0
    }
}

fn kind_of(file: &File) -> Option<u64> {
    namespace_kind::of(file.as_raw_fd())
}

mod namespace_kind {
    //! Asks the kernel what kind of namespace a descriptor is.
    #![expect(unsafe_code, reason = "an ioctl that nix can only declare")]

    // NS_GET_NSTYPE: linux/nsfs.h.
    nix::ioctl_none_bad!(ns_get_nstype, 0xb703);

    pub(super) fn of(fd: i32) -> Option<u64> {
        // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory; of another file it is an unknown request.
        let kind = unsafe { ns_get_nstype(fd) }.ok()?;
        u64::try_from(kind).ok()
    }
}

fn id_maps(linux: &Linux, is_new: bool) -> Result<Option<IdMaps>, Fault> {
    let (uids, gids) = (linux.uid_mappings.as_deref(), linux.gid_mappings.as_deref());
    let (uids, gids) = (uids.unwrap_or_default(), gids.unwrap_or_default());
    match (is_new, uids.is_empty(), gids.is_empty()) {
        (false, true, true) => Ok(None),
        (false, false, _) => Err(Fault::invalid("linux.uidMappings", "there is no new user namespace for them")),
        (false, true, false) => Err(Fault::invalid("linux.gidMappings", "there is no new user namespace for them")),
        (true, true, _) => Err(Fault::invalid("linux.uidMappings", "a new user namespace needs them")),
        (true, _, true) => Err(Fault::invalid("linux.gidMappings", "a new user namespace needs them")),
        (true, false, false) => Ok(Some(IdMaps { uid: text(uids), gid: text(gids) })),
    }
}

fn text(mappings: &[IdMapping]) -> String {
    let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
    mappings.iter().map(line).collect()
}

impl IdMaps {
    /// Writes the mappings of a user namespace's first process.
    pub(crate) fn write(&self, pid: i32) -> Result<(), Fault> {
        let write = |field: &str, file: &str, text: &str| {
            let failed = |error: io::Error| Fault::kernel(field, format!("write {file} of init"), &error);
            fs::write(format!("/proc/{pid}/{file}"), text).map_err(failed)
        };
        write("linux.uidMappings", "uid_map", &self.uid)?;
        write("linux.gidMappings", "gid_map", &self.gid)
    }
}
