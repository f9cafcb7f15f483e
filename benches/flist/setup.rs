//! The setup of all measurements: the tree in all its forms, packed once, and a full block cache.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use contd_flist::{FetchedFlist, FlistSource, fetch};

use crate::native::{Erofs, Ext4};
use crate::run_dir::RunDir;
use crate::server::Server;
use crate::tools::{Lists, binary, run};
use crate::tree::Tree;

/// The setup of a run.
pub(crate) struct Setup {
    pub(crate) tree: Tree,
    pub(crate) ext4: Ext4,
    pub(crate) erofs: Option<Erofs>,
    pub(crate) lists: Lists,
    /// The packed `.fl`.
    pub(crate) packed: PathBuf,
    pub(crate) flist: FetchedFlist,
    /// A cache with every block of the flist.
    pub(crate) kept_cache: PathBuf,
    /// The run directory; the last field, because the mounts are in it.
    pub(crate) run_dir: RunDir,
}

impl Setup {
    pub(crate) fn prepare() -> Self {
        let run_dir = RunDir::open();
        let tree = timed("the tree", || Tree::make(&run_dir.dir("tree")));
        let ext4 = Ext4::of(&run_dir, &tree);
        let erofs = timed("EROFS", || Erofs::of(&run_dir, &tree));
        let lists = Lists::write(&run_dir.dir("lists"), &tree.files);
        let packed = run_dir.path("tree.fl");
        let store = format!("dir://{}", run_dir.path("store").display());
        timed("the flist", || {
            let mut pack = Command::new(binary("contd"));
            run(pack.args(["flist", "pack"]).arg(&tree.root).arg(&packed).args(["--store", &store]));
        });
        let kept_cache = run_dir.dir("kept");
        let flist = fetch(&FlistSource::File(packed.clone()), &kept_cache, &|_| ()).expect("fetch the flist");
        timed("its block cache", || {
            let server = Server::start(&run_dir, &flist, &kept_cache);
            lists.cat(&server.root);
            server.stop();
        });
        run_dir.sync();
        Self { tree, ext4, erofs, lists, packed, flist, kept_cache, run_dir }
    }

    /// Describes the tree and the machine of the measurement.
    pub(crate) fn describe(&self) -> String {
        let kernel = nix::sys::utsname::uname().expect("uname");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        format!(
            "Tree: {} entries, {} files, {} MiB. ext4: {}. EROFS: {}. Linux {}, {cores} cores, load at the end {}.",
            self.tree.entries,
            self.tree.files.len(),
            self.tree.bytes >> 20,
            self.ext4.how,
            self.erofs.as_ref().map_or("none", |erofs| erofs.how),
            kernel.release().display(),
            load.split(' ').next().unwrap_or("?"),
        )
    }

    /// Asserts that nothing is left behind.
    pub(crate) fn finish(self) {
        let Self { ext4, erofs, run_dir, .. } = self;
        drop((ext4, erofs));
        run_dir.remove();
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    eprintln!("made {what} in {:.1} s", begin.elapsed().as_secs_f64());
    result
}
