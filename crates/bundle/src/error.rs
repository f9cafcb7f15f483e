//! The errors between a spec and its bundle on disk.

use std::io;
use std::path::{Path, PathBuf};

use contd_durable::DurableError;
use contd_types::{ErrorKind, Explain, Shortage, SpecError};
use oci_spec::OciSpecError;

use crate::root_file::RootFileError;
use crate::seccomp_file::ProfileError;

/// An operation on a bundle that failed. Repeating it or [`crate::Bundles::remove`] clears any half-made bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The spec is not valid by itself.
    #[error("make the configuration of {name}: check its spec")]
    Spec {
        /// The container.
        name: String,
        /// The error in the spec.
        source: SpecError,
    },
    /// The root is not an absolute path of a directory.
    #[error("make the configuration of {name}: use {} as its root", root.display())]
    Root {
        /// The container.
        name: String,
        /// The root as given.
        root: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Neither the caller nor the flist gives an entrypoint.
    #[error("make the configuration of {name}: it has no entrypoint")]
    MissingEntrypoint {
        /// The container.
        name: String,
    },
    /// The entrypoint line cannot be split: a quote is open or it ends in a backslash.
    #[error("make the configuration of {name}: split its entrypoint line by shell rules")]
    UnbalancedEntrypoint {
        /// The container.
        name: String,
    },
    /// The caller's seccomp profile cannot be used.
    #[error("make the configuration of {name}: read its seccomp profile")]
    SeccompProfile {
        /// The container.
        name: String,
        /// Why.
        source: ProfileError,
    },
    /// A device of the host cannot be given to the container.
    #[error("make the configuration of {name}: give it the device {}", device.display())]
    Device {
        /// The container.
        name: String,
        /// The device, on the host.
        device: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program's first bytes cannot be read: a block of the flist is missing or damaged, or its store does not
    /// answer.
    #[error("read the entrypoint {program}")]
    UnreadableProgram {
        /// The path inside the root.
        program: String,
        /// Why.
        source: RootFileError,
    },
    /// A file of the root that names users could not be read safely.
    #[error("look up user {user} in the container's root")]
    UserFile {
        /// The user as given.
        user: String,
        /// Why.
        source: RootFileError,
    },
    /// The user is not in the root's `/etc/passwd`.
    #[error("look up user {user} in the container's root: it has no such user")]
    UnknownUser {
        /// The user's name.
        user: String,
    },
    /// The group is not in the root's `/etc/group`.
    #[error("look up group {group} in the container's root: it has no such group")]
    UnknownGroup {
        /// The group's name.
        group: String,
    },
    /// The source of a bind does not exist.
    #[error("mount {from:?} on {target:?}: the source does not exist")]
    MissingMountSource {
        /// The host path.
        from: PathBuf,
        /// The mount's target.
        target: String,
    },
    /// The source of a bind cannot be examined.
    #[error("mount {from:?} on {target:?}: examine the source")]
    MountSource {
        /// The host path.
        from: PathBuf,
        /// The mount's target.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// Only an elevated container may mount this type of file system.
    #[error("mount a {fs_type} on {target}: only an elevated container may")]
    MountTypeRefused {
        /// The file system type.
        fs_type: String,
        /// The mount's target.
        target: String,
    },
    /// The target carries the container's isolation, or leads to a place that does.
    #[error("mount on {target:?}, which is {} in the container: only an elevated container may mount there", leads_to.display())]
    MountTargetRefused {
        /// The mount's target.
        target: String,
        /// The place that the target's symlinks lead to in the root.
        leads_to: PathBuf,
    },
    /// The source of a bind is in a file system that gives access to the kernel.
    #[error(
        "mount {from:?} on {target:?}: the source lies in a {kind} of the host, and only an elevated container may have that"
    )]
    MountSourceRefused {
        /// The host path.
        from: PathBuf,
        /// The type of that file system.
        kind: &'static str,
        /// The mount's target.
        target: String,
    },
    /// A file is to be mounted on a directory, or a directory on a file.
    #[error("mount {} on {target:?}: {}", shown(from.as_deref(), fs_type), kinds(*is_dir))]
    MountKind {
        /// The host path of a bind.
        from: Option<PathBuf>,
        /// The mount's type.
        fs_type: String,
        /// The mount's target.
        target: String,
        /// Whether the source is a directory.
        is_dir: bool,
    },
    /// A file with names cannot be written in its root, or read on the host.
    #[error("prepare {}, by which names are known in the container", path.display())]
    OwnNames {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cgroup parent is not a plain relative path.
    #[error("make the container's cgroup below {parent:?}: not a plain relative path")]
    CgroupParent {
        /// The parent as given.
        parent: String,
    },
    /// The OCI library refuses a part.
    #[error("assemble the configuration of {name}")]
    Assemble {
        /// The container.
        name: String,
        /// Why.
        source: OciSpecError,
    },
    /// The configuration cannot be written as JSON.
    #[error("write the configuration of {name} as json")]
    Encode {
        /// The container.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The bundle's directory cannot be made.
    #[error("make the bundle directory {}", path.display())]
    CreateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: DurableError,
    },
    /// The configuration cannot be stored.
    #[error("store {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: DurableError,
    },
    /// The bundle cannot be removed.
    #[error("remove the bundle {}", path.display())]
    Remove {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bundles cannot be listed.
    #[error("list the bundles below {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for BundleError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Spec { .. }
            | Self::MissingEntrypoint { .. }
            | Self::UnbalancedEntrypoint { .. }
            | Self::UnknownUser { .. }
            | Self::UnknownGroup { .. }
            | Self::MountKind { .. }
            | Self::SeccompProfile { .. }
            | Self::Device { .. }
            | Self::MissingMountSource { .. } => ErrorKind::InvalidArgument,
            Self::MountTypeRefused { .. } | Self::MountTargetRefused { .. } | Self::MountSourceRefused { .. } => {
                ErrorKind::PermissionDenied
            }
            Self::UserFile { source, .. } => source.kind(),
            Self::UnreadableProgram { .. } => ErrorKind::Unavailable,
            Self::CreateDir { source, .. } | Self::Store { source, .. } => {
                source.io().map_or(ErrorKind::Internal, of_io)
            }
            Self::MountSource { source, .. }
            | Self::OwnNames { source, .. }
            | Self::Remove { source, .. }
            | Self::List { source, .. } => of_io(source),
            Self::Root { .. } | Self::CgroupParent { .. } | Self::Assemble { .. } | Self::Encode { .. } => {
                ErrorKind::Internal
            }
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        Some(match self {
            Self::Spec { source, .. } => source.hint().to_owned(),
            Self::Root { .. } => "prepare the root file system before the bundle".to_owned(),
            Self::MissingEntrypoint { .. } => "name a command, or use a flist that has one".to_owned(),
            Self::UnbalancedEntrypoint { .. } => "close every quote, or give the arguments one by one".to_owned(),
            Self::UserFile { source, .. } => return source.hint(),
            Self::UnreadableProgram { .. } => {
                "a block of the flist cannot be read: check that its stores answer, then repeat".to_owned()
            }
            Self::UnknownUser { .. } => "use a user of the flist's /etc/passwd, or a number such as 1000".to_owned(),
            Self::UnknownGroup { .. } => "use a group of the flist's /etc/group, or a number such as 1000".to_owned(),
            Self::MissingMountSource { from, .. } => {
                // Paths with a NUL were refused before. Lossy is good enough: this text is only for people.
                let path = from.to_string_lossy();
                let quoted = shlex::try_quote(&path).unwrap_or_else(|_| path.clone());
                format!("contd makes no directories of the host: mkdir -p {quoted}")
            }
            Self::SeccompProfile { .. } => {
                "use a profile in docker's or OCI's form, or --security-opt seccomp=unconfined".to_owned()
            }
            Self::Device { .. } => "name a character or block device of this node".to_owned(),
            Self::MountSource { .. } => "look at the permissions and the health of that path".to_owned(),
            Self::MountTypeRefused { .. } => "use bind or tmpfs, or run the container elevated".to_owned(),
            Self::MountTargetRefused { .. } => "mount somewhere outside /proc and /sys".to_owned(),
            Self::MountSourceRefused { .. } => "bind something else, or run the container elevated".to_owned(),
            Self::MountKind { is_dir: true, .. } => {
                "a directory needs a directory as its target: name another one, or bind a single file".to_owned()
            }
            Self::MountKind { is_dir: false, .. } => {
                "a file needs a file as its target: write the file's name after the directory".to_owned()
            }
            Self::OwnNames { .. } => "look at the disk of the writable layer and at the kernel log".to_owned(),
            Self::CgroupParent { .. } => "configure a name such as contd".to_owned(),
            Self::CreateDir { source, .. } | Self::Store { source, .. } => source.hint().to_owned(),
            Self::Remove { .. } | Self::List { .. } => {
                "look at the disk and the kernel log; repeating is safe".to_owned()
            }
            Self::Assemble { .. } | Self::Encode { .. } => return None,
        })
    }
}

