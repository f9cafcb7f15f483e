//! The forms of the tree, measured in rounds: each round takes every form once, so that noise affects all of them.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::setup::Setup;
use crate::stats::Samples;

/// A form of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Ext4,
    Erofs,
    /// A flist whose blocks are all in the block cache.
    Kept,
    /// A flist whose block cache is empty.
    Empty,
}

impl Form {
    /// All forms.
    pub(crate) const ALL: [Self; 4] = [Self::Ext4, Self::Erofs, Self::Kept, Self::Empty];
    /// The forms for measurements that read no content, where a flist's blocks make no difference.
    pub(crate) const WALKED: [Self; 3] = [Self::Ext4, Self::Erofs, Self::Kept];
}

/// Runs `work` on the root of a form with a cold page cache: for a flist on a server that was just started. `None` if
/// this machine does not have the form.
pub(crate) fn on_cold<T>(setup: &Setup, form: Form, work: impl FnOnce(&Path) -> T) -> Option<T> {
    let (run_dir, flist) = (&setup.run_dir, &setup.flist);
    match form {
        Form::Ext4 => {
            run_dir.drop_caches();
            Some(work(&setup.ext4.root))
        }
        Form::Erofs => setup.erofs.as_ref().map(|erofs| {
            run_dir.drop_caches();
            work(&erofs.root)
        }),
        Form::Kept => Some(served(setup, Server::start(run_dir, flist, &setup.kept_cache), work)),
        Form::Empty => {
            let cache = run_dir.path("empty");
            let result = served(setup, Server::start(run_dir, flist, &cache), work);
            std::fs::remove_dir_all(&cache).expect("remove the cache");
            Some(result)
        }
    }
}

fn served<T>(setup: &Setup, server: Server, work: impl FnOnce(&Path) -> T) -> T {
    setup.run_dir.drop_caches();
    let result = work(&server.root);
    server.stop();
    result
}

/// Measures the time of some work.
pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

/// The results of rounds over the forms, in milliseconds, and per round the ratio of a flist to ext4.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) ext4: Samples,
    pub(crate) erofs: Samples,
    pub(crate) kept: Samples,
    pub(crate) empty: Samples,
    pub(crate) kept_ratio: Samples,
    pub(crate) empty_ratio: Samples,
    pub(crate) has_erofs: bool,
}

impl Comparison {
    /// Runs one round.
    pub(crate) fn round(&mut self, forms: &[Form], mut sample: impl FnMut(Form) -> Option<Duration>) {
        let taken = forms.iter().filter_map(|&form| Some((form, sample(form)?)));
        self.push(&taken.collect::<Vec<_>>());
    }

    /// Adds a round of existing samples; ext4 is the first.
    pub(crate) fn push(&mut self, round: &[(Form, Duration)]) {
        let mut native = Duration::ZERO;
        for &(form, took) in round {
            let over_native = || took.as_secs_f64() / native.as_secs_f64();
            match form {
                Form::Ext4 => {
                    native = took;
                    self.ext4.push(took);
                }
                Form::Erofs => {
                    self.has_erofs = true;
                    self.erofs.push(took);
                }
                Form::Kept => {
                    self.kept_ratio.push_value(over_native());
                    self.kept.push(took);
                }
                Form::Empty => {
                    self.empty_ratio.push_value(over_native());
                    self.empty.push(took);
                }
            }
        }
    }

    /// Runs rounds of some work with a cold page cache.
    pub(crate) fn cold(setup: &Setup, rounds: usize, forms: &[Form], work: impl Fn(&Path)) -> Self {
        let mut comparison = Self::default();
        for _ in 0..rounds {
            comparison.round(forms, |form| on_cold(setup, form, |root| time(|| work(root))));
        }
        comparison
    }

    /// Runs rounds of some work with a warm page cache: once without counting, and then on the same mount.
    pub(crate) fn warm(setup: &Setup, rounds: usize, work: impl Fn(&Path)) -> Self {
        let server = Server::start(&setup.run_dir, &setup.flist, &setup.kept_cache);
        let root = |form: Form| match form {
            Form::Ext4 => Some(setup.ext4.root.as_path()),
            Form::Erofs => setup.erofs.as_ref().map(|erofs| erofs.root.as_path()),
            Form::Kept | Form::Empty => Some(server.root.as_path()),
        };
        Form::WALKED.into_iter().filter_map(root).for_each(&work);
        let mut comparison = Self::default();
        for _ in 0..rounds {
            comparison.round(&Form::WALKED, |form| root(form).map(|root| time(|| work(root))));
        }
        server.stop();
        comparison
    }
}
