//! Parses URLs of stores: their parts, the form recorded in a flist, and a form that is safe to show.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::Url;

/// The most characters of a URL in an error: a hostile route must not fill the log.
const MAX_SHOWN_CHARS: usize = 300;

/// Splits `scheme://rest`; `None` without a scheme.
#[must_use]
pub fn split_scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (!scheme.is_empty() && scheme.chars().all(plain)).then_some((scheme, rest))
}

/// Splits the text after the scheme into `user:password`, if it has one, and the remainder after the `@`.
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

/// Returns the URL without user and password, and tells whether it had any.
pub(crate) fn take_userinfo(url: &str) -> (String, bool) {
    let Some((scheme, rest)) = split_scheme(url) else { return (url.to_owned(), false) };
    let (userinfo, remainder) = split_userinfo(rest);
    (format!("{scheme}://{remainder}"), userinfo.is_some())
}

/// Returns the URL without its password. The user name stays, as `rfs` does when it packs.
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

/// Returns a form for errors and logs, without user, password, query (it may hold a token) and control characters.
pub(crate) fn redact(url: &str) -> String {
    let shown = match split_scheme(url) {
        Some(("dir", path)) => format!("dir://{path}"),
        Some((scheme, rest)) => {
            let (_, remainder) = split_userinfo(rest);
            let (path, query) =
                remainder.find(['?', '#']).map_or((remainder, ""), |at| (remainder.split_at(at).0, "?..."));
            // An `@` in the remainder may follow a password with a raw `/`, `?` or `#`, so the rest is hidden.
            if remainder.contains('@') { format!("{scheme}://...") } else { format!("{scheme}://{path}{query}") }
        }
        None if url.contains(['@', '?', '#']) => "...".to_owned(),
        None => url.to_owned(),
    };
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_SHOWN_CHARS).collect()
}

/// The parts of the URL of a server. Has no `Debug`: it holds the password.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    /// The user, decoded; empty if there is none.
    pub(crate) user: Vec<u8>,
    /// The password, decoded.
    pub(crate) password: Option<Vec<u8>>,
    /// A name or an address, an IPv6 one without brackets.
    pub(crate) host: String,
    /// The port, if the URL has one.
    pub(crate) port: Option<u16>,
    /// The decoded path after the slash that follows the host; empty if there is none.
    pub(crate) path: Vec<u8>,
    /// The pairs of the query, decoded.
    pub(crate) query: Vec<(String, String)>,
}

impl ServerUrl {
    /// Parses a URL. The reason of a refusal quotes no part of it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        // The parser would drop these characters silently, and the URL shown would differ from the one used.
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("it has a space or a control character");
        }
        let url =
            Url::parse(text).map_err(|_| "it is not a URL; a special character in a password is written as %xx")?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
        let decoded = |part: &str| percent_decode_str(part).collect::<Vec<u8>>();
        Ok(Self {
            user: decoded(url.username()),
            password: url.password().map(decoded),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port(),
            path: decoded(url.path().trim_start_matches('/')),
            query: url.query_pairs().map(|(key, value)| (key.into_owned(), value.into_owned())).collect(),
        })
    }

    /// Writes `host:port`, with the brackets that an IPv6 address needs.
    pub(crate) fn host_and_port(&self, port: u16) -> String {
        if self.host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        // Passwords that should have been encoded.
        assert_eq!(redact("zdb://me:se/cret@host/ns"), "zdb://...");
        assert_eq!(redact("zdb://me:se?cret@host/ns"), "zdb://...");
        assert_eq!(redact("zdb:/me:secret@host/ns"), "...");
        assert_eq!(redact("dir:///a@b/c"), "dir:///a@b/c");
    }

    #[test]
    fn the_parts_of_a_server_are_found_and_decoded() {
        let url = ServerUrl::parse("zdb://me:p%40s%2Fs@[fd00::1]:9901/my%20space?a=b%26c").unwrap();
        assert_eq!((url.user.as_slice(), url.password.as_deref()), (&b"me"[..], Some(&b"p@s/s"[..])));
        assert_eq!((url.host.as_str(), url.port, url.path.as_slice()), ("fd00::1", Some(9901), &b"my space"[..]));
        assert_eq!(url.query, [("a".to_owned(), "b&c".to_owned())]);
        assert_eq!(url.host_and_port(9901), "[fd00::1]:9901");
        let url = ServerUrl::parse("zdb://10.0.0.1").unwrap();
        assert_eq!(url.host_and_port(9900), "10.0.0.1:9900");
        assert_eq!((url.password, url.port), (None, None));
        for text in ["zdb://", "zdb:///ns", "zdb://h:port/ns", "zdb://h:70000", "zdb://a b", "zdb://[::1", "nonsense"] {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }

    /// Parts of URLs, with special characters that make parsing hard.
    fn url_parts() -> impl Strategy<Value = (&'static str, String, String, String)> {
        let scheme =
            prop::sample::select(vec!["zdb", "s3", "s3s", "s3+tls", "http", "https", "server", "ZDB", "x-y.z+1"]);
        // The marker must never be shown, wherever the other characters separate it from the `@`.
        let secret = "[a-z:@/?#%&= ]{0,6}SECRET[a-z:@/?#%&=\n]{0,6}";
        let host = prop::sample::select(vec!["host", "10.0.0.1:9900", "[fd00::1]:80", "", "h:x"]);
        (scheme, secret.prop_map(String::from), host.prop_map(String::from), secret.prop_map(String::from))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn no_secret_is_shown_wherever_it_stands((scheme, secret, host, token) in url_parts()) {
            for url in [
                format!("{scheme}://me:{secret}@{host}/ns"),
                format!("{scheme}://{secret}:pw@{host}/ns"),
                format!("{scheme}://{secret}@{host}"),
                format!("{scheme}://:{secret}@{host}/a/b?region=x"),
                format!("{scheme}://{host}/b?token={token}"),
                format!("{scheme}://me:{secret}@{host}/b?a=1&token={token}#{token}"),
                format!("{scheme}:/me:{secret}@{host}/ns"),
            ] {
                let shown = redact(&url);
                prop_assert!(!shown.contains("SECRET"), "{url:?} was shown as {shown:?}");
                prop_assert!(!shown.chars().any(char::is_control));
            }
        }

        #[test]
        fn a_refusal_shows_no_secret((scheme, secret, host, token) in url_parts()) {
            let url = format!("{scheme}://me:{secret}@{host}/b?token={token}");
            if let Err(reason) = ServerUrl::parse(&url) {
                prop_assert!(!reason.contains("SECRET"));
            }
            if let Err(error) = crate::store::connect(&url, &crate::RoutePolicy::default()).map(|store| {
                assert!(!store.name().contains("SECRET") && !format!("{store:?}").contains("SECRET"));
            }) {
                prop_assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
            }
        }

        #[test]
        fn a_stripped_url_has_no_password(password in "[!-~&&[^/?#]]{0,8}SECRET[!-~&&[^/?#]]{0,8}") {
            for url in [format!("zdb://me:{password}@h/ns"), format!("s3://:{password}@h:9000/b?region=r")] {
                prop_assert!(!strip_password(&url).contains("SECRET"), "{url}");
            }
        }
    }
}
