//! One module per decoder, each with a `check` that accepts any bytes. Shared with `tests/fuzz_corpus.rs`.

pub mod api_frames;
pub mod flist_block;
pub mod flist_import;
pub mod flist_legacy;
pub mod flist_metadata;
pub mod log_reader;
pub mod oci_config;
pub mod shim_frames;
pub mod spool;
pub mod store_records;

use std::path::{Path, PathBuf};

/// A directory in memory that is empty for every input.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        Self(tempfile::Builder::new().prefix("contd-fuzz-").tempdir_in(base).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
