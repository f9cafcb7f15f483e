//! A process that is executed in a running container.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exec::MAX_STRING_BYTES;
use crate::{ErrorKind, Explain, Pid, Timestamp, UserSpec};

/// The digits of an [`ExecId`].
const DIGITS: usize = u64::BITS as usize / 4;

/// Names a process among those that were executed in its container.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ExecId(u64);

/// A text that is not the id of an executed process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id of an executed process has {DIGITS} hexadecimal digits")]
pub struct ExecIdError;

impl ExecId {
    /// Makes an id from random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecId({self})")
    }
}

impl FromStr for ExecId {
    type Err = ExecIdError;

    fn from_str(text: &str) -> Result<Self, ExecIdError> {
        let is_plain = text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| is_plain);
        bits.map(Self).ok_or(ExecIdError)
    }
}

impl From<ExecId> for String {
    fn from(id: ExecId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ExecId {
    type Error = ExecIdError;

    fn try_from(text: String) -> Result<Self, ExecIdError> {
        text.parse()
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// The height.
    pub rows: u16,
    /// The width.
    pub columns: u16,
}

impl Default for WindowSize {
    /// That of the first terminals, as programs expect it where nobody says.
    fn default() -> Self {
        Self { rows: 24, columns: 80 }
    }
}

/// A process to execute in a running container. What is absent is as for the container's own process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// More of the environment, `NAME=value`; the last value of a name counts.
    pub env: Vec<String>,
    /// The working directory; it must exist.
    pub cwd: Option<String>,
    /// The user; names are looked up in the container's own files.
    pub user: Option<UserSpec>,
    /// A terminal of its own, of this size, in the place of the caller's descriptors.
    pub terminal: Option<WindowSize>,
}

/// Why a process cannot be executed, as its spec tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecSpecError {
    /// There is nothing to execute.
    #[error("execute a process in a container: there is no command")]
    NoCommand,
    /// A string that the kernel does not take.
    #[error("execute a process in a container: {what} has {bytes} bytes, the kernel takes {MAX_STRING_BYTES}")]
    StringTooLong {
        /// Which.
        what: String,
        /// Its length.
        bytes: usize,
    },
    /// A string with a NUL.
    #[error("execute a process in a container: {what} contains a NUL")]
    Nul {
        /// Which.
        what: String,
    },
    /// An entry of the environment without a name.
    #[error("execute a process in a container: the environment's {entry:?} is not NAME=value")]
    Environment {
        /// The entry, cut.
        entry: String,
    },
    /// A working directory that depends on where one is.
    #[error("execute a process in a container: the working directory {cwd:?} is not absolute")]
    RelativeCwd {
        /// The directory.
        cwd: String,
    },
}

impl Explain for ExecSpecError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoCommand => "give the program, and its arguments behind it",
            Self::StringTooLong { .. } => "pass what is so long by a file or by standard input",
            Self::Nul { .. } => "no program can be given a NUL",
            Self::Environment { .. } => "write NAME=value",
            Self::RelativeCwd { .. } => "give the directory from the root of the container on",
        };
        Some(hint.to_owned())
    }
}

impl ExecSpec {
    /// Checks it as far as that is possible without its container.
    ///
    /// # Errors
    /// [`ExecSpecError`].
    pub fn validate(&self) -> Result<(), ExecSpecError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(ExecSpecError::NoCommand);
        }
        let args = self.args.iter().enumerate().map(|(number, text)| (format!("argument {number}"), text));
        let env = self.env.iter().map(|text| (format!("environment variable {}", name_of(text)), text));
        for (what, text) in args.chain(env) {
            if text.len() > MAX_STRING_BYTES {
                return Err(ExecSpecError::StringTooLong { what, bytes: text.len() });
            }
            if text.contains('\0') {
                return Err(ExecSpecError::Nul { what });
            }
        }
        if let Some(entry) = self.env.iter().find(|entry| !entry.contains('=') || entry.starts_with('=')) {
            return Err(ExecSpecError::Environment { entry: entry.chars().take(80).collect() });
        }
        match &self.cwd {
            Some(cwd) if !cwd.starts_with('/') => Err(ExecSpecError::RelativeCwd { cwd: cwd.clone() }),
            _ => Ok(()),
        }
    }
}

fn name_of(entry: &str) -> String {
    entry.split('=').next().unwrap_or_default().chars().take(80).collect()
}

/// A process that was executed in a container and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecInfo {
    /// Which.
    pub exec: ExecId,
    /// Its process id on the host.
    pub pid: Pid,
    /// Its program and arguments.
    pub args: Vec<String>,
    /// Whether it has a terminal of its own.
    pub has_terminal: bool,
    /// Since when it runs.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_its_text_and_no_other() {
        let id = ExecId::from_random(0xab);
        assert_eq!(id.to_string(), "00000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", "00000000000000AB", "+0000000000000ab", "00000000000000abc"] {
            assert_eq!(bad.parse::<ExecId>(), Err(ExecIdError), "{bad}");
        }
    }

    #[test]
    fn a_process_that_no_container_could_execute_is_refused_by_name() {
        let spec = |args: &[&str], env: &[&str], cwd: Option<&str>| ExecSpec {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            cwd: cwd.map(str::to_owned),
            ..ExecSpec::default()
        };
        assert_eq!(spec(&["sh", ""], &["A=", "B=x=y"], Some("/")).validate(), Ok(()));
        assert_eq!(spec(&[], &[], None).validate(), Err(ExecSpecError::NoCommand));
        assert_eq!(spec(&[""], &[], None).validate(), Err(ExecSpecError::NoCommand));
        let said = |spec: ExecSpec| spec.validate().unwrap_err().to_string();
        assert!(said(spec(&["a\0"], &[], None)).contains("argument 0 contains a NUL"));
        assert!(said(spec(&["a"], &["A"], None)).contains("\"A\" is not NAME=value"));
        assert!(said(spec(&["a"], &["=x"], None)).contains("\"=x\""));
        assert!(said(spec(&["a"], &[], Some("tmp"))).contains("\"tmp\" is not absolute"));
        let long = format!("KEY={}", "x".repeat(MAX_STRING_BYTES));
        assert!(said(spec(&["a"], &[&long], None)).contains("environment variable KEY has 131075 bytes"));
    }
}
