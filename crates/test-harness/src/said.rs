//! The lines that a container has written, put together from the records of its log.

/// Returns the whole lines of standard output in a log of the CRI form. A line may lie in several records, wherever the shim's
/// reading was cut: all but the last are marked `P`. One that is not ended yet is left out.
pub fn said(log: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for record in log.lines() {
        if let Some((_, part)) = record.split_once(" stdout P ") {
            begun.push_str(part);
        } else if let Some((_, rest)) = record.split_once(" stdout F ") {
            begun.push_str(rest);
            lines.push(std::mem::take(&mut begun));
        }
    }
    lines
}

/// Demands that a container has said `line 1`, `line 2` and so on: no line is missing or doubled, and there is one.
#[track_caller]
pub fn assert_counted(lines: &[impl AsRef<str>]) {
    assert!(!lines.is_empty(), "it has said nothing");
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(
            line.as_ref(),
            format!("line {}", at + 1),
            "lines were lost or doubled, or a file could not be read"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_parts_is_one_line() {
        let log = "t stdout F one\nt stdout P t\nt stderr F no\nt stdout P w\nt stdout F o\nt stdout P beg";
        assert_eq!(said(log), ["one", "two"]);
    }

    #[test]
    fn a_hole_and_a_doubled_line_are_found() {
        let is_whole = |lines: &[&str]| std::panic::catch_unwind(|| assert_counted(lines)).is_ok();
        assert!(is_whole(&["line 1", "line 2"]));
        for lines in [[].as_slice(), &["line 2"], &["line 1", "line 3"], &["line 1", "line 1"], &["line 1", "oops"]] {
            assert!(!is_whole(lines), "{lines:?}");
        }
    }
}
