//! Measures the time from the start of a server to the first byte of a file, which the first container of a flist waits
//! for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::forms::time;
use crate::report::{Table, duration};
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{Goal, Samples};

const WARM_ROUNDS: usize = 21;
const COLD_ROUNDS: usize = 5;
/// The goal, in milliseconds.
const GOAL_MS: f64 = 15.0;
/// The most bytes of the file: small, as most are.
const MAX_BYTES: u64 = 16 * 1024;

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let file = setup.tree.some_files(1, MAX_BYTES).pop().expect("a file");
    for (state, rounds, goal) in [("warm", WARM_ROUNDS, Goal::AtMost(GOAL_MS)), ("cold", COLD_ROUNDS, Goal::None)] {
        let prepare = || {
            if state == "cold" {
                setup.run_dir.drop_caches();
            }
        };
        let [mut kept, mut empty, mut native, mut mounted] = <[Samples; 4]>::default();
        for _ in 0..rounds {
            for is_empty in [false, true] {
                let cache = if is_empty { setup.run_dir.path("empty") } else { setup.kept_cache.clone() };
                let server = Server::prepare(&setup.run_dir, &setup.flist, &cache);
                prepare();
                let launched = time(|| server.launch());
                let read = time(|| first_byte(&server.root, &file));
                server.stop();
                if is_empty {
                    std::fs::remove_dir_all(&cache).expect("remove the cache");
                    empty.push(launched + read);
                } else {
                    mounted.push(launched);
                    kept.push(launched + read);
                }
            }
            if let Some(erofs) = setup.erofs.as_ref().filter(|erofs| erofs.is_file_backed()) {
                erofs.unmount();
                prepare();
                native.push(time(|| {
                    erofs.mount();
                    first_byte(&erofs.root, &file);
                }));
            }
        }
        let erofs = if native.count() > 0 { duration(native.median()) } else { "-".to_owned() };
        table.beside(&format!("mount to first byte, {state}, blocks cached"), &kept, duration, &erofs, goal);
        table.beside(&format!("mount to first byte, {state}, no block cached"), &empty, duration, &erofs, Goal::None);
        table.value(&format!("of which until the mount is ready, {state}"), &mounted, duration, Goal::None);
    }
}

fn first_byte(root: &Path, file: &Path) {
    let mut byte = [0];
    File::open(root.join(file)).expect("open a file").read_exact(&mut byte).expect("read a byte");
}
