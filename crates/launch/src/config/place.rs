//! Finds the path of the field at a position in a JSON text, for errors.

/// Returns the path at a line and a column (both from 1), such as `linux.resources.pids.limit`; empty at the top.
pub(super) fn path_at(text: &str, line: usize, column: usize) -> String {
    let mut scan = Scan::default();
    for (number, content) in text.lines().enumerate() {
        let is_last = number + 1 == line;
        let end = if is_last { column.min(content.len()) } else { content.len() };
        scan.read(content.as_bytes().get(..end).unwrap_or_default());
        if is_last {
            break;
        }
    }
    scan.path()
}

/// An open object with its latest key, or an open array with its latest index.
#[derive(Debug)]
enum Open {
    Object(String),
    Array(usize),
}

#[derive(Debug, Default)]
struct Scan {
    open: Vec<Open>,
    /// The string that is being read.
    string: Option<Vec<u8>>,
    is_escaped: bool,
    /// The last complete string: a key, if a colon follows.
    latest: String,
}

impl Scan {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match &mut self.string {
                Some(string) => match byte {
                    _ if self.is_escaped => {
                        self.is_escaped = false;
                        string.push(*byte);
                    }
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.latest = String::from_utf8_lossy(string).into_owned();
                        self.string = None;
                    }
                    _ => string.push(*byte),
                },
                None => self.read_structure(*byte),
            }
        }
    }

    fn read_structure(&mut self, byte: u8) {
        match byte {
            b'"' => self.string = Some(Vec::new()),
            b'{' => self.open.push(Open::Object(String::new())),
            b'[' => self.open.push(Open::Array(0)),
            b'}' | b']' => drop(self.open.pop()),
            b':' => {
                if let Some(Open::Object(key)) = self.open.last_mut() {
                    key.clone_from(&self.latest);
                }
            }
            b',' => match self.open.last_mut() {
                Some(Open::Array(index)) => *index += 1,
                Some(Open::Object(key)) => key.clear(),
                None => {}
            },
            _ => {}
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match open {
                Open::Object(key) if key.is_empty() => {}
                Open::Object(key) if path.is_empty() => path.push_str(key),
                Open::Object(key) => path = format!("{path}.{key}"),
                Open::Array(index) => path = format!("{path}[{index}]"),
            }
        }
        // The parser reports an unknown key before it reads the colon.
        if let Some(Open::Object(key)) = self.open.last()
            && key.is_empty()
            && !self.latest.is_empty()
        {
            let separator = if path.is_empty() { "" } else { "." };
            path = format!("{path}{separator}{}", self.latest);
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_becomes_the_path_of_its_field() {
        let text = "{\"a\": {\n \"b\": [ {\"c\": 1},\n {\"d\": \"x\"} ] } }";
        assert_eq!(path_at(text, 3, 10), "a.b[1].d");
        assert_eq!(path_at(text, 2, 13), "a.b[0].c");
        assert_eq!(path_at("{\"known\":1,\"other\":2}", 1, 18), "other");
    }
}
