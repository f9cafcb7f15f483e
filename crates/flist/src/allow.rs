//! Checks which URLs a limited user may fetch, by their parsed parts and not by their text.

use url::Url;

/// Percent-encoded characters that a server may decode to path separators or dots, which the check would not see.
const HIDDEN_PARTS: [&str; 4] = ["%2e", "%2f", "%5c", "%00"];

/// A part of a server that may be fetched: scheme, host, port, and a directory of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix {
    scheme: String,
    host: String,
    port: u16,
    /// The path without its last slash; empty for the whole server.
    path: String,
}

impl UrlPrefix {
    /// Parses `scheme://host[:port][/path]`. The scheme of a flist is `http` or `https`; that of a store may also be `zdb` or
    /// `s3`.
    ///
    /// # Errors
    /// The reason of a refusal; a password, a query and a fragment are refused.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = parse(text)?;
        let has_more = !url.username().is_empty() || url.password().is_some();
        if has_more || url.query().is_some() || url.fragment().is_some() {
            return Err("is a place on a server: it has no user, password, query or fragment");
        }
        let path = url.path().trim_end_matches('/').to_owned();
        let port = port_of(&url).ok_or("has a scheme that is none of http, https, zdb, s3, s3s")?;
        let host = host_of(&url).ok_or("names no host")?;
        Ok(Self { scheme: url.scheme().to_owned(), host, port, path })
    }

    /// Returns the address of the server as `host:port`, an IPv6 host in brackets.
    #[must_use]
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Tells whether a URL is at or below this prefix.
    pub(crate) fn covers(&self, url: &Url) -> bool {
        let is_server = url.scheme() == self.scheme
            && host_of(url).is_some_and(|host| host == self.host)
            && port_of(url) == Some(self.port);
        let path = url.path().to_ascii_lowercase();
        let is_plain = !HIDDEN_PARTS.iter().any(|hidden| path.contains(hidden));
        let rest = url.path().strip_prefix(&self.path);
        is_server && is_plain && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Returns the normal form of a URL if one of the prefixes covers it. Use only this form for the request: another program
/// could parse the original text differently.
#[must_use]
pub fn permitted(text: &str, allowed: &[UrlPrefix]) -> Option<String> {
    let url = parse(text).ok()?;
    allowed.iter().any(|prefix| prefix.covers(&url)).then(|| url.to_string())
}

/// As [`permitted`], for the target of a redirect, which may be relative to the requested URL.
pub(crate) fn redirected(from: &str, location: &str, allowed: &[UrlPrefix]) -> Option<String> {
    let target = parse(from).ok()?.join(location).ok()?;
    permitted(target.as_str(), allowed)
}

fn parse(text: &str) -> Result<Url, &'static str> {
    if text.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
        return Err("has a space, a backslash or a control character");
    }
    Url::parse(text).map_err(|_| "is not a URL")
}

/// Returns the host as in a normalized URL: lower case, IPv6 in brackets. The parser lowers it only for http and https.
fn host_of(url: &Url) -> Option<String> {
    url.host_str().filter(|host| !host.is_empty()).map(str::to_ascii_lowercase)
}

fn port_of(url: &Url) -> Option<u16> {
    let usual = match url.scheme() {
        "http" | "s3" => 80,
        "https" | "s3s" | "s3+tls" => 443,
        "zdb" => 9900,
        _ => return None,
    };
    Some(url.port().unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_permitted_by_its_parts_and_not_by_its_letters() {
        let allowed = [UrlPrefix::parse("https://good.example/flists").unwrap()];
        for url in [
            "https://good.example/flists",
            "https://good.example/flists/a.fl",
            "https://GOOD.example:443/flists/x/a.fl?v=1",
            "https://good.example/other/../flists/a.fl",
            "https://me:pw@good.example/flists/a.fl",
        ] {
            assert!(permitted(url, &allowed).is_some(), "{url}");
        }
        for url in [
            "https://good.example.evil/flists/a.fl",
            "https://good.example@evil/flists/a.fl",
            "https://evil/https://good.example/flists/a.fl",
            "https://good.example/flistsx/a.fl",
            "https://good.example/flists/../secret",
            "https://good.example/flists/%2e%2e/secret",
            "https://good.example/flists/..%2fsecret",
            "https://good.example/flists/x%5c..%5csecret",
            "https://good.example:8443/flists/a.fl",
            "http://good.example/flists/a.fl",
            "https://good.example\\@evil/flists/a.fl",
            "https://good.example",
            "file:///flists/a.fl",
            "nonsense",
        ] {
            assert_eq!(permitted(url, &allowed), None, "{url}");
        }
        let whole = [UrlPrefix::parse("http://127.0.0.1:8080").unwrap()];
        assert!(permitted("http://127.0.0.1:8080/a.fl", &whole).is_some());
        // Another spelling of one address is the same address.
        assert_eq!(permitted("http://0x7f.1:8080/a", &whole).as_deref(), Some("http://127.0.0.1:8080/a"));
        assert_eq!(permitted("http://127.0.0.1/a", &whole), None);
    }

    #[test]
    fn a_redirect_stays_within_what_is_allowed() {
        let allowed = [UrlPrefix::parse("http://hub.example/a/").unwrap()];
        let to = |location| redirected("http://hub.example/a/x.fl", location, &allowed);
        assert_eq!(to("/a/y.fl").as_deref(), Some("http://hub.example/a/y.fl"));
        assert_eq!(to("z.fl").as_deref(), Some("http://hub.example/a/z.fl"));
        for outside in ["/b/y.fl", "../b", "//127.0.0.1/a/y.fl", "http://127.0.0.1/", "http://hub.example:81/a/y.fl"] {
            assert_eq!(to(outside), None, "{outside}");
        }
    }

    #[test]
    fn a_place_has_no_password_and_no_query() {
        for bad in ["https://a:b@h/", "https://h/?q", "https://h/#f", "ftp://h/", "gopher://h/", "h/x", "https://"] {
            assert!(UrlPrefix::parse(bad).is_err(), "{bad}");
        }
        let of = |text| UrlPrefix::parse(text).unwrap().host_and_port();
        assert_eq!(of("http://h/x"), "h:80");
        assert_eq!(of("zdb://[fd00::1]/ns"), "[fd00::1]:9900");
        assert_eq!(of("s3s://H.example/b"), "h.example:443");
    }
}
