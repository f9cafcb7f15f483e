//! The errors of a command: how they are shown, and their exit codes.

use std::io;
use std::path::PathBuf;

use contd_client::ClientError;
use contd_image::NotAFlist;
use contd_types::{
    ApiError, ContainerId, ContainerName, ContainerRef, ErrorKind, Explain, NameError, RestartPolicy, Signal,
    SpecError, StateName,
};

use crate::cli::flist::FlistError;
use crate::cli::output::Output;
use crate::cli::table::printable;
use crate::config::ConfigError;

/// The exit code of any failed verb except `run`, `create` and `doctor`.
const FAILED: u8 = 1;
/// The exit code of `run` and `create` when contd failed or the usage was wrong, and of `doctor` when it could not
/// look.
pub(crate) const ENGINE_FAILED: u8 = 125;
/// The exit code of `run` when the entrypoint cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// The exit code of `run` when the entrypoint does not exist.
const NOT_FOUND: u8 = 127;
/// The exit code that a shell gives a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon returned an error, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The spec of the container is invalid.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A name is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The daemon could not start.
    #[error(transparent)]
    Daemon(ApiError),
    /// The doctor could not look.
    #[error(transparent)]
    Doctor(ApiError),
    /// A verb on a flist failed.
    #[error(transparent)]
    Flist(#[from] FlistError),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The flist given to `run` is an image, an archive, an image's name, or a directory.
    #[error("run {given:?}: it is {}, not a flist", found.what)]
    NotAFlist {
        /// The given text.
        given: String,
        /// The kind that it was recognised as.
        found: NotAFlist,
    },
    /// `--rm` and a restart policy contradict each other.
    #[error("run: --rm and --restart {policy} contradict each other")]
    RmWithRestart {
        /// The restart policy.
        policy: RestartPolicy,
    },
    /// The file of `--env-file` cannot be read.
    #[error("read the environment file {}", path.display())]
    EnvFile {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A line of the file is not `KEY=VALUE`. Its content may be a secret and is not shown.
    #[error("read the environment file {}: line {line} is not KEY=VALUE", path.display())]
    EnvFileLine {
        /// The file's path.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
    /// The file of `--cidfile` or `--pidfile` cannot be made.
    #[error("write the id to {}", path.display())]
    CidFile {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The manual pages cannot be written.
    #[error("write the manual pages to {}", dir.display())]
    Man {
        /// The directory.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// `exec --privileged`.
    #[error("exec: --privileged: a process in a container has no more rights than the container")]
    PrivilegedExec,
    /// The container does not run.
    #[error("{verb} container {id}: it is {state}")]
    NotRunning {
        /// The request.
        verb: &'static str,
        /// The container.
        id: ContainerId,
        /// Where it is.
        state: StateName,
    },
    /// The container runs.
    #[error("start container {id}: it runs already")]
    RunsAlready {
        /// The container.
        id: ContainerId,
    },
    /// Several containers, of which one can be attached to.
    #[error("start: -a is for one container")]
    AttachToOne,
    /// The file of `--security-opt seccomp=` cannot be read.
    #[error("read the seccomp profile {}", path.display())]
    SeccompFile {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A filter names a container that is not in the list.
    #[error("filter by container {container}: it is not there")]
    NoSuchFilter {
        /// The given container.
        container: ContainerRef,
    },
    /// A path of `--format` leads nowhere.
    #[error("show field {path:?}: {parent} has none of that name")]
    NoSuchField {
        /// The given path.
        path: String,
        /// The object in which it is missing.
        parent: String,
        /// The fields of that object.
        fields: Vec<String>,
    },
    /// `prune` without anybody to ask.
    #[error("prune: standard input is no terminal, so nobody can be asked")]
    NobodyToAsk,
    /// `update` without a setting.
    #[error("update: no setting was given")]
    NothingToChange,
    /// `-it` without a terminal.
    #[error("-t with -i: standard input is no terminal")]
    NoTerminal,
    /// A signal ended the command before the container ran.
    #[error("run the container: ended by {signal}")]
    Interrupted {
        /// The signal.
        signal: Signal,
    },
    /// The log could not store all of the container's output, so the shown output is incomplete too.
    #[error("run container {name}: it has ended, and output was lost: its log could not be written")]
    OutputLost {
        /// The container.
        name: ContainerName,
    },
    /// The kernel returned no random bytes for a name.
    #[error("choose a name")]
    Random {
        /// The system's error.
        source: getrandom::Error,
    },
    /// The async runtime or its signals cannot be set up.
    #[error("start the command's own event loop")]
    Runtime {
        /// The system's error.
        source: io::Error,
    },
    /// The command's own output cannot be written.
    #[error("write the output")]
    Output {
        /// The system's error.
        source: io::Error,
    },
    /// A value cannot be encoded as JSON: a bug of contd.
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
            | Self::Man { .. }
            | Self::SeccompFile { .. }
            | Self::AttachToOne
            | Self::NoSuchField { .. }
            | Self::NobodyToAsk
            | Self::NothingToChange
            | Self::NoTerminal => ErrorKind::InvalidArgument,
            Self::NoSuchFilter { .. } => ErrorKind::NotFound,
            Self::NotRunning { .. } | Self::RunsAlready { .. } => ErrorKind::Conflict,
            Self::PrivilegedExec => ErrorKind::Unsupported,
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
            Self::Man { .. } => "name an existing directory that you may write to",
            Self::Output { .. } => "check whether the disk is full",
            Self::PrivilegedExec => "give the container what it needs when it is run, or use the host itself",
            Self::SeccompFile { .. } => "name a profile of docker's or OCI's form that you may read",
            Self::AttachToOne => "start the others without -a, then attach to each: contd attach NAME",
            Self::NotRunning { id, .. } => return Some(format!("start it: contd start -a {id}")),
            Self::RunsAlready { id } => return Some(format!("attach to it: contd attach {id}")),
            Self::NoSuchFilter { .. } => "see all of them: contd ps -a",
            Self::NoSuchField { fields, .. } => return Some(format!("it has {}", fields.join(", "))),
            Self::NothingToChange => "give one, for example --memory 256m; see: contd update --help",
            Self::NobodyToAsk => "remove them without being asked: contd prune --force",
            Self::NoTerminal => "leave -t out, and -i passes what is piped in",
            Self::OutputLost { .. } => {
                "free space where the logs are (log_dir of the daemon's configuration), then run it again"
            }
            Self::Interrupted { .. } | Self::Random { .. } | Self::Runtime { .. } | Self::Json(_) => return None,
        };
        Some(text.to_owned())
    }
}

impl CliError {
    /// Tells whether the reader of our output is gone, as with `head`: that is no error to report.
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

    /// Writes the error for people: the step that failed, the causes, the next step.
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

/// Formats an error for a terminal.
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
