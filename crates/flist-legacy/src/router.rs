//! Parses `router.yaml`: the pools of stores, the blocks that each has, and the order in which to ask them.
//!
//! ```yaml
//! pools:
//!   hub:
//!     00:7F: zdb://one.example:9900
//!     80:FF: ardb://password@two.example:16379
//! lookup: [hub]
//! ```
//!
//! YAML is read as events, and only a plain subset is accepted: no aliases (which can unfold without bound), no tags, no
//! deep nesting. Pools named only in `cache` are for writing back, which is not supported.

use saphyr_parser::{Event, Parser};

use crate::error::LegacyError;
use contd_flist::metadata::{MAX_ROUTES, Route};

/// The deepest nesting: the document, `pools`, a pool.
const MAX_DEPTH: usize = 4;

/// A node of the document.
#[derive(Debug)]
enum Node {
    Text(String),
    List(Vec<Node>),
    /// Fields in the order of the file.
    Map(Vec<(String, Node)>),
}

impl Node {
    fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, node)| node),
            _ => None,
        }
    }
}

/// Parses the routes, in the order of `lookup`, and within a pool in that of the file.
pub(super) fn routes(text: &str) -> Result<Vec<Route>, LegacyError> {
    parse(text)
        .and_then(|document| pools(&document))
        .map_err(|reason| LegacyError::Stores { part: "router.yaml", reason })
}

fn pools(document: &Node) -> Result<Vec<Route>, &'static str> {
    let pools = document.field("pools").ok_or("there are no pools")?;
    let Some(Node::List(lookup)) = document.field("lookup") else { return Err("there is no list named lookup") };
    let mut routes = Vec::new();
    for name in lookup {
        let Node::Text(name) = name else { return Err("lookup names something that is no pool") };
        let Some(Node::Map(rules)) = pools.field(name) else { return Err("lookup names a pool that does not exist") };
        for (range, url) in rules {
            let (start, end) = first_bytes(range).ok_or("a range is not of the form 00:FF or of a prefix in hex")?;
            let Node::Text(url) = url else { return Err("the destination of a range is not a URL") };
            let url = super::stores::current_url(url).ok_or("the destination of a range is not a URL")?;
            if routes.len() >= MAX_ROUTES {
                return Err("there are too many routes");
            }
            routes.push(Route { start, end, url });
        }
    }
    Ok(routes)
}

/// Returns the first bytes that a range or a prefix covers. Ranges finer than a byte are widened: asking a store in vain
/// costs a moment, not asking it makes the block unavailable.
fn first_bytes(range: &str) -> Option<(u8, u8)> {
    let (start, end) = range.split_once(':').unwrap_or((range, range));
    let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(start) || !is_hex(end) || start.len() != end.len() {
        return None;
    }
    let byte = |text: &str, fill: char| {
        let digits = text.chars().chain([fill]).take(2).collect::<String>();
        u8::from_str_radix(&digits, 16).ok()
    };
    let (start, end) = (byte(start, '0')?, byte(end, 'f')?);
    (start <= end).then_some((start, end))
}

/// Builds the tree of a document from its events.
fn parse(text: &str) -> Result<Node, &'static str> {
    // The open nodes, outermost first, and in each map the key that waits for its value.
    let mut open: Vec<(Node, Option<String>)> = Vec::new();
    let mut document = None;
    for event in Parser::new_from_str(text) {
        let (event, _where) = event.map_err(|_told_by_reason| "it is no YAML")?;
        let done = match event {
            Event::MappingStart(0, None) if open.len() < MAX_DEPTH => {
                open.push((Node::Map(Vec::new()), None));
                continue;
            }
            Event::SequenceStart(0, None) if open.len() < MAX_DEPTH => {
                open.push((Node::List(Vec::new()), None));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(|(node, _)| node).ok_or("it is no YAML")?,
            Event::Scalar(text, _, 0, None) => Node::Text(text.into_owned()),
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {
                continue;
            }
            _ => return Err("it has aliases, anchors or tags, or is too deep"),
        };
        match open.last_mut() {
            None if document.is_none() => document = Some(done),
            None => return Err("it has more than one document"),
            Some((Node::List(items), _)) => items.push(done),
            Some((Node::Map(fields), key)) => match (key.take(), done) {
                (None, Node::Text(name)) if fields.iter().any(|(key, _)| *key == name) => {
                    return Err("a name appears twice");
                }
                (None, Node::Text(name)) => *key = Some(name),
                (None, _) => return Err("a name is no text"),
                (Some(key), value) => fields.push((key, value)),
            },
            Some((Node::Text(_), _)) => return Err("it is no YAML"),
        }
    }
    document.ok_or("it is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u8, u8, String)>, String> {
        let routes = routes(text).map_err(|error| error.to_string())?;
        Ok(routes.into_iter().map(|route| (route.start, route.end, route.url)).collect())
    }

    #[test]
    fn pools_are_asked_in_the_order_of_lookup() {
        let text = "pools:\n  b:\n    00:7F: zdb://one:9900\n    80:ff: ardb://secret@two:16379\n  a:\n    ab: redis://three:1\nlookup:\n - a\n - b\ncache:\n - b\n";
        let expected = [
            (0xab, 0xab, "zdb://three:1".to_owned()),
            (0, 0x7f, "zdb://one:9900".to_owned()),
            (0x80, 0xff, "zdb://:secret@two:16379".to_owned()),
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn ranges_finer_or_coarser_than_a_byte_are_widened() {
        for (range, expected) in [
            ("00:FF", Some((0, 0xff))),
            ("0:F", Some((0, 0xff))),
            ("a", Some((0xa0, 0xaf))),
            ("123", Some((0x12, 0x12))),
            ("1230:12ff", Some((0x12, 0x12))),
            ("00:59", Some((0, 0x59))),
            ("ff:00", None),
            ("00:fff", None),
            ("", None),
            (":", None),
            ("0g", None),
            ("é", None),
        ] {
            assert_eq!(first_bytes(range), expected, "{range:?}");
        }
    }

    #[test]
    fn a_complex_or_inconsistent_document_is_refused_without_quoting_it() {
        let pool = |rule: &str| format!("pools: {{p: {{{rule}}}}}\nlookup: [p]");
        for text in [
            "",
            "lookup: [a]",
            "pools: {}\nlookup: [a]",
            "pools: {a: {'00:ff': zdb://secret@h}}",
            "pools: &x {a: {'00:ff': zdb://h}}\nlookup: [a]",
            "pools: {a: {'00:ff': !t zdb://h}}\nlookup: [a]",
            "a: [[[[[[[[]]]]]]]]",
            "a: 1\n---\nb: 2",
            "pools: {p: {'00:ff': zdb://h}, p: {'00:ff': zdb://secret@h}}\nlookup: [p]",
            "[",
            "a: *b",
            &pool("'00:ff': [zdb://secret@h]"),
            &pool("'00:ff': secret"),
            &pool("'0x00': zdb://secret@h"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.starts_with("read the stores from router.yaml: "), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_at_its_first_anchor() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (of, name) in ('a'..='y').zip('b'..='z') {
            text += &format!("{name}: &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n");
        }
        assert!(read(&text).unwrap_err().contains("aliases"));
    }
}
