//! The program that the containers of this suite run, and what their logs must say afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The code of a container that was let go.
pub(crate) const LET_GO: u64 = 23;
/// The code of one that was told to stop.
pub(crate) const STOPPED: u64 = 7;

/// How many long lines each run begins with: so many that a log of 1 MiB, which a line that is being written may take to
/// 2 MiB, is rotated twice.
const BURST: u64 = 700;

/// Numbers lines: a burst that makes the log rotate twice, then slowly until it may end. Each run is a generation of its
/// own; how far it is, is in the shared directory.
pub(crate) fn count() -> String {
    format!(
        "pad=$(printf '%08000d' 0); g=$(cat /data/gen 2>/dev/null); g=$((g+1)); echo $g >/data/gen.new; busybox mv /data/gen.new /data/gen; i=0; n=0; \
         trap 'echo end $g $n; exit {STOPPED}' TERM; \
         while [ $i -lt {BURST} ]; do i=$((i+1)); echo line $g $i $pad; n=$i; done; \
         while [ ! -e /data/go ]; do i=$((i+1)); echo line $g $i; n=$i; echo $i >/data/at.$g; sleep 0.02; done; \
         echo last $g $i; exit {LET_GO}"
    )
}

/// Numbers lines for ever, slowly.
pub(crate) const BEAT: &str = "i=0; while :; do i=$((i+1)); echo beat $i; sleep 0.05; done";

/// Reads all files of a log, the oldest first, and joins the parts of lines.
pub(crate) fn read_log(path: &Path) -> Result<Vec<String>, String> {
    let mut files = vec![path.to_path_buf()];
    for age in 1.. {
        let aged = PathBuf::from(format!("{}.{age}", path.display()));
        if !aged.exists() {
            break;
        }
        files.push(aged);
    }
    let (mut lines, mut open) = (Vec::new(), String::new());
    for file in files.iter().rev() {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(format!("{} ends in the middle of a line", file.display()));
        }
        for record in text.lines() {
            let mut parts = record.splitn(4, ' ');
            let (_at, stream, tag) = (parts.next(), parts.next(), parts.next());
            let content = parts.next().unwrap_or_default();
            match (stream, tag) {
                // A run that was killed in the middle of a line never ends it: the next one begins behind it.
                (Some("stdout"), Some(tag)) if is_first_line(content) && !open.is_empty() => {
                    open.clear();
                    if tag == "F" { lines.push(content.to_owned()) } else { open.push_str(content) }
                }
                (Some("stdout"), Some("F")) => lines.push(std::mem::take(&mut open) + content),
                (Some("stdout"), Some("P")) => open.push_str(content),
                _ => return Err(format!("{}: no record: {:.120}", file.display(), record)),
            }
        }
    }
    if open.is_empty() { Ok(lines) } else { Err(format!("an unfinished line: {open:.120}")) }
}

fn is_first_line(content: &str) -> bool {
    let mut words = content.split(' ');
    words.next() == Some("line") && words.next().is_some() && words.next() == Some("1")
}

/// A summary of the lines of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    /// How many there are, numbered without a hole.
    pub(crate) lines: u64,
    /// Its last word, and the number in it.
    pub(crate) last: Option<(String, u64)>,
}

/// Demands that the lines of each run are there once and in order; returns the runs.
pub(crate) fn check_count(lines: &[String]) -> Result<BTreeMap<u64, Generation>, String> {
    let mut found: BTreeMap<u64, Generation> = BTreeMap::new();
    let mut current = 0;
    for line in lines {
        let mut words = line.split(' ');
        let word = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(run), Some(number)) = (number(), number()) else { return Err(format!("not a line: {line:.120}")) };
        if run < current {
            return Err(format!("a line of run {run} behind run {current}: {line:.80}"));
        }
        current = run;
        let generation = found.entry(run).or_default();
        if let Some(last) = &generation.last {
            return Err(format!("a line of run {run} behind its last one, {last:?}: {line:.80}"));
        }
        match word {
            "line" if number == generation.lines + 1 => generation.lines = number,
            "line" => return Err(format!("run {run}: line {number} follows line {}", generation.lines)),
            // The trap may come between a line and its being counted.
            "end" if number == generation.lines || number + 1 == generation.lines => {
                generation.last = Some((word.to_owned(), number));
            }
            "last" if number == generation.lines => generation.last = Some((word.to_owned(), number)),
            _ => return Err(format!("run {run}: {line:.80} after line {}", generation.lines)),
        }
    }
    Ok(found)
}

/// Demands `word 1`, `word 2`, … and returns how many there are.
pub(crate) fn check_beats(lines: &[String], word: &str) -> Result<usize, String> {
    for (at, line) in lines.iter().enumerate() {
        let expected = format!("{word} {}", at + 1);
        if *line != expected {
            return Err(format!("{line:.80} in the place of {expected}"));
        }
    }
    Ok(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn a_lost_a_doubled_and_a_late_line_are_noticed() {
        let found = check_count(&lines("line 1 1,line 1 2,end 1 2,line 2 1 000,last 2 1")).expect("whole");
        assert_eq!(found[&1], Generation { lines: 2, last: Some(("end".into(), 2)) });
        for broken in [
            "line 1 1,line 1 3",
            "line 1 1,line 1 1",
            "line 1 1,last 1 2",
            "line 1 1,end 1 1,line 1 2",
            "line 2 1,line 1 1",
            "line 1",
        ] {
            assert!(check_count(&lines(broken)).is_err(), "{broken}");
        }
        assert!(check_beats(&lines("beat 1,beat 3"), "beat").is_err());
        assert_eq!(check_beats(&lines("beat 1,beat 2"), "beat"), Ok(2));
    }
}
