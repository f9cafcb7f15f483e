//! Commands in hints: completed so that they can be pasted as they are, and reach the same daemon and namespace.
//!
//! A hint names a command as `contd VERB ...`, at the end of its text. The edges complete it: the daemon adds the
//! namespace of the request, the command line adds its own flags.

use crate::name::NamespaceId;

/// The verbs that act on the containers of one namespace.
pub const NAMESPACED_VERBS: [&str; 13] =
    ["create", "events", "inspect", "kill", "logs", "ps", "rm", "run", "shim", "start", "stop", "update", "wait"];
/// The beginning of each command.
const PROGRAM: &str = "contd ";

/// Adds `-n NAMESPACE` to each command of a hint that has none, and `flags` (if any) after it.
pub fn complete_commands(hint: &str, namespace: Option<&NamespaceId>, flags: &str) -> String {
    let mut text = String::new();
    let mut rest = hint;
    while let Some(at) = rest.find(PROGRAM) {
        let (before, command) = rest.split_at(at);
        text.push_str(before);
        text.push_str(PROGRAM);
        rest = command.strip_prefix(PROGRAM).unwrap_or_default();
        // Skip the end of another word or of a path.
        if !text.strip_suffix(PROGRAM).is_some_and(|before| before.ends_with(|c: char| is_of_word(c) || c == '/')) {
            rest = complete_command(rest, namespace, flags, &mut text);
        }
    }
    text + rest
}

/// Writes the flags that belong before the verb, and returns the rest of the command.
fn complete_command<'a>(command: &'a str, namespace: Option<&NamespaceId>, flags: &str, text: &mut String) -> &'a str {
    let end = |text: &str| text.find(|c: char| !is_of_word(c)).unwrap_or(text.len());
    if let Some((named, rest)) = command.strip_prefix("-n ").map(|named| named.split_at(end(named))) {
        text.push_str("-n ");
        text.push_str(named);
        if !flags.is_empty() {
            text.push(' ');
            text.push_str(flags);
        }
        return rest;
    }
    if command.get(..end(command)).is_some_and(|verb| NAMESPACED_VERBS.contains(&verb)) {
        if let Some(namespace) = namespace {
            text.push_str(&format!("-n {namespace} "));
        }
        if !flags.is_empty() {
            text.push_str(flags);
            text.push(' ');
        }
    }
    command
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_what_it_lacks_and_other_text_stays() {
        let blue = NamespaceId::new("blue").expect("valid");
        for (hint, named, flagged) in [
            ("see: contd ps -a", "see: contd -n blue ps -a", "see: contd -n blue --address /s ps -a"),
            ("contd -n red inspect ab", "contd -n red inspect ab", "contd -n red --address /s inspect ab"),
            (
                "a: contd ps, b: contd logs x",
                "a: contd -n blue ps, b: contd -n blue logs x",
                "a: contd -n blue --address /s ps, b: contd -n blue --address /s logs x",
            ),
            ("`contd ps -a`", "`contd -n blue ps -a`", "`contd -n blue --address /s ps -a`"),
        ] {
            assert_eq!(complete_commands(hint, Some(&blue), ""), named);
            assert_eq!(complete_commands(hint, Some(&blue), "--address /s"), flagged);
            assert_eq!(complete_commands(named, None, "--address /s"), flagged);
        }
        for other in [
            "start `contd daemon`, or",
            "the socket of a contd daemon?",
            "look at /usr/bin/contd ps",
            "not-contd ps",
            "contd psst",
            "contd ",
            "",
            "nothing é",
        ] {
            assert_eq!(complete_commands(other, Some(&blue), "--address /s"), other);
        }
    }

    proptest::proptest! {
        #[test]
        fn completing_twice_is_completing_once(hint in "(contd |-n |ps|red|é| ){0,8}") {
            let blue = NamespaceId::new("blue").expect("valid");
            let once = complete_commands(&hint, Some(&blue), "");
            proptest::prop_assert_eq!(complete_commands(&once, Some(&blue), ""), once);
        }
    }
}
