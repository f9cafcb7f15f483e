//! Reads names and attributes of the whole tree, cold and warm. No content is read, so the block cache makes no
//! difference.

use crate::forms::{Comparison, Form};
use crate::report::Table;
use crate::rfs;
use crate::setup::Setup;
use crate::stats::Goal;
use crate::tools::{find, stat};

const COLD_ROUNDS: usize = 7;
const WARM_ROUNDS: usize = 11;

pub(crate) fn measure(setup: &Setup, table: &mut Table) {
    let cold = Comparison::cold(setup, COLD_ROUNDS, &Form::WALKED, find);
    table.kept("find, cold", &cold, Goal::AtMost(1.5), Some(rfs::FIND_COLD));
    let warm = Comparison::warm(setup, WARM_ROUNDS, find);
    table.kept("find, warm", &warm, Goal::None, Some(rfs::FIND_WARM));
    let cold = Comparison::cold(setup, COLD_ROUNDS, &Form::WALKED, stat);
    table.kept("stat of all, cold", &cold, Goal::AtMost(1.5), Some(rfs::STAT_COLD));
    let warm = Comparison::warm(setup, WARM_ROUNDS, stat);
    table.kept("stat of all, warm", &warm, Goal::None, Some(rfs::STAT_WARM));
}
