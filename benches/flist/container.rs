//! `bash -c true` from the tree: `contd run --rm` on its flist, beside chroot into the tree on ext4, which mounts
//! nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::forms::{Comparison, Form, time};
use crate::report::Table;
use crate::rfs;
use crate::setup::Setup;
use crate::stats::Goal;
use crate::tools::run;

const WARM_ROUNDS: usize = 11;
const COLD_ROUNDS: usize = 4;
const KEEPER: &str = "keeper";
/// A command that runs longer than the bench.
const SLEEP: &str = "read -t 600 _ <> <(:)";

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let daemon = Daemon::start(&setup.run_dir);
    let flist = setup.packed.to_str().expect("utf-8");
    let chroot = |root: &Path| run(Command::new("chroot").arg(root).args(["/bin/bash", "-c", "true"]));
    let contained = || daemon.contd(&["run", "--rm", flist, "/bin/bash", "-c", "true"]);
    let native = || time(|| chroot(&setup.ext4.root));
    contained();
    daemon.wait_for_rest();
    chroot(&setup.ext4.root);

    let mut alone = Comparison::default();
    for _ in 0..WARM_ROUNDS {
        alone.push(&[(Form::Ext4, native()), (Form::Kept, time(contained))]);
        daemon.wait_for_rest();
    }
    table.kept("start of a container, warm, flist not mounted", &alone, Goal::None, None);

    daemon.contd(&["run", "-d", "--name", KEEPER, flist, "/bin/bash", "-c", SLEEP]);
    let mut shared = Comparison::default();
    for _ in 0..WARM_ROUNDS {
        shared.push(&[(Form::Ext4, native()), (Form::Kept, time(contained))]);
    }
    daemon.contd(&["rm", "-f", "-t", "0", KEEPER]);
    daemon.wait_for_rest();
    table.kept("start of a container, warm, flist mounted", &shared, Goal::None, None);

    let mut cold = Comparison::default();
    for _ in 0..COLD_ROUNDS {
        setup.run_dir.drop_caches();
        let native = native();
        setup.run_dir.drop_caches();
        let kept = time(contained);
        daemon.wait_for_rest();
        fs::remove_dir_all(daemon.blocks()).expect("empty the block cache");
        setup.run_dir.drop_caches();
        let empty = time(contained);
        daemon.wait_for_rest();
        cold.push(&[(Form::Ext4, native), (Form::Kept, kept), (Form::Empty, empty)]);
    }
    table.kept("start of a container, cold, blocks cached", &cold, Goal::None, Some(rfs::START_KEPT));
    table.empty("start of a container, cold, no block cached", &cold, Goal::None, Some(rfs::START_EMPTY));
    daemon.finish();
}
