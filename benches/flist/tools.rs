//! The programs that are run on each form of the tree: those that people use.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::tree::Entry;

/// The number of concurrent readers.
const CATS: usize = 4;

/// Returns the path of one of our programs, which `make bench-flist` has built.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_contd")).with_file_name(name);
    assert!(path.exists(), "{} is missing: make build", path.display());
    path
}

/// Runs a command, which must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Lists the names of the tree.
pub(crate) fn find(root: &Path) {
    run(Command::new("find").arg(".").current_dir(root));
}

/// Reads the attributes of every entry.
pub(crate) fn stat(root: &Path) {
    run(Command::new("find").args([".", "-printf", "%s %m\n"]).current_dir(root));
}

/// Reads the whole tree in the order of its directories. GNU tar reads no content if its output is `/dev/null`, so the
/// output goes to a pipe.
pub(crate) fn tar(root: &Path) {
    let mut command = Command::new("tar");
    command.args(["-cf", "-", "."]).current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("run tar");
    let mut pipe = child.stdout.take().expect("a pipe");
    let mut buffer = vec![0; 1 << 20];
    while pipe.read(&mut buffer).expect("read from tar") > 0 {}
    must_succeed("tar", child);
}

/// The files of the tree in equal parts, each a list for `xargs -0`.
pub(crate) struct Lists(Vec<PathBuf>);

impl Lists {
    /// Writes the lists into `dir`.
    pub(crate) fn write(dir: &Path, files: &[Entry]) -> Self {
        let mut texts = vec![Vec::new(); CATS];
        for (number, file) in files.iter().enumerate() {
            let text = &mut texts[number % CATS];
            text.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
            text.push(0);
        }
        let path = |number: usize| dir.join(format!("list{number}"));
        let write = |(number, text): (usize, &Vec<u8>)| {
            fs::write(path(number), text).expect("write a list");
            path(number)
        };
        Self(texts.iter().enumerate().map(write).collect())
    }

    /// Reads every file, four at a time.
    pub(crate) fn cat(&self, root: &Path) {
        let cats = self.0.iter().map(|list| {
            let mut command = Command::new("xargs");
            command.arg("-0").arg("-a").arg(list).args(["cat", "--"]).current_dir(root);
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("run xargs")
        });
        let cats: Vec<Child> = cats.collect();
        cats.into_iter().for_each(|cat| must_succeed("xargs cat", cat));
    }
}

#[track_caller]
fn must_succeed(what: &str, mut child: Child) {
    let status = child.wait().expect("wait");
    assert!(status.success(), "{what}: {status}");
}
