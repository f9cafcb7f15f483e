//! Classifies error answers of a server. They are text without a code, so only this file matches on their text.

use crate::hash::BlockId;
use crate::store::{Action, StoreError};

/// The most characters of an answer in an error.
const MAX_SHOWN_CHARS: usize = 120;

/// Parts of answers that deny access, of 0-db first, of Redis after the gap; lower case.
const DENIALS: [&str; 9] = [
    "protected",
    "access denied",
    "permission denied",
    "read-only mode",
    "password",
    //
    "noauth",
    "wrongpass",
    "noperm",
    "readonly",
];

/// Parts of answers for a missing namespace.
const ABSENCES: [&str; 3] = ["namespace not found", "invalid db index", "db index is out of range"];

/// Parts of answers that ask for a retry.
const DELAYS: [&str; 4] = ["temporarily", "loading", "tryagain", "busy"];

/// Converts an answer to an error of the matching class.
pub(super) fn classify(
    answer: &str,
    password: Option<&[u8]>,
    action: Action,
    store: String,
    id: &BlockId,
) -> StoreError {
    let plain = answer.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| plain.contains(part));
    let (id, answer) = (*id, shown(answer, password));
    if says(&ABSENCES) {
        StoreError::NoStore { store }
    } else if says(&DELAYS) {
        StoreError::Answer { action, store, id, answer, is_transient: true }
    } else if says(&DENIALS) {
        StoreError::Denied { action, store, id, answer }
    } else {
        StoreError::Answer { action, store, id, answer, is_transient: false }
    }
}

/// Makes an answer safe to show: a server knows our password, and may send any text.
fn shown(answer: &str, password: Option<&[u8]>) -> String {
    let password = password.map(String::from_utf8_lossy);
    if password.is_some_and(|password| answer.contains(password.as_ref())) {
        return "(not shown: it repeats the password)".to_owned();
    }
    answer.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FlistErrorKind;

    #[test]
    fn the_answers_of_a_server_have_their_class() {
        let understood = |answer: &str| {
            classify(answer, Some(b"secret"), Action::Get, "zdb://h/ns".to_owned(), &BlockId::new([1; 32]))
        };
        for (answer, kind, transient) in [
            ("Namespace protected and private", FlistErrorKind::Denied, false),
            ("Access denied", FlistErrorKind::Denied, false),
            ("NOAUTH Authentication required.", FlistErrorKind::Denied, false),
            ("WRONGPASS invalid username-password pair", FlistErrorKind::Denied, false),
            ("Namespace is in read-only mode", FlistErrorKind::Denied, false),
            ("Namespace not found", FlistErrorKind::Unreachable, false),
            ("ERR DB index is out of range", FlistErrorKind::Unreachable, false),
            ("Namespace is temporarily locked (read-only)", FlistErrorKind::Unreachable, true),
            ("LOADING Redis is loading the dataset in memory", FlistErrorKind::Unreachable, true),
            ("No space left on this namespace", FlistErrorKind::Unreachable, false),
        ] {
            let error = understood(answer);
            assert_eq!((error.kind(), error.is_transient()), (kind, transient), "{answer}: {error}");
        }
        let shown = understood("ERR you said secret\r\n").to_string();
        assert!(!shown.contains("secret"), "{shown}");
        let shown = understood(&format!("ERR \x1b[2J{}", "x".repeat(500))).to_string();
        assert!(!shown.contains('\x1b') && shown.len() < 400, "{shown}");
    }
}
