//! The exec of the entrypoint: prepared before "go", so that after it only the kernel can refuse.

use std::ffi::{CString, NulError};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::fault::{Fault, FaultKind};
use crate::seccomp::Program;
use crate::sys;

/// The search path when the environment has no `PATH`, as with `execvp`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How many bytes of a script's first line the kernel reads.
const INTERPRETER_LINE_BYTES: u64 = 256;

/// An entrypoint that is ready to be executed.
#[derive(Debug)]
pub struct PreparedExec {
    path: String,
    c_path: CString,
    args: Strings,
    env: Strings,
    /// The filter to load, unless it is loaded already.
    filter: Option<Program>,
}

/// Strings, and the array of pointers to them that the kernel takes.
#[derive(Debug)]
struct Strings {
    /// The owners of the strings that `pointers` points to; never changed afterwards.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(field: &str, strings: &[String]) -> Result<Self, Fault> {
        let owned: Result<Vec<CString>, NulError> = strings.iter().map(|text| CString::new(text.as_str())).collect();
        let owned = owned.map_err(|_| Fault::invalid(field, "a string contains a NUL"))?;
        let pointers = owned.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _strings: owned, pointers })
    }
}

impl PreparedExec {
    /// Finds the program and makes its arguments. Only legal inside the container, as its user.
    pub(super) fn new(args: &[String], env: &[String], filter: Option<Program>) -> Result<Self, Fault> {
        let name = args.first().ok_or_else(|| Fault::invalid("process.args", "there is no program"))?;
        let path = look_up(name, env)?;
        let c_path = CString::new(path.as_str()).map_err(|_| Fault::invalid("process.args", "it contains a NUL"))?;
        let (args, env) = (Strings::new("process.args", args)?, Strings::new("process.env", env)?);
        Ok(Self { path, c_path, args, env, filter })
    }

    /// Executes the program; returns only when that fails.
    pub fn exec(self) -> Fault {
        // Descriptors 0, 1 and 2 are the container's; all others that are open here are not.
        if let Err(error) = sys::close_on_exec_from(3) {
            return Fault::kernel("", "close the launcher's descriptors", &error);
        }
        if let Some(filter) = &self.filter
            && let Err(error) = filter.install()
        {
            return Fault::kernel("linux.seccomp", "load the filter", &error);
        }
        let error = sys::execve(&self.c_path, &self.args.pointers, &self.env.pointers);
        self.refused(&error)
    }

    fn refused(&self, error: &io::Error) -> Fault {
        let fault = Fault::kernel("process.args", format!("execute {}", self.path), error);
        match error.raw_os_error() {
            // The program exists, so its interpreter is missing: a script's, or the loader.
            Some(libc::ENOENT | libc::ENOTDIR) => match interpreter_of(&self.path) {
                Some(interpreter) => Fault { what: format!("execute {} by {interpreter}", self.path), ..fault },
                None => fault,
            }
            .of_kind(FaultKind::NotFound),
            Some(
                libc::EACCES | libc::EPERM | libc::ENOEXEC | libc::EISDIR | libc::ELIBBAD | libc::ETXTBSY | libc::ELOOP,
            ) => fault.of_kind(FaultKind::NotExecutable),
            _ => fault,
        }
    }
}

/// Finds a program as `execvp` does: by its path, or in each directory of `PATH`.
fn look_up(name: &str, env: &[String]) -> Result<String, Fault> {
    let failed = |kind, errno| {
        let error = io::Error::from_raw_os_error(errno);
        Fault::kernel("process.args", format!("find {name:?} in the container"), &error).of_kind(kind)
    };
    if name.is_empty() {
        return Err(failed(FaultKind::NotFound, libc::ENOENT));
    }
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(libc::ENOENT | libc::ENOTDIR) => Err(failed(FaultKind::NotFound, libc::ENOENT)),
            Err(errno) => Err(failed(FaultKind::NotExecutable, errno)),
        };
    }
    let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refusal = None;
    for dir in path.split(':') {
        let candidate = if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(libc::ENOENT | libc::ENOTDIR) => {}
            Err(errno) => refusal = Some(errno),
        }
    }
    Err(match refusal {
        Some(errno) => failed(FaultKind::NotExecutable, errno),
        None => failed(FaultKind::NotFound, libc::ENOENT),
    })
}

fn check(path: &str) -> Result<(), i32> {
    let metadata = std::fs::metadata(Path::new(path)).map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL))?;
    if metadata.is_dir() || metadata.permissions().mode() & 0o111 == 0 { Err(libc::EACCES) } else { Ok(()) }
}

/// Returns the interpreter that a script names in its first line.
fn interpreter_of(path: &str) -> Option<String> {
    let mut line = Vec::new();
    // Open without blocking: the file could be a FIFO.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    file.ok()?.take(INTERPRETER_LINE_BYTES).read_to_end(&mut line).ok()?;
    let line = line.split(|byte| *byte == b'\n').next()?.strip_prefix(b"#!")?;
    String::from_utf8_lossy(line).split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(path: &str) -> Vec<String> {
        vec!["A=1".to_owned(), format!("PATH={path}")]
    }

    #[test]
    fn a_program_is_found_by_its_path_or_in_the_path() {
        assert_eq!(look_up("/bin/sh", &[]).as_deref(), Ok("/bin/sh"));
        assert_eq!(look_up("sh", &env("/nowhere:/bin")).as_deref(), Ok("/bin/sh"));
        assert_eq!(look_up("sh", &[]).map(|path| path.ends_with("/sh")), Ok(true));
    }

    #[test]
    fn what_is_missing_and_what_cannot_be_executed_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "text").unwrap();
        let code = |name: &str, path: &str| look_up(name, &env(path)).unwrap_err().exit_code();
        assert_eq!(code("/no/such", ""), 127);
        assert_eq!(code("/etc/passwd/x", ""), 127);
        assert_eq!(code("nosuch", "/bin"), 127);
        assert_eq!(code("", "/bin"), 127);
        assert_eq!(code(plain.to_str().unwrap(), ""), 126);
        assert_eq!(code("plain", dir.path().to_str().unwrap()), 126);
        assert_eq!(code("/etc", ""), 126);
    }

    #[test]
    fn a_scripts_interpreter_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#! /no/interpreter -x\necho\n").unwrap();
        assert_eq!(interpreter_of(script.to_str().unwrap()).as_deref(), Some("/no/interpreter"));
        assert_eq!(interpreter_of("/bin/sh"), None);
    }
}
