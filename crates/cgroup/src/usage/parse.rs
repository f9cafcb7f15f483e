//! The formats of the kernel's files: a number, or lines of a key and a number.

/// The first number; `None` for `max` and for nothing.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind a key.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// The sum of the numbers behind `key=` over all lines, as in `io.stat`; `None` when no line has it.
pub(super) fn summed(text: &str, key: &str) -> Option<u64> {
    let numbers = text.split_ascii_whitespace().filter_map(|word| number(word.strip_prefix(key)?.strip_prefix('=')?));
    numbers.fold(None, |sum: Option<u64>, number| Some(sum.unwrap_or(0).saturating_add(number)))
}

/// The sum over all devices of the lines `MAJOR:MINOR OPERATION NUMBER`. A cgroup that did nothing has only the line `Total 0`.
pub(super) fn of_operation(text: &str, operation: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["Total", _] => Some(0),
            [_device, name, count] if *name == operation => number(count),
            _ => None,
        }
    };
    text.lines()
        .filter_map(of_line)
        .fold(None, |sum: Option<u64>, number| Some(sum.unwrap_or(0).saturating_add(number)))
}

/// The total of the line `some` of a pressure file, in microseconds.
pub(super) fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    summed(some, "total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_whole_key_and_nothing_is_made_of_nothing() {
        let stat = "anon 4096\nfile 8192\ninactive_file 12\nfile_mapped 3\n";
        assert_eq!(
            (keyed(stat, "file"), keyed(stat, "inactive_file"), keyed(stat, "shmem")),
            (Some(8192), Some(12), None)
        );
        let io = "253:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 rbytes=5 wbytes=1 rios=1 wios=1\n";
        assert_eq!((summed(io, "rbytes"), summed(io, "wios"), summed("", "rbytes")), (Some(15), Some(3), None));
        let bytes = "8:0 Read 4096\n8:0 Write 100\n8:16 Read 4\nTotal 4200\n";
        assert_eq!((of_operation(bytes, "Read"), of_operation(bytes, "Write")), (Some(4100), Some(100)));
        assert_eq!((of_operation("Total 0\n", "Read"), of_operation("", "Read")), (Some(0), None));
        assert_eq!((number("max\n"), number("42\n"), number("")), (None, Some(42), None));
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!((pressure(psi), pressure("")), (Some(77), None));
    }
}
