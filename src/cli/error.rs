//! Why a command failed, how that is told, and which exit code says so.

use std::io;
use std::path::PathBuf;

use contd_client::ClientError;
use contd_image::NotAFlist;
use contd_types::{ApiError, ContainerName, ErrorKind, Explain, NameError, RestartPolicy, Signal, SpecError};

use crate::cli::flist::FlistError;
use crate::cli::output::Output;
use crate::config::ConfigError;

/// The exit code of any failed verb but `run`.
const FAILED: u8 = 1;
/// `run`, `create`: contd could not, or was told wrongly; `doctor`: it could not look.
pub(crate) const ENGINE_FAILED: u8 = 125;
/// `run`: the entrypoint cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// `run`: the entrypoint is not there.
const NOT_FOUND: u8 = 127;
/// What a shell calls the death by a closed pipe.
const BROKEN_PIPE: u8 = 128 + 13;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A container that cannot be.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A name that cannot be.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What the daemon's own start says.
    #[error(transparent)]
    Daemon(ApiError),
    /// The doctor could not look.
    #[error(transparent)]
    Doctor(ApiError),
    /// What was to be done with a flist.
    #[error(transparent)]
    Flist(#[from] FlistError),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is to be run is an image, its archive or its name, or a directory.
    #[error("run {given:?}: it is {}, not a flist", found.what)]
    NotAFlist {
        /// What was given.
        given: String,
        /// What it is.
        found: NotAFlist,
    },
    /// A container cannot both go and come back.
    #[error("run: --rm and --restart {policy} contradict each other")]
    RmWithRestart {
        /// What was asked for.
        policy: RestartPolicy,
    },
    /// The file of `--env-file` cannot be read.
    #[error("read the environment file {}", path.display())]
    EnvFile {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line of it is no `KEY=VALUE`. What it holds may be a secret and is not shown.
    #[error("read the environment file {}: line {line} is not KEY=VALUE", path.display())]
    EnvFileLine {
        /// Its path.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The file of `--cidfile` cannot be made.
    #[error("write the id to {}", path.display())]
    CidFile {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The manual pages cannot be written.
    #[error("write the manual pages to {}", dir.display())]
    Man {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The person changed their mind before the container ran.
    #[error("run the container: ended by {signal}")]
    Interrupted {
        /// By this.
        signal: Signal,
    },
    /// The log could not take all that the container said, so we have not shown all either.
    #[error("run container {name}: it has ended, and output was lost: its log could not be written")]
    OutputLost {
        /// The container.
        name: ContainerName,
    },
    /// The kernel gives no randomness for a name.
    #[error("choose a name")]
    Random {
        /// What the system says.
        source: getrandom::Error,
    },
    /// The async runtime or its signals cannot be set up.
    #[error("start the command's own event loop")]
    Runtime {
        /// What the system says.
        source: io::Error,
    },
    /// Our own output cannot be written.
    #[error("write the output")]
    Output {
        /// What the system says.
        source: io::Error,
    },
    /// A value cannot be shown as JSON: a fault of contd's own.
    #[error("write JSON")]
    Json(#[from] serde_json::Error),
}

impl Explain for CliError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Client(error) => error.kind(),
            Self::Daemon(error) | Self::Doctor(error) => error.kind,
            Self::Flist(error) => error.kind(),
            Self::Spec(_)
            | Self::Name(_)
            | Self::Config(_)
            | Self::RmWithRestart { .. }
            | Self::NotAFlist { .. }
            | Self::EnvFile { .. }
            | Self::EnvFileLine { .. }
            | Self::CidFile { .. }
            | Self::Man { .. } => ErrorKind::InvalidArgument,
            Self::Interrupted { .. } => ErrorKind::Conflict,
            Self::OutputLost { .. } | Self::Random { .. } | Self::Runtime { .. } | Self::Output { .. } => {
                ErrorKind::OutOfResources
            }
            Self::Json(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Client(error) => return error.hint(),
            Self::Daemon(error) | Self::Doctor(error) => return error.hint.clone(),
            Self::Flist(error) => return Some(error.hint().into_owned()),
            Self::NotAFlist { found, .. } => return Some(found.hint.clone()),
            Self::Spec(error) => error.hint(),
            Self::Name(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::RmWithRestart { .. } => "leave one of them out",
            Self::EnvFile { .. } => "name a text file that you may read",
            Self::EnvFileLine { .. } => {
                "write KEY=VALUE, KEY alone to take it from your own environment, or # a comment"
            }
            Self::CidFile { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                "it belongs to another container: remove it, or name another file"
            }
            Self::CidFile { .. } => "name a file in a directory that you may write to",
            Self::Man { .. } => "name a directory that is there and that you may write to",
            Self::Output { .. } => "is the disk full?",
            Self::OutputLost { .. } => {
                "free space where the logs are (log_dir of the daemon's configuration), then run it again"
            }
            Self::Interrupted { .. } | Self::Random { .. } | Self::Runtime { .. } | Self::Json(_) => return None,
        };
        Some(text.to_owned())
    }
}

impl CliError {
    /// Tells whether whoever read our output has gone, as `head` does: nothing to complain about.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns the exit code of `contd run` and `contd create`.
    pub(crate) fn run_code(&self) -> u8 {
        match self {
            Self::Interrupted { signal } => 128u8.saturating_add(u8::from(*signal)),
            _ if self.is_broken_pipe() => BROKEN_PIPE,
            _ => match self.kind() {
                ErrorKind::EntrypointNotFound => NOT_FOUND,
                ErrorKind::EntrypointNotExecutable => CANNOT_EXECUTE,
                _ => ENGINE_FAILED,
            },
        }
    }

    /// Returns the exit code of every other verb.
    pub(crate) fn code(&self) -> u8 {
        match self {
            _ if self.is_broken_pipe() => 0,
            Self::Doctor(_) => ENGINE_FAILED,
            _ => FAILED,
        }
    }

    /// Tells people: what was tried, why it failed, what to do next.
    pub(crate) fn report(&self, output: &Output) {
        if !self.is_broken_pipe() {
            let mut error = self.flatten();
            error.hint = error.hint.map(|hint| output.complete(&hint));
            output.tell(&render(&error));
        }
    }

    fn flatten(&self) -> ApiError {
        match self {
            Self::Client(error) => error.to_api_error(),
            Self::Daemon(error) | Self::Doctor(error) => error.clone(),
            other => ApiError::from_error(other),
        }
    }
}

/// Lays out an error for a terminal.
fn render(error: &ApiError) -> String {
    let mut text = format!("contd: error: {}\n", printable(&error.message));
    for cause in &error.causes {
        text.push_str(&format!("  caused by: {}\n", printable(cause)));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("hint: {}\n", printable(hint)));
    }
    text
}

/// Keeps what came from outside on one line and away from the terminal's controls.
fn printable(text: &str) -> String {
    text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_every_cause_and_a_hint_on_lines_of_their_own() {
        let mut error = ApiError::new(ErrorKind::NotFound, "open flist /x.fl").with_hint("see the path");
        error.causes = vec!["read it".into(), "no such file\n\u{1b}[31m".into()];
        assert_eq!(
            render(&error),
            "contd: error: open flist /x.fl\n  caused by: read it\n  caused by: no such file  [31m\nhint: see the path\n"
        );
    }

    #[test]
    fn run_has_the_exit_codes_of_podman_and_other_verbs_have_one() {
        let of = |kind| CliError::Client(ClientError::Api(ApiError::new(kind, "x")));
        assert_eq!(of(ErrorKind::EntrypointNotFound).run_code(), 127);
        assert_eq!(of(ErrorKind::EntrypointNotExecutable).run_code(), 126);
        assert_eq!(of(ErrorKind::NotFound).run_code(), 125);
        assert_eq!(of(ErrorKind::EntrypointNotFound).code(), 1);
        assert_eq!(CliError::Interrupted { signal: Signal::TERM }.run_code(), 143);
    }

    #[test]
    fn a_broken_pipe_is_no_complaint() {
        let error = CliError::Output { source: io::ErrorKind::BrokenPipe.into() };
        assert_eq!((error.code(), error.run_code()), (0, 141));
        let output = Output::new(io::sink(), ForbiddenToWrite);
        error.report(&output);
    }

    struct ForbiddenToWrite;

    impl io::Write for ForbiddenToWrite {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            panic!("wrote {:?}", String::from_utf8_lossy(bytes))
        }
        fn flush(&mut self) -> io::Result<()> {
            panic!("flushed")
        }
    }
}
