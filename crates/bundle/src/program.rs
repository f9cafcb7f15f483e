//! Checks before a start that the first bytes of the container's program can be read.
//!
//! A flist is lazy, so an unreachable store or a damaged block shows only at a read. An OCI runtime would start the
//! container all the same, the kernel would fail the exec with an I/O error, and that could not be told from an exit of
//! the program itself. Reading the first block here costs nothing: the exec needs the same one.

use std::path::{Path, PathBuf};

use contd_types::ContainerSpec;

use crate::error::BundleError;
use crate::request::BundleRequest;
use crate::root_file::{RootFileError, head_in_root};

/// The bytes by which the kernel recognises a file's format (`BINPRM_BUF_SIZE` of execve).
const HEAD_BYTES: u64 = 256;

/// Reads the beginning of the program. A program that is missing or not executable is no error here: the runtime knows
/// the mounts over the root, and reports it.
pub(crate) fn check_readable(request: &BundleRequest<'_>, args: &[String], env: &[String]) -> Result<(), BundleError> {
    let Some(program) = args.first() else { return Ok(()) };
    for path in candidates(request.spec, program, env) {
        if is_covered(request.spec, &path) {
            return Ok(());
        }
        match head_in_root(request.root, &path, HEAD_BYTES) {
            Ok(None) => {}
            Err(source @ RootFileError::Read { .. }) => {
                return Err(BundleError::UnreadableProgram { program: path.display().to_string(), source });
            }
            Ok(Some(_)) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Lists the paths where the kernel will look: the path itself, or each directory of `PATH` for a name.
fn candidates(spec: &ContainerSpec, program: &str, env: &[String]) -> Vec<PathBuf> {
    let cwd = Path::new(spec.working_dir.as_deref().unwrap_or("/"));
    if program.contains('/') {
        return vec![cwd.join(program)];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(program)).collect()
}

/// Tells whether a caller's mount covers the path: then the program is not the root's own file.
fn is_covered(spec: &ContainerSpec, path: &Path) -> bool {
    spec.mounts.iter().any(|mount| path.starts_with(&mount.target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerName, MountSpec};

    fn spec() -> ContainerSpec {
        ContainerSpec::new(ContainerName::new("c").expect("valid"), "/x.fl")
    }

    #[test]
    fn a_name_is_looked_for_along_the_path_and_a_path_from_the_working_directory() {
        let mut spec = spec();
        let env = ["A=1".to_owned(), "PATH=/a:rel:/b".to_owned()];
        assert_eq!(candidates(&spec, "sh", &env), [Path::new("/a/sh"), Path::new("/b/sh")]);
        assert_eq!(candidates(&spec, "/bin/sh", &env), [Path::new("/bin/sh")]);
        spec.working_dir = Some("/srv".to_owned());
        assert_eq!(candidates(&spec, "./run", &env), [Path::new("/srv/./run")]);
    }

    #[test]
    fn what_a_mount_covers_is_not_looked_at() {
        let mut spec = spec();
        spec.mounts.push(MountSpec {
            source: "/host".to_owned(),
            target: "/opt".to_owned(),
            fs_type: "bind".to_owned(),
            options: Vec::new(),
        });
        assert!(is_covered(&spec, Path::new("/opt/bin/tool")));
        assert!(!is_covered(&spec, Path::new("/optional/tool")));
    }
}
