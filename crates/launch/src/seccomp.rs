//! Compiled seccomp filters: compiled once for each profile, cached by the hash of its text.
//!
//! libseccomp takes 11–13 ms to compile a filter (docs/architecture.md, facts); loading one takes the kernel a third of a
//! millisecond. So the text of `linux.seccomp` is hashed, without insignificant blanks, and the compiled program is
//! looked up: in memory, then in a directory that only root can write. Only an unknown profile is compiled, by
//! `contd-seccomp` in a process of its own.

mod compiler;
mod file;
#[expect(unsafe_code, reason = "seccomp(2), which nix does not offer")]
mod sys;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The most files in the cache; above it the oldest are removed. A node has a handful of profiles.
const MAX_FILES: usize = 64;

/// A compiled program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The instructions (`struct sock_filter`), in the machine's own byte order.
    pub instructions: Vec<u64>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
}

impl Program {
    /// Loads the filter into this process, for good. Needs no-new-privileges or CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn install(&self) -> io::Result<()> {
        sys::install(&self.instructions, self.flags)
    }
}

/// A filter could not be provided.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The directory cannot be used, or cannot be trusted.
    #[error("use the directory of compiled filters {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compiler could not be run.
    #[error("compile the filter with {}", path.display())]
    Run {
        /// The compiler.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compiler refused the profile.
    #[error("compile the filter: {words}")]
    Refused {
        /// The compiler's message.
        words: String,
    },
    /// The compiler's output is not a program.
    #[error("compile the filter: {} did not answer with a program", path.display())]
    Damaged {
        /// The compiler.
        path: PathBuf,
    },
}

/// The cache of a node's compiled filters.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    compiler: PathBuf,
    memory: HashMap<[u8; 32], Program>,
}

impl Cache {
    /// Makes the cache of a directory and a compiler; touches neither yet.
    pub fn new(dir: PathBuf, compiler: PathBuf) -> Self {
        Self { dir, compiler, memory: HashMap::new() }
    }

    /// Returns the program of a section of `config.json`.
    ///
    /// # Errors
    /// [`FilterError`]. If the directory cannot be written, the next process compiles again.
    pub fn get(&mut self, section: &[u8]) -> Result<Program, FilterError> {
        let compact = without_blanks(section);
        let key = key(&compact);
        if let Some(program) = self.memory.get(&key) {
            return Ok(program.clone());
        }
        let path = self.dir.join(format!("{}.bpf", hex(&key)));
        let program = match file::read(&path) {
            Some(program) => program,
            None => self.compile(&compact, &path)?,
        };
        self.memory.insert(key, program.clone());
        Ok(program)
    }

    fn compile(&self, section: &[u8], path: &Path) -> Result<Program, FilterError> {
        self.check_dir()?;
        let program = compiler::run(&self.compiler, section)?;
        file::remove_oldest(&self.dir, MAX_FILES);
        let directory = |source| FilterError::Directory { path: self.dir.clone(), source };
        file::write(path, &program).map_err(directory)?;
        Ok(program)
    }

    /// Makes the directory and checks it: if other users could write to it, they could plant a filter that forbids
    /// nothing.
    fn check_dir(&self) -> Result<(), FilterError> {
        let failed = |source| FilterError::Directory { path: self.dir.clone(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(failed)?;
        let metadata = std::fs::symlink_metadata(&self.dir).map_err(failed)?;
        let is_ours = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
        if is_ours && metadata.is_dir() {
            Ok(())
        } else {
            Err(failed(io::Error::other("it must be this user's own, and writable for nobody else")))
        }
    }
}

/// Removes blanks outside of strings: texts that differ only in these are the same profile.
fn without_blanks(section: &[u8]) -> Vec<u8> {
    let (mut is_string, mut is_escaped) = (false, false);
    let keep = |byte: &u8| {
        let is_blank = !is_string && byte.is_ascii_whitespace();
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            _ => {}
        }
        !is_blank
    };
    let mut compact = section.to_vec();
    compact.retain(keep);
    compact
}

fn key(section: &[u8]) -> [u8; 32] {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    state.update(&file::VERSION.to_le_bytes()).update(std::env::consts::ARCH.as_bytes()).update(section);
    let mut key = [0; 32];
    key.copy_from_slice(state.finalize().as_bytes());
    key
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_count_only_inside_of_strings() {
        assert_eq!(without_blanks(br#" { "a b" : [ 1,"\" c" ] } "#), br#"{"a b":[1,"\" c"]}"#);
    }

    #[test]
    fn a_program_is_compiled_once_and_then_read() {
        let dir = tempfile::tempdir().unwrap();
        let filters = dir.path().join("filters");
        let expected = Program { instructions: vec![6, 0x7fff_0000_0000_0006], flags: 2 };
        let mut answer = expected.flags.to_le_bytes().to_vec();
        answer.extend(expected.instructions.iter().flat_map(|instruction| instruction.to_ne_bytes()));
        std::fs::write(dir.path().join("answer"), answer).unwrap();
        let compiler = script(dir.path(), &format!("cat {0}/answer; echo x >> {0}/runs", dir.path().display()));
        let mut first = Cache::new(filters.clone(), compiler.clone());
        assert_eq!(first.get(b"{}").unwrap(), expected);
        assert_eq!(first.get(b" { } ").unwrap(), expected);
        let mut second = Cache::new(filters.clone(), compiler);
        assert_eq!(second.get(b"{}").unwrap(), expected);
        assert_eq!(std::fs::read(dir.path().join("runs")).unwrap(), b"x\n");
        // A damaged file is compiled again.
        let path = std::fs::read_dir(&filters).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Cache::new(filters, dir.path().join("compiler")).get(b"{}").unwrap(), expected);
        assert_eq!(std::fs::read(dir.path().join("runs")).unwrap(), b"x\nx\n");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Cache::new(dir.path().into(), "/bin/true".into()).get(b"{}").unwrap_err();
        assert!(matches!(error, FilterError::Directory { .. }), "{error:?}");
    }

    #[test]
    fn a_compiler_that_refuses_is_quoted_and_one_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let refusing = script(dir.path(), "echo no such action >&2; exit 1");
        let error = Cache::new(dir.path().join("f"), refusing).get(b"{}").unwrap_err();
        assert!(error.to_string().contains("no such action"), "{error}");
        let error = Cache::new(dir.path().join("f"), "/no/compiler".into()).get(b"{}").unwrap_err();
        assert!(error.to_string().contains("/no/compiler"), "{error}");
    }

    fn script(dir: &Path, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join("compiler");
        std::fs::write(&path, format!("#!/bin/sh\ncat > /dev/null\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}
