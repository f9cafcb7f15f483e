//! The little of URLs that routes need: the scheme, the path, and a form that is safe to show.

/// Splits `scheme://rest`. No scheme gives `None`.
pub(crate) fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (!scheme.is_empty() && scheme.chars().all(plain)).then_some((scheme, rest))
}

/// Splits what follows the scheme in `user:password`, if there is any, and the remainder after the `@`.
fn split_userinfo(rest: &str) -> (Option<&str>, &str) {
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    match authority.rfind('@') {
        Some(at) => {
            let (user, _) = authority.split_at(at);
            (Some(user), rest.get(at + 1..).unwrap_or(tail))
        }
        None => (None, rest),
    }
}

/// Gives the URL without its password. The user name stays, as `rfs` does when it packs.
pub(crate) fn strip_password(url: &str) -> String {
    let Some((scheme, rest)) = split_scheme(url) else { return url.to_owned() };
    match split_userinfo(rest) {
        (Some(userinfo), remainder) => {
            let user = userinfo.split_once(':').map_or(userinfo, |(user, _password)| user);
            if user.is_empty() { format!("{scheme}://{remainder}") } else { format!("{scheme}://{user}@{remainder}") }
        }
        (None, _) => url.to_owned(),
    }
}

/// Gives a form for errors and logs: no user, no password, no query (tokens live there), no control characters.
pub(crate) fn redact(url: &str) -> String {
    let shown = match split_scheme(url) {
        Some((scheme, rest)) => {
            let (_, remainder) = split_userinfo(rest);
            let (path, query) =
                remainder.find(['?', '#']).map_or((remainder, ""), |at| (remainder.split_at(at).0, "?..."));
            format!("{scheme}://{path}{query}")
        }
        None => url.to_owned(),
    };
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_SHOWN_CHARS).collect()
}

/// Characters of a URL that an error shows: a hostile route must not fill the log.
const MAX_SHOWN_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_stripped_and_the_user_stays() {
        assert_eq!(strip_password("zdb://me:secret@host:9900/ns"), "zdb://me@host:9900/ns");
        assert_eq!(strip_password("zdb://:secret@host/ns"), "zdb://host/ns");
        assert_eq!(strip_password("dir:///a@b/c"), "dir:///a@b/c");
        assert_eq!(strip_password("http://h/x?y=a:b@c"), "http://h/x?y=a:b@c");
    }

    #[test]
    fn an_error_never_shows_credentials_or_tokens() {
        assert_eq!(redact("s3://me:se@cret@host:9000/bucket?region=x"), "s3://host:9000/bucket?...");
        assert_eq!(redact("http://host/a?token=t"), "http://host/a?...");
        assert_eq!(redact("http://h/\n\u{1b}[2J"), "http://h/\u{fffd}\u{fffd}[2J");
    }
}
