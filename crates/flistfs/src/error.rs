//! Why a server does not come up, or ends; with the kind and the hint that travel.

use std::io;
use std::path::PathBuf;

use contd_flist::{CacheError, MetadataError, StoreError};
use contd_lease::{LeaseError, ProcessError};
use contd_protocol::flistfs::SERVE_SPEC_VERSION;
use contd_session::SessionError as ControlError;
use contd_types::{ErrorKind, Explain, Shortage};

use crate::mount::MountError;
use crate::session::SessionError;

/// Why a server does not come up, or ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Its log could not be opened.
    #[error("open the log in {}", dir.display())]
    Log {
        /// The lease directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file `serve.json` could not be read.
    #[error("read {}", path.display())]
    ReadSpec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file `serve.json` makes no sense.
    #[error("decode {}", path.display())]
    DecodeSpec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The file `serve.json` is of another version.
    #[error("decode {}: version {found}, this program knows {SERVE_SPEC_VERSION}", path.display())]
    SpecVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The lease is not for us.
    #[error("take the lease of the flist server")]
    Lease {
        /// Why.
        source: LeaseError,
    },
    /// The flist is missing or bad.
    #[error("open flist {}", path.display())]
    Flist {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<MetadataError>,
    },
    /// Its stores make no sense.
    #[error("prepare the stores of flist {}", path.display())]
    Stores {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<StoreError>,
    },
    /// The cache cannot be used.
    #[error("open the block cache in {}", path.display())]
    Cache {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: CacheError,
    },
    /// The control socket could not be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount could not be made.
    #[error("mount the flist")]
    Mount {
        /// Why.
        source: MountError,
    },
    /// The kernel and we do not get on.
    #[error("serve the mount")]
    Session {
        /// Why.
        source: SessionError,
    },
    /// Signals could not be set up, or waiting failed.
    #[error("wait for work")]
    Wait {
        /// Why.
        source: io::Error,
    },
    /// Somebody is ending all processes of this server.
    #[error("start in {}: its server is being ended", dir.display())]
    Ending {
        /// The lease directory.
        dir: PathBuf,
    },
    /// The process that serves could not be started.
    #[error("start the process that serves")]
    Fork {
        /// Why.
        source: io::Error,
    },
    /// The serving process could not be written down.
    #[error("write {}", path.display())]
    NoteServer {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process could not be looked at or ended.
    #[error("look after the processes of the server")]
    Process {
        /// Why.
        source: ProcessError,
    },
    /// The predecessor lives on, although it was killed.
    #[error("succeed process {pid}: it does not end")]
    PredecessorLives {
        /// Its id.
        pid: i32,
    },
    /// The predecessor could not be asked for what it has.
    #[error("ask the server at {} to hand over", socket.display())]
    Ask {
        /// Its control socket.
        socket: PathBuf,
        /// Why.
        source: AskError,
    },
    /// The process that serves died again and again.
    #[error("keep the process that serves alive: it ended too often in a row, the last time with {last}")]
    GivenUp {
        /// How it ended.
        last: String,
    },
}

/// Why a predecessor gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// No process listens.
    #[error("connect to it")]
    Connect(#[source] io::Error),
    /// The connection broke, or it refused.
    #[error("talk to it")]
    Talk(#[from] ControlError),
    /// It is of a version that cannot hand over.
    #[error("it is of a version that cannot hand over")]
    TooOld,
    /// It sent something else than was asked for.
    #[error("it sent something else than was asked for")]
    Unexpected,
    /// Its agreement with the kernel cannot be read.
    #[error("understand what it agreed with the kernel")]
    Session(#[source] serde_json::Error),
}

impl Explain for ServeError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Flist { source, .. } => source.kind().into(),
            Self::Stores { source, .. } => source.kind().into(),
            Self::Cache { source, .. } => source.kind().into(),
            Self::Lease { source: LeaseError::Held { .. } } => ErrorKind::AlreadyExists,
            Self::DecodeSpec { .. } | Self::Lease { .. } => ErrorKind::Conflict,
            Self::SpecVersion { .. } => ErrorKind::VersionMismatch,
            Self::Mount { source: MountError::Device { .. } } | Self::Session { source: SessionError::Version } => {
                ErrorKind::Unsupported
            }
            Self::Log { source, .. } | Self::ReadSpec { source, .. } | Self::Listen { source, .. } => {
                match source.kind() {
                    io::ErrorKind::NotFound => ErrorKind::NotFound,
                    _ => ErrorKind::Internal,
                }
            }
            Self::Ending { .. } => ErrorKind::Conflict,
            Self::Ask { source: AskError::Talk(ControlError::Refused { .. }) | AskError::TooOld, .. } => {
                ErrorKind::VersionMismatch
            }
            Self::Ask { source: AskError::Talk(ControlError::Answer { source }), .. } => source.kind,
            Self::Ask { .. } | Self::GivenUp { .. } => ErrorKind::Unavailable,
            Self::Mount { .. }
            | Self::Session { .. }
            | Self::Wait { .. }
            | Self::Fork { .. }
            | Self::NoteServer { .. }
            | Self::Process { .. }
            | Self::PredecessorLives { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        Some(match self {
            Self::Flist { source, .. } => source.hint().to_owned(),
            Self::Stores { source, .. } => source.hint().to_owned(),
            Self::Cache { source, .. } => source.hint().to_owned(),
            Self::Lease { source } => source.hint().to_owned(),
            Self::ReadSpec { .. } | Self::DecodeSpec { .. } | Self::SpecVersion { .. } => {
                "the daemon writes this file; start the server through it".to_owned()
            }
            Self::Mount { .. } | Self::Session { .. } => {
                "check that the kernel has FUSE (/dev/fuse) and that this is root".to_owned()
            }
            Self::Log { dir, .. } => format!("check space and rights of {}", dir.display()),
            Self::Listen { path, .. } | Self::NoteServer { path, .. } => {
                format!("check space and rights beside {}", path.display())
            }
            Self::Process { source } => source.hint().to_owned(),
            Self::PredecessorLives { .. } => {
                "it waits in the kernel: see /proc/<pid>/stack, and repeat when it has ended".to_owned()
            }
            Self::Ask { source: AskError::Talk(ControlError::Refused { .. }) | AskError::TooOld, .. } => {
                "end its containers, so that a server of this version can start".to_owned()
            }
            Self::Ask { .. } => "see flistfs.log in its directory, then repeat".to_owned(),
            Self::GivenUp { .. } => {
                "see flistfs.log in its directory; stop and start the containers of this flist".to_owned()
            }
            Self::Wait { .. } | Self::Fork { .. } | Self::Ending { .. } => return None,
        })
    }
}
