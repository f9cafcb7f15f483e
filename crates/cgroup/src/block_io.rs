//! The weight of block I/O: which file takes it depends on the scheduler that the kernel was built with.

use std::path::Path;

use crate::cgroup::write;
use crate::error::CgroupError;

const FIELD: &str = "linux.resources.blockIO.weight";
/// The range of v1's weights, and of those of bfq.
const MIN: u64 = 10;
const MAX: u64 = 1000;
/// The largest weight of v2's `io.weight`.
const MAX_V2: u64 = 10_000;

/// Writes the weight to the first of these files that there is; those of bfq take it as it is.
pub(crate) fn apply(dir: &Path, weight: u16, is_v2: bool) -> Result<(), CgroupError> {
    let weight = u64::from(weight);
    let files = if is_v2 {
        [("io.bfq.weight", weight), ("io.weight", on_v2(weight))]
    } else {
        [("blkio.bfq.weight", weight), ("blkio.weight", weight)]
    };
    let found = files.into_iter().find(|(name, _)| dir.join(name).exists());
    let Some((name, value)) = found else { return Err(CgroupError::NoController { field: FIELD }) };
    write(&dir.join(name), &value.to_string(), Some(FIELD))
}

/// Converts a weight of v1 to one of v2, as the OCI runtimes do.
fn on_v2(weight: u64) -> u64 {
    1 + (weight.clamp(MIN, MAX) - MIN) * (MAX_V2 - 1) / (MAX - MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_written_where_this_kernel_takes_it() {
        let dir = tempfile::tempdir().expect("scratch");
        let none = apply(dir.path(), 500, false).expect_err("no file");
        assert_eq!(none.field(), Some(FIELD));
        let text = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("file");
        std::fs::write(dir.path().join("io.weight"), "").expect("file");
        apply(dir.path(), 10, true).expect("written");
        assert_eq!((text("io.weight").as_str(), on_v2(1000)), ("1", 10_000));
        std::fs::write(dir.path().join("io.bfq.weight"), "").expect("file");
        apply(dir.path(), 500, true).expect("written");
        assert_eq!(text("io.bfq.weight"), "500");
        std::fs::write(dir.path().join("blkio.weight"), "").expect("file");
        apply(dir.path(), 300, false).expect("written");
        assert_eq!(text("blkio.weight"), "300");
    }
}
