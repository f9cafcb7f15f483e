//! A file system that takes questions and never answers: who asks it waits in the kernel, where no signal reaches him.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::libc::O_NONBLOCK;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOSYS: i32 = 38;

/// The mount and its server, a thread of this process.
pub struct DeadFuse {
    point: PathBuf,
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl DeadFuse {
    /// Mounts it. Its root can be looked at; nothing in it can.
    pub fn mount(point: &Path) -> Self {
        fs::create_dir_all(point).expect("make the mount point");
        let device = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open("/dev/fuse");
        let device = device.expect("open /dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("dead"), point, Some("fuse"), MsFlags::empty(), Some(options.as_str())).expect("mount");
        let ends = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicBool::new(false));
        let (told, heard) = (Arc::clone(&ends), Arc::clone(&asked));
        let server = std::thread::spawn(move || serve(device, &told, &heard));
        Self { point: point.to_owned(), ends, asked, server: Some(server) }
    }

    /// Waits until somebody has asked what is never answered: from then on no signal reaches him.
    pub fn until_asked(&self) {
        crate::eventually("somebody to ask the dead file system", || self.asked.load(Ordering::SeqCst).then_some(()));
    }

    /// Ends the server: the kernel gives everyone who waits an error.
    pub fn end(mut self) {
        self.end_now();
    }

    fn end_now(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(server) = self.server.take() {
            let _panicked = server.join();
        }
        let _gone = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

impl Drop for DeadFuse {
    fn drop(&mut self) {
        self.end_now();
    }
}

fn serve(mut device: File, ends: &AtomicBool, asked: &AtomicBool) {
    let mut request = vec![0u8; 256 * 1024];
    while !ends.load(Ordering::SeqCst) {
        let Ok(len) = device.read(&mut request) else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        if len < 40 {
            continue;
        }
        let opcode = u32::from_ne_bytes(request[4..8].try_into().expect("4 bytes"));
        let unique = &request[8..16];
        let (error, body) = match opcode {
            LOOKUP => {
                asked.store(true, Ordering::SeqCst);
                continue;
            }
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => (0, init_out()),
            GETATTR => (0, attr_out()),
            STATFS => (0, statfs_out()),
            _ => (-ENOSYS, Vec::new()),
        };
        let len = u32::try_from(16 + body.len()).expect("small");
        let reply = [&len.to_ne_bytes()[..], &i32::to_ne_bytes(error), unique, &body].concat();
        device.write_all(&reply).expect("the kernel takes the reply");
    }
}

/// `fuse_init_out` of version 7.31, with no features.
fn init_out() -> Vec<u8> {
    let mut out = Vec::new();
    for word in [7u32, 31, 4096, 0, 0, 4096, 1] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.resize(64, 0);
    out
}

/// `fuse_statfs_out` of an empty file system; overlayfs asks for it.
fn statfs_out() -> Vec<u8> {
    let mut out = vec![0; 40];
    for word in [4096u32, 255, 4096, 0] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out.resize(80, 0);
    out
}

/// `fuse_attr_out` of a directory, valid for an hour.
fn attr_out() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&3600u64.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    for word in [1u64, 4096, 8, 0, 0, 0] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    for word in [0u32, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0] {
        out.extend_from_slice(&word.to_ne_bytes());
    }
    out
}
