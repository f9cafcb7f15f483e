//! A file system for tests: works on a real directory and fails the n-th operation on request, before, in the middle of
//! or after it. It also counts the bytes read from open files, and can make these reads hang.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::fs::{FileId, Fs, ReadFile, RealFs};

/// One method of [`Fs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is documented at `Fs`")]
pub enum Operation {
    Read,
    Open,
    Id,
    List,
    CreateDirAll,
    WriteNew,
    Append,
    SyncFile,
    SyncDir,
    Rename,
    RemoveFile,
    RemoveDir,
    RemoveDirAll,
    Exists,
    Len,
}

/// One call that a test or the code under test made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method that was called.
    pub operation: Operation,
    /// The path it was called with; for a rename, the old name.
    pub path: PathBuf,
}

/// The moment within an operation at which it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails before it has done anything.
    Before,
    /// Half of the bytes are written; an operation that writes none does nothing.
    Torn,
    /// The operation is done completely, and returns an error all the same.
    After,
}

#[derive(Debug)]
struct Plan {
    at: usize,
    is_lasting: bool,
    errno: i32,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Script {
    calls: Vec<Call>,
    plan: Option<Plan>,
}

/// Works on the real disk and fails by plan. Operations are counted from 1, beginning with the last call that set a
/// plan.
#[derive(Debug, Default)]
pub struct FaultyFs {
    script: Mutex<Script>,
    pieces: Arc<Pieces>,
}

/// Counts the bytes read from open files, and makes such reads hang on request.
#[derive(Debug, Default)]
pub struct Pieces {
    state: Mutex<PiecesState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PiecesState {
    bytes: u64,
    is_held: bool,
    waiting: usize,
}

impl Pieces {
    /// Returns how many bytes were read from open files so far.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Makes every later read from an open file hang until [`Self::release`].
    pub fn hold(&self) {
        self.state().is_held = true;
    }

    /// Ends the effect of [`Self::hold`]: hanging reads continue.
    pub fn release(&self) {
        self.state().is_held = false;
        self.changed.notify_all();
    }

    /// Returns the number of reads that hang.
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    fn state(&self) -> MutexGuard<'_, PiecesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self) {
        let mut state = self.state();
        state.waiting += 1;
        while state.is_held {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}

/// An open file of a [`FaultyFs`].
#[derive(Debug)]
struct Counted {
    file: Box<dyn ReadFile>,
    pieces: Arc<Pieces>,
}

impl ReadFile for Counted {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.pieces.pass();
        let count = self.file.read_at(buffer, offset)?;
        self.pieces.state().bytes += u64::try_from(count).unwrap_or(u64::MAX);
        Ok(count)
    }

    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
}

impl FaultyFs {
    /// Makes a file system that does not fail yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans one failure, at the n-th operation from now, and forgets the calls so far.
    pub fn fail_at(&self, n: usize, errno: i32, fault: Fault) {
        self.plan(Some(Plan { at: n, is_lasting: false, errno, fault }));
    }

    /// Plans that the n-th operation from now and all after it fail, and forgets the calls so far.
    pub fn fail_from(&self, n: usize, errno: i32, fault: Fault) {
        self.plan(Some(Plan { at: n, is_lasting: true, errno, fault }));
    }

    /// Drops the plan, and forgets the calls so far.
    pub fn heal(&self) {
        self.plan(None);
    }

    /// Returns the calls since the last plan, in order, the failed ones included.
    pub fn calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    /// Returns how many operations were asked for since the last plan.
    pub fn count(&self) -> usize {
        self.script().calls.len()
    }

    /// Returns the counter and control of reads from open files.
    pub fn pieces(&self) -> Arc<Pieces> {
        Arc::clone(&self.pieces)
    }

    fn plan(&self, plan: Option<Plan>) {
        let mut script = self.script();
        script.calls.clear();
        script.plan = plan;
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, operation: Operation, path: &Path) -> Option<(i32, Fault)> {
        let mut script = self.script();
        script.calls.push(Call { operation, path: path.to_owned() });
        let count = script.calls.len();
        let plan = script.plan.as_ref()?;
        let is_due = if plan.is_lasting { count >= plan.at } else { count == plan.at };
        is_due.then_some((plan.errno, plan.fault))
    }

    fn run<T>(&self, operation: Operation, path: &Path, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.run_torn(operation, path, work, || Ok(()))
    }

    fn run_torn<T>(
        &self,
        operation: Operation,
        path: &Path,
        work: impl FnOnce() -> io::Result<T>,
        half: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<T> {
        let Some((errno, fault)) = self.next(operation, path) else { return work() };
        match fault {
            Fault::Before => {}
            Fault::Torn => half()?,
            Fault::After => {
                work()?;
            }
        }
        Err(io::Error::from_raw_os_error(errno))
    }
}

fn half(bytes: &[u8]) -> &[u8] {
    bytes.get(..bytes.len() / 2).unwrap_or_default()
}

impl Fs for FaultyFs {
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        self.run(Operation::Read, path, || RealFs.read(path, max_bytes))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = self.run(Operation::Open, path, || RealFs.open(path))?;
        Ok(Box::new(Counted { file, pieces: Arc::clone(&self.pieces) }))
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        self.run(Operation::Id, path, || RealFs.id(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.run(Operation::List, dir, || RealFs.list(dir))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.run(Operation::CreateDirAll, path, || RealFs.create_dir_all(path, mode))
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let whole = || RealFs.write_new(path, bytes, mode);
        self.run_torn(Operation::WriteNew, path, whole, || RealFs.write_new(path, half(bytes), mode))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let whole = || RealFs.append(path, bytes);
        self.run_torn(Operation::Append, path, whole, || RealFs.append(path, half(bytes)))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::SyncFile, path, || RealFs.sync_file(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::SyncDir, path, || RealFs.sync_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Rename, from, || RealFs.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::RemoveFile, path, || RealFs.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::RemoveDir, path, || RealFs.remove_dir(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.run(Operation::RemoveDirAll, path, || RealFs.remove_dir_all(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.run(Operation::Exists, path, || RealFs.exists(path))
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.run(Operation::Len, path, || RealFs.len(path))
    }
}
