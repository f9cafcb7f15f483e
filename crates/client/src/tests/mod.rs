//! The client against daemons that behave, and against those that do not.

mod hostile;
mod polite;

use std::path::PathBuf;
use std::time::Duration;

use contd_protocol::api::{Item, LogItem, LogStream, RunRequest, Target};
use contd_types::{
    ContainerId, ContainerInfo, ContainerName, ContainerRef, ContainerSpec, ContainerSummary, Exit, ExitCause,
    ExitSource, NamespaceId, State, Timestamp,
};

/// Longer than anything here takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(300);

struct Place {
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("temporary directory");
    let socket = dir.path().join("s");
    Place { _dir: dir, socket }
}

fn id(byte: u8) -> ContainerId {
    ContainerId::from_random([byte; 16])
}

fn namespace() -> NamespaceId {
    NamespaceId::new("default").expect("valid")
}

fn target() -> Target {
    Target { namespace: namespace(), container: ContainerRef::new("web").expect("valid") }
}

fn run_request() -> RunRequest {
    let spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
    RunRequest { namespace: namespace(), spec, idempotency_key: None, is_attached: false }
}

fn exit(code: u8) -> Exit {
    let cause = ExitCause::Code(code);
    Exit { cause, at: Timestamp(0), oom_kills: 0, source: ExitSource::Reaped, is_drained: true }
}

fn summary(number: u16) -> ContainerSummary {
    let mut bits = [0; 16];
    bits[..2].copy_from_slice(&number.to_be_bytes());
    let spec = ContainerSpec::new(ContainerName::new(format!("c{number}")).expect("valid"), "/x.fl");
    let id = ContainerId::from_random(bits);
    (&ContainerInfo::new(id, namespace(), spec, State::Creating, Timestamp(0))).into()
}

fn log(text: &str) -> Item {
    Item::Log(LogItem { at: Timestamp(0), stream: LogStream::Stdout, content: text.as_bytes().to_vec() })
}

/// Fails instead of hanging.
#[track_caller]
fn patiently<T>(what: &'static str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_elapsed) => panic!("{what} did not happen in {PATIENCE:?} ({caller})"),
        }
    }
}
