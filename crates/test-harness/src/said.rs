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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_parts_is_one_line() {
        let log = "t stdout F one\nt stdout P t\nt stderr F no\nt stdout P w\nt stdout F o\nt stdout P beg";
        assert_eq!(said(log), ["one", "two"]);
    }
}
