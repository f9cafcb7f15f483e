//! One server as the daemon starts it, and calls to it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::flistfs::{
    CacheLimits, Call, Reply, Request, Response, SERVE_SPEC_VERSION, ServeSpec, Status, VERSIONS,
};
use contd_protocol::{Frame, FrameReader, Hello, HelloReply, Kind, MAX_CONTROL_BODY_BYTES};
use contd_types::{ApiError, ErrorKind};

use contd_test_harness::mounted::{servers, wait_until};

pub const BINARY: &str = env!("CARGO_BIN_EXE_contd-flistfs");

pub struct Server {
    pub dir: PathBuf,
    pub mnt: PathBuf,
}

impl Server {
    /// Does what the daemon does: reserve, write down, start.
    pub fn prepare(scratch: &Path, flist: &Path) -> Self {
        Self::prepare_from(scratch, flist, &flist.display().to_string())
    }

    /// As it does for a flist that was fetched from `source`.
    pub fn prepare_from(scratch: &Path, flist: &Path, source: &str) -> Self {
        let dir = scratch.join("lease");
        let mnt = dir.join("mnt");
        LeaseDir::new(&dir).reserve("test", &dir.join("sock")).expect("reserve");
        std::fs::create_dir_all(&mnt).unwrap();
        let spec = ServeSpec {
            version: SERVE_SPEC_VERSION,
            flist: flist.to_owned(),
            hash: "00".repeat(32),
            mount_point: mnt.clone(),
            cache: scratch.join("cache"),
            source: source.to_owned(),
            cache_limits: CacheLimits::default(),
            limited_routes: None,
            operation: None,
        };
        std::fs::write(dir.join("serve.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        Self { dir, mnt }
    }

    pub fn launch(&self) -> Output {
        Command::new(BINARY).arg("--dir").arg(&self.dir).output().expect("run")
    }

    pub fn start(scratch: &Path, flist: &Path) -> Self {
        let server = Self::prepare(scratch, flist);
        let output = server.launch();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        server
    }

    pub fn call(&self, request: Request) -> Result<Response, ApiError> {
        let mut stream = UnixStream::connect(self.dir.join("sock")).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
        let mut frames = FrameReader::new(MAX_CONTROL_BODY_BYTES);
        let hello = Hello { versions: VERSIONS, agent: "test".to_owned() };
        stream.write_all(&Frame::new(0, Kind::Hello, &hello).unwrap().to_bytes()).unwrap();
        let reply: HelloReply = contd_protocol::decode(&frame(&mut stream, &mut frames).body).unwrap();
        let HelloReply::Welcome { version, .. } = reply else { panic!("{reply:?}") };
        stream.write_all(&Frame::new(version, Kind::Call, &Call { id: 3, request }).unwrap().to_bytes()).unwrap();
        let reply: Reply = contd_protocol::decode(&frame(&mut stream, &mut frames).body).unwrap();
        assert_eq!(reply.id, 3);
        reply.result
    }

    pub fn status(&self) -> Status {
        match self.call(Request::Status) {
            Ok(Response::Status(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    pub fn stop(&self) {
        // A process that another test forks has our files open until it executes its program.
        wait_until("nothing of the mount to be open", || match self.call(Request::Shutdown) {
            Ok(Response::Done) => true,
            // Once it is unmounted it ends by itself, as soon as it is not used any more.
            Err(ApiError { kind: ErrorKind::Busy, .. }) => !is_mounted(&self.mnt),
            other => panic!("{other:?}"),
        });
        self.wait_for_end();
        LeaseDir::new(&self.dir).retire().expect("retire");
    }

    pub fn wait_for_end(&self) {
        let lease = LeaseDir::new(&self.dir);
        wait_until("the server has ended", || matches!(lease.probe().unwrap(), LeaseState::Dead(_)));
        wait_until("the process is gone", || servers(&self.dir).is_empty());
    }
}

impl Drop for Server {
    /// Only after a failed test is there still something to clear away.
    fn drop(&mut self) {
        let _usually_not_mounted = nix::mount::umount2(&self.mnt, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn is_mounted(point: &Path) -> bool {
    contd_mountinfo::read().unwrap().iter().any(|line| line.point == point)
}

pub fn frame(stream: &mut UnixStream, frames: &mut FrameReader) -> Frame {
    let mut chunk = [0; 1024];
    loop {
        if let Some(frame) = frames.next_frame().unwrap() {
            return frame;
        }
        let len = stream.read(&mut chunk).expect("an answer");
        assert!(len > 0, "the server closed");
        frames.push(&chunk[..len]);
    }
}
