//! Converts the stores of a legacy flist to the routes of a `.fl`.
//!
//! Stores in `router.yaml` come first, in its order; then the one that `zflist` packed to (`backend`). A flist with neither
//! has no routes: 0-fs would then ask a public hub, which is left to the user who adds a route.

use serde_json::Value;

use crate::error::LegacyError;
use crate::router;
use contd_flist::{Route, split_scheme};

/// The port of 0-db if `backend` has none.
const DEFAULT_PORT: u64 = 9900;

/// Returns the routes from `router.yaml` and from `backend`.
pub(super) fn routes(router: Option<&str>, backend: Option<&str>) -> Result<Vec<Route>, LegacyError> {
    let mut routes = router.map(router::routes).transpose()?.unwrap_or_default();
    if let Some(backend) = backend {
        let url = backend_url(backend).map_err(|reason| LegacyError::Stores { part: "backend", reason })?;
        routes.push(Route { start: 0, end: u8::MAX, url });
    }
    Ok(routes)
}

/// Builds a URL from `{"host": …, "port": …, "namespace": …, "password": …}`.
fn backend_url(text: &str) -> Result<String, &'static str> {
    let Ok(Value::Object(backend)) = serde_json::from_str(text) else { return Err("it is no JSON object") };
    let field = |name: &str| match backend.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err("a field is no text"),
    };
    let host = field("host")?.ok_or("there is no host")?;
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte)) {
        return Err("the host is no name or address");
    }
    // An IPv6 address needs brackets before the port.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    let port = match backend.get("port") {
        None | Some(Value::Null) => DEFAULT_PORT,
        Some(port) => port.as_u64().filter(|port| (1..=65_535).contains(port)).ok_or("the port is no port")?,
    };
    let password = field("password")?.map(|password| format!(":{}@", escape(password))).unwrap_or_default();
    let namespace = field("namespace")?.map(|namespace| format!("/{}", escape(namespace))).unwrap_or_default();
    Ok(format!("zdb://{password}{host}:{port}{namespace}"))
}

/// Converts a URL of `router.yaml` to that of a route. In the former, the text before the `@` is the password.
pub(super) fn current_url(text: &str) -> Option<String> {
    let (scheme, rest) = split_scheme(text)?;
    if !matches!(scheme, "zdb" | "ardb" | "redis") {
        // 0-fs has no other schemes, but they are useful for a flist whose blocks were copied to a directory or a web server.
        return Some(text.to_owned());
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(authority_end)?;
    Some(match authority.rsplit_once('@') {
        // With a colon it has the form of a route already.
        Some((password, host)) if !password.contains(':') => format!("zdb://:{password}@{host}{tail}"),
        _ => format!("zdb://{rest}"),
    })
}

/// Escapes characters that would end a part of a URL.
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_becomes_a_zdb_route_for_every_block() {
        for (backend, expected) in [
            (r#"{"namespace": "leg", "host": "127.0.0.1", "port": 9911}"#, "zdb://127.0.0.1:9911/leg"),
            (r#"{"host": "hub.example"}"#, "zdb://hub.example:9900"),
            (r#"{"host": "::1", "port": 1, "namespace": null, "password": ""}"#, "zdb://[::1]:1"),
            (r#"{"host": "h", "port": 1, "namespace": "a/b", "password": "p@:/"}"#, "zdb://:p%40%3A%2F@h:1/a%2Fb"),
        ] {
            let routes = routes(None, Some(backend)).unwrap();
            let [route] = routes.as_slice() else { panic!("one route") };
            assert_eq!((route.start, route.end, route.url.as_str()), (0, 255, expected));
        }
    }

    #[test]
    fn a_backend_that_cannot_be_is_refused_without_showing_it() {
        for backend in [
            "",
            "[]",
            r#""secret""#,
            r#"{"port": 1}"#,
            r#"{"host": "secret@h"}"#,
            r#"{"host": "h/secret"}"#,
            r#"{"host": 1}"#,
            r#"{"host": "h", "port": 0}"#,
            r#"{"host": "h", "port": 65536}"#,
            r#"{"host": "h", "port": "secret"}"#,
            r#"{"host": "h", "password": ["secret"]}"#,
        ] {
            let refused = routes(None, Some(backend)).unwrap_err();
            assert!(!format!("{refused} {refused:?}").contains("secret"), "{refused:?}");
        }
    }

    #[test]
    fn the_password_of_a_router_is_the_user_of_its_url() {
        for (url, expected) in [
            ("zdb://h:1/ns", "zdb://h:1/ns"),
            ("ardb://pw@h:1", "zdb://:pw@h:1"),
            ("redis://p@w@h:1/", "zdb://:p@w@h:1/"),
            ("zdb://u:pw@h:1/ns", "zdb://u:pw@h:1/ns"),
            ("zdb://h/a@b", "zdb://h/a@b"),
            ("http://h/x", "http://h/x"),
        ] {
            assert_eq!(current_url(url).unwrap(), expected);
        }
        assert_eq!(current_url("host:9900"), None);
    }

    #[test]
    fn the_router_is_asked_before_the_backend() {
        let router = "pools: {p: {'00:ff': 'http://h/x'}}\nlookup: [p]";
        let urls = routes(Some(router), Some(r#"{"host": "h"}"#)).unwrap();
        assert_eq!(urls.iter().map(|route| route.url.as_str()).collect::<Vec<_>>(), ["http://h/x", "zdb://h:9900"]);
        assert!(routes(None, None).unwrap().is_empty());
    }
}
