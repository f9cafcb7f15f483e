//! Reads all content of the tree: by one reader in the order of the directories, and by four at once.

use crate::forms::{Comparison, Form};
use crate::report::Table;
use crate::rfs;
use crate::setup::Setup;
use crate::stats::Goal;
use crate::tools::tar;

const COLD_ROUNDS: usize = 3;
const WARM_ROUNDS: usize = 7;

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let cold = Comparison::cold(setup, COLD_ROUNDS, &Form::ALL, tar);
    table.kept("tar, cold, blocks cached", &cold, Goal::AtMost(2.0), Some(rfs::TAR_KEPT));
    table.empty("tar, cold, no block cached", &cold, Goal::None, Some(rfs::TAR_EMPTY));
    let warm = Comparison::warm(setup, WARM_ROUNDS, tar);
    table.kept("tar, warm", &warm, Goal::AtMost(1.1), Some(rfs::TAR_WARM));
    let cold = Comparison::cold(setup, COLD_ROUNDS, &Form::ALL, |root| setup.lists.cat(root));
    table.kept("4 cats, cold, blocks cached", &cold, Goal::None, Some(rfs::CATS_KEPT));
    table.empty("4 cats, cold, no block cached", &cold, Goal::None, Some(rfs::CATS_EMPTY));
    let warm = Comparison::warm(setup, WARM_ROUNDS, |root| setup.lists.cat(root));
    table.kept("4 cats, warm", &warm, Goal::AtMost(1.1), Some(rfs::CATS_WARM));
}
