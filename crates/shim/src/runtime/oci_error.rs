//! Classifies the messages of OCI runtimes. The one place where text is matched: a runtime's command has no other language.

use contd_types::ErrorKind;
use serde::Deserialize;

/// The most of a runtime's words that travel.
const MAX_WORDS_BYTES: usize = 2048;

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Finds the last error in a runtime's JSON log.
pub(super) fn last_error(log: &str) -> Option<String> {
    log.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .find(|line| matches!(line.level.as_str(), "error" | "fatal" | "ERROR"))
        .map(|line| capped(&line.msg))
}

/// Cuts a text to what may travel.
pub(super) fn capped(text: &str) -> String {
    let text = text.trim();
    text.get(..text.floor_char_boundary(MAX_WORDS_BYTES)).unwrap_or_default().to_owned()
}

/// Tells whether a delete failed only because there is nothing.
pub(super) fn means_absent(words: &str) -> bool {
    words.contains("does not exist")
}

/// Classifies what a runtime said when it failed to create or start.
pub(crate) fn classify(words: &str) -> ErrorKind {
    let text = words.to_ascii_lowercase();
    let has = |part: &str| text.contains(part);
    // runc: `exec: "x": stat x: no such file or directory`, `exec: "x": executable file not found in $PATH`.
    // crun: "executable file `x` not found". A mount's missing source has no `exec:` in front.
    let is_about_exec = has("exec: \"") || has("executable");
    if is_about_exec && (has("not found") || has("no such file or directory")) {
        return ErrorKind::EntrypointNotFound;
    }
    if has("exec format error") || (is_about_exec && (has("permission denied") || has("is a directory"))) {
        return ErrorKind::EntrypointNotExecutable;
    }
    if ["no space left", "cannot allocate memory", "resource temporarily unavailable", "too many open files"]
        .into_iter()
        .any(has)
    {
        return ErrorKind::OutOfResources;
    }
    let is_about_spec =
        ["error mounting", "mount `", "config.json", "invalid", "namespace path", "unable to find user"];
    if is_about_spec.into_iter().any(has) {
        return ErrorKind::InvalidArgument;
    }
    ErrorKind::Internal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_real_runtimes_are_understood() {
        use ErrorKind as K;
        let create = "runc create failed: unable to start container process: ";
        for (words, kind) in [
            (format!("{create}exec: \"/bin/x\": stat /bin/x: no such file or directory"), K::EntrypointNotFound),
            (format!("{create}exec: \"x\": executable file not found in $PATH"), K::EntrypointNotFound),
            ("executable file `/bin/x` not found: No such file or directory".to_owned(), K::EntrypointNotFound),
            (format!("{create}exec: \"/bin/x\": permission denied"), K::EntrypointNotExecutable),
            ("exec /bin/x: exec format error".to_owned(), K::EntrypointNotExecutable),
            (
                format!("{create}error mounting \"/x\" to rootfs at \"/y\": stat /x: no such file or directory"),
                K::InvalidArgument,
            ),
            ("mkdir /run/runc/x: no space left on device".to_owned(), K::OutOfResources),
            ("something else".to_owned(), K::Internal),
        ] {
            assert_eq!(classify(&words), kind, "{words}");
        }
    }

    #[test]
    fn the_last_error_of_the_log_counts_and_is_capped() {
        let long = "y".repeat(10_000);
        let log = format!(
            "{{\"level\":\"error\",\"msg\":\"first\"}}\nnot json\n{{\"level\":\"error\",\"msg\":\"{long}\"}}\n\
             {{\"level\":\"warning\",\"msg\":\"later\"}}\n"
        );
        assert_eq!(last_error(&log).map(|words| words.len()), Some(MAX_WORDS_BYTES));
        assert_eq!(last_error("{\"level\":\"info\",\"msg\":\"x\"}"), None);
    }
}
