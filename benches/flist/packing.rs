//! Packs and unpacks a flist. The floor is the work that every packer must do: read each block, hash it, seal it, with
//! the same library calls on all cores, and keep nothing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contd_flist::{BLOCK_SIZE, block};

use crate::forms::{Form, on_cold, time};
use crate::report::{Table, duration, throughput};
use crate::rfs;
use crate::setup::Setup;
use crate::stats::{Goal, Samples};
use crate::tools::{binary, run};

const WARM_ROUNDS: usize = 3;
const COLD_ROUNDS: usize = 2;
/// The goal: fifteen times as fast as `rfs`, which was measured beside ext4.
const TIMES_RFS: f64 = 15.0;

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    warm(setup, table);
    cold(setup, table);
    unpack(setup, table);
}

fn warm(setup: &Setup, table: &mut Table) {
    let mib = setup.tree.bytes as f64 / f64::from(1 << 20);
    let [mut ours, mut floor, mut cats] = <[Samples; 3]>::default();
    let [mut over_floor, mut over_cats, mut speed] = <[Samples; 3]>::default();
    setup.lists.cat(&setup.tree.root);
    for _ in 0..WARM_ROUNDS {
        let sealed = time(|| seal_all(setup));
        let read = time(|| setup.lists.cat(&setup.tree.root));
        let packed = pack(setup);
        over_floor.push_value(packed.as_secs_f64() / sealed.as_secs_f64());
        over_cats.push_value(packed.as_secs_f64() / read.as_secs_f64());
        speed.push_value(mib / packed.as_secs_f64());
        ours.push(packed);
        floor.push(sealed);
        cats.push(read);
    }
    table.value("pack, warm", &speed, throughput, Goal::None);
    let texts = |theirs: &Samples| [duration(ours.median()), duration(theirs.median())];
    table.over("pack, warm, beside read + hash + seal", texts(&floor), &over_floor, Goal::AtMost(1.3));
    table.over("pack, warm, beside 4 cats", texts(&cats), &over_cats, Goal::None);
}

fn cold(setup: &Setup, table: &mut Table) {
    let [mut ours, mut cats, mut ratios] = <[Samples; 3]>::default();
    for _ in 0..COLD_ROUNDS {
        let read = on_cold(setup, Form::Ext4, |root| time(|| setup.lists.cat(root))).expect("ext4 is there");
        setup.run_dir.drop_caches();
        let packed = pack(setup);
        ratios.push_value(packed.as_secs_f64() / read.as_secs_f64());
        ours.push(packed);
        cats.push(read);
    }
    let texts = [duration(ours.median()), duration(cats.median())];
    let goal = Goal::AtMost(rfs::PACK_COLD / TIMES_RFS);
    table.over_rfs("pack, cold, beside 4 cats from ext4, cold", texts, &ratios, goal, Some(rfs::PACK_COLD));
}

/// Packs into a new store, as users do. The store is removed afterwards, outside of the measured time.
fn pack(setup: &Setup) -> Duration {
    let (out, store) = (setup.run_dir.path("again.fl"), setup.run_dir.path("again"));
    let url = format!("dir://{}", store.display());
    let mut command = Command::new(binary("contd"));
    command.args(["flist", "pack"]).arg(&setup.tree.root).arg(&out).args(["--store", &url]);
    setup.run_dir.sync();
    let took = time(|| run(&mut command));
    fs::remove_dir_all(&store).expect("remove the store");
    fs::remove_file(&out).expect("remove the flist");
    took
}

/// Reads, hashes and seals every block, on all cores.
fn seal_all(setup: &Setup) {
    let files = &setup.tree.files;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut plain = vec![0; BLOCK_SIZE];
        while let Some(entry) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = File::open(setup.tree.root.join(&entry.path)).expect("open a file");
            let mut at = 0;
            while at < entry.size {
                let len = (entry.size - at).min(BLOCK_SIZE as u64) as usize;
                file.read_exact_at(&mut plain[..len], at).expect("read a file");
                block::seal(&plain[..len]).expect("seal a block");
                at += len as u64;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}

/// Unpacks the flist into a directory without the block cache: from the store.
fn unpack(setup: &Setup, table: &mut Table) {
    let what = "unpack, cold, beside 4 cats from ext4, cold";
    let help = Command::new(binary("contd")).args(["flist", "unpack", "--help"]).output().expect("run contd");
    if !help.status.success() {
        return table.skipped(what, "this contd has no `flist unpack`");
    }
    let [mut ours, mut cats, mut ratios] = <[Samples; 3]>::default();
    for _ in 0..COLD_ROUNDS {
        let read = on_cold(setup, Form::Ext4, |root| time(|| setup.lists.cat(root))).expect("ext4 is there");
        let out = setup.run_dir.path("unpacked");
        setup.run_dir.drop_caches();
        let mut command = Command::new(binary("contd"));
        let unpacked = time(|| run(command.args(["flist", "unpack"]).arg(&setup.packed).arg(&out)));
        fs::remove_dir_all(&out).expect("remove what was unpacked");
        setup.run_dir.sync();
        ratios.push_value(unpacked.as_secs_f64() / read.as_secs_f64());
        ours.push(unpacked);
        cats.push(read);
    }
    let texts = [duration(ours.median()), duration(cats.median())];
    table.over_rfs(what, texts, &ratios, Goal::None, Some(rfs::UNPACK));
}
