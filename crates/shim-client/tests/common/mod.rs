//! A shim that is part of the test: its lease is held by the test's own process, and it says what a script says.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod contract;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contd_lease::{HeldLease, LeaseDir};
use contd_protocol::hello::HELLO_VERSION;
use contd_protocol::shim::{
    Call, Reply, Request, Response, RuntimeSpec, TASK_SPEC_VERSION, TaskSpec, TaskState, files,
};
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, decode};
use contd_shim_client::{Attached, ProcessShimClient, Shim, ShimClient, ShimClientConfig};
use contd_types::{ApiError, ContainerId, NamespaceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

pub(crate) const VERSION: u16 = 1;

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 16])
}

pub(crate) fn namespace() -> NamespaceId {
    NamespaceId::new("t").expect("valid")
}

pub(crate) fn task(number: u8, dir: &Path) -> TaskSpec {
    TaskSpec {
        version: TASK_SPEC_VERSION,
        namespace: namespace(),
        id: id(number),
        bundle: dir.join("bundle"),
        runtime: RuntimeSpec::Oci { binary: "/bin/true".into(), root: dir.join("runtime") },
        log_path: dir.join("log"),
        log_max_bytes: 1 << 20,
        log_max_files: 2,
        log_notes: None,
        log_start: None,
        drain_timeout: Duration::from_secs(1),
        runtime_timeout: Duration::from_secs(10),
        input: contd_protocol::shim::TaskInput::default(),
    }
}

/// A run directory with a client; `shim_binary` need not exist.
pub(crate) struct Scratch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: ProcessShimClient,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::with_binary("/nonexistent/contd-shim")
    }

    pub(crate) fn with_binary(binary: impl Into<PathBuf>) -> Self {
        let dir = tempfile::tempdir().expect("scratch");
        let config = ShimClientConfig { shim_binary: binary.into(), run_dir: dir.path().join("run") };
        Self { dir, client: ProcessShimClient::new(config) }
    }

    /// Has a shell script play the shim.
    pub(crate) fn with_script(text: &str) -> Self {
        let mut scratch = Self::new();
        let path = scratch.dir.path().join("shim.sh");
        let source = scratch.dir.path().join("source.sh");
        std::fs::write(&source, format!("#!/bin/sh\n[ \"$1\" = --dir ] || exit 1\n{text}\n")).expect("write");
        std::fs::set_permissions(&source, PermissionsExt::from_mode(0o755)).expect("chmod");
        // Copied by another process: a test that forks meanwhile would inherit our descriptor, and the copy be busy.
        assert!(std::process::Command::new("cp").arg(&source).arg(&path).status().expect("cp").success());
        let config = ShimClientConfig { shim_binary: path, run_dir: scratch.dir.path().join("run") };
        scratch.client = ProcessShimClient::new(config);
        scratch
    }

    pub(crate) fn lease(&self, number: u8) -> LeaseDir {
        LeaseDir::new(self.client.dir_of(&id(number)))
    }

    /// Reserves and claims the lease in the name of this process.
    pub(crate) fn hold(&self, number: u8) -> HeldLease {
        let lease = self.lease(number);
        let socket = lease.path().join(files::SOCKET);
        lease.reserve(&format!("t/{}", id(number)), &socket).expect("reserve");
        lease.claim("test").expect("claim")
    }

    pub(crate) fn shims_in(&self) -> Vec<std::ffi::OsString> {
        match std::fs::read_dir(self.dir.path().join("run/s")) {
            Ok(entries) => entries.map(|entry| entry.expect("entry").file_name()).collect(),
            Err(_absent) => Vec::new(),
        }
    }
}

/// Listens at the shim's socket and gives each connection to the script with its number, from 0.
pub(crate) struct Server {
    accepting: JoinHandle<()>,
    _lease: HeldLease,
}

impl Server {
    pub(crate) fn start<F, A>(scratch: &Scratch, number: u8, script: F) -> Self
    where
        F: Fn(Peer, usize) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let lease = scratch.hold(number);
        let listener = UnixListener::bind(lease.lease().socket.as_path()).expect("bind");
        let count = AtomicUsize::new(0);
        let accepting = tokio::spawn(async move {
            let mut peers = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let peer = Peer { stream, reader: FrameReader::new(1 << 16) };
                peers.spawn(script(peer, count.fetch_add(1, Ordering::Relaxed)));
            }
        });
        Self { accepting, _lease: lease }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The shim's side of one connection.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    reader: FrameReader,
}

impl Peer {
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.reader.next_frame().expect("the client speaks well") {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.reader.push(&buffer[..count]),
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The client may have hung up already; what it got is what counts.
        let _hung_up = self.stream.write_all(bytes).await;
    }

    pub(crate) async fn hear_hello(&mut self) {
        let frame = self.frame().await.expect("a hello");
        assert_eq!((frame.version, frame.kind), (HELLO_VERSION, Kind::Hello));
        decode::<Hello>(&frame.body).expect("a hello");
    }

    pub(crate) async fn answer_hello(&mut self, reply: &HelloReply) {
        self.send(&Frame::new(HELLO_VERSION, Kind::HelloReply, reply).expect("small").to_bytes()).await;
    }

    pub(crate) async fn greet(&mut self) {
        self.hear_hello().await;
        self.answer_hello(&HelloReply::Welcome { version: VERSION, agent: "test".into(), features: vec![] }).await;
    }

    pub(crate) async fn call(&mut self) -> Option<Call> {
        let frame = self.frame().await?;
        assert_eq!((frame.version, frame.kind), (VERSION, Kind::Call));
        Some(decode(&frame.body).expect("a call"))
    }

    pub(crate) async fn reply(&mut self, id: u64, result: Result<Response, ApiError>) {
        self.send(&Frame::new(VERSION, Kind::Reply, &Reply { id, result }).expect("small").to_bytes()).await;
    }

    /// Greets, and answers the `State` with which every attach begins.
    pub(crate) async fn greet_and_tell_state(&mut self) {
        self.greet().await;
        let call = self.call().await.expect("a call");
        assert_eq!(call.request, Request::State);
        self.reply(call.id, Ok(Response::State(TaskState::Empty))).await;
    }
}

#[track_caller]
pub(crate) fn alive(found: Attached) -> std::sync::Arc<dyn Shim> {
    match found {
        Attached::Alive { shim, .. } => shim,
        other => panic!("not alive: {other:?}"),
    }
}

pub(crate) async fn attach(scratch: &Scratch, number: u8) -> std::sync::Arc<dyn Shim> {
    alive(scratch.client.attach(&namespace(), &id(number)).await.expect("attach"))
}
