//! Opens, reads and closes one small file: the median and the 99th percentile of many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::forms::{Comparison, Form, on_cold, time};
use crate::report::Table;
use crate::server::Server;
use crate::setup::Setup;
use crate::stats::{Goal, Samples};

const ROUNDS: usize = 5;
/// The number of files: enough that the 99th percentile is more than one file.
const FILES: usize = 500;
/// The most bytes of a small file: most files of a root file system are smaller.
const MAX_BYTES: u64 = 16 * 1024;

/// The median and the 99th percentile.
#[derive(Default)]
struct Latency {
    middle: Vec<(Form, Duration)>,
    slow: Vec<(Form, Duration)>,
}

impl Latency {
    fn add(&mut self, form: Form, samples: &Samples) {
        let at = |quantile| Duration::from_secs_f64(samples.quantile(quantile) / 1e3);
        self.middle.push((form, at(0.5)));
        self.slow.push((form, at(0.99)));
    }
}

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let files = setup.tree.some_files(FILES, MAX_BYTES);
    let [mut middle, mut slow] = [Comparison::default(), Comparison::default()];
    for _ in 0..ROUNDS {
        let mut latency = Latency::default();
        for form in Form::ALL {
            if let Some(samples) = on_cold(setup, form, |root| read_each(root, &files)) {
                latency.add(form, &samples);
            }
        }
        middle.push(&latency.middle);
        slow.push(&latency.slow);
    }
    table.kept("small file, p50, cold, blocks cached", &middle, Goal::None, None);
    table.kept("small file, p99, cold, blocks cached", &slow, Goal::None, None);
    table.empty("small file, p50, cold, no block cached", &middle, Goal::None, None);
    table.empty("small file, p99, cold, no block cached", &slow, Goal::None, None);
    warm(setup, table, &files);
}

fn warm(setup: &Setup, table: &mut Table, files: &[PathBuf]) {
    let server = Server::start(&setup.run_dir, &setup.flist, &setup.kept_cache);
    let erofs = setup.erofs.as_ref().map(|erofs| (Form::Erofs, erofs.root.as_path()));
    let roots = [(Form::Ext4, setup.ext4.root.as_path())].into_iter().chain(erofs);
    let roots: Vec<_> = roots.chain([(Form::Kept, server.root.as_path())]).collect();
    for (_, root) in &roots {
        read_each(root, files);
    }
    let [mut middle, mut slow] = [Comparison::default(), Comparison::default()];
    for _ in 0..ROUNDS {
        let mut latency = Latency::default();
        for &(form, root) in &roots {
            latency.add(form, &read_each(root, files));
        }
        middle.push(&latency.middle);
        slow.push(&latency.slow);
    }
    server.stop();
    table.kept("small file, p50, warm", &middle, Goal::None, None);
    table.kept("small file, p99, warm", &slow, Goal::None, None);
}

fn read_each(root: &Path, files: &[PathBuf]) -> Samples {
    let mut samples = Samples::default();
    for file in files {
        let path = root.join(file);
        samples.push(time(|| drop(fs::read(&path).expect("read a file"))));
    }
    samples
}