fn shown(from: Option<&Path>, fs_type: &str) -> String {
    from.map_or_else(|| format!("a {fs_type}"), |from| format!("{from:?}"))
}

fn kinds(is_dir: bool) -> &'static str {
    if is_dir {
        "the source is a directory, and the target is a file"
    } else {
        "the source is a file, and the target is a directory"
    }
}

/// Returns the kind for a system's error.
pub(crate) fn of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        _ if Shortage::of(error).is_some() => ErrorKind::OutOfResources,
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_durable::DurableError;

    #[test]
    fn whatever_runs_out_under_a_bundle_is_told_with_its_limit() {
        for (number, limit) in [(28, "space"), (122, "quota"), (24, "open files"), (23, "fs.file-max"), (12, "memory")]
        {
            let path = || std::path::PathBuf::from("/state/a/x/bundle");
            let source = || io::Error::from_raw_os_error(number);
            for error in [
                BundleError::Store { path: path(), source: DurableError::Write { path: path(), source: source() } },
                BundleError::Remove { path: path(), source: source() },
            ] {
                assert_eq!(error.kind(), ErrorKind::OutOfResources, "{number}");
                assert!(error.hint().is_some_and(|hint| hint.contains(limit)), "{number}: {:?}", error.hint());
                assert!(contd_types::ApiError::from_error(&error).chain().contains("/state/a/x/bundle"));
            }
        }
    }
}
