//! Parses PAX records: `<length> <key>=<value>\n`. The length covers the whole record, and the value may be any bytes.

const WRONG_MAP: &str = "the map of a sparse file cannot be read";

/// The used records of one member. An empty value cancels an earlier record.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: u64,
    pub(super) sparse: Option<Sparse>,
}

/// The records of a sparse file. GNU tar has three forms: 0.0 (one record for each number of the map), 0.1 (the map in
/// one record) and 1.0 (the map at the beginning of the content).
#[derive(Debug, Default)]
pub(super) struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    /// The file's size in form 1.0; optional in the other forms.
    real_size: Option<u64>,
    /// The file's size in forms 0.0 and 0.1.
    size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

/// The place of a sparse file's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapPlace {
    Records,
    Content,
}

impl Pax {
    /// Parses the records of one PAX header.
    pub(super) fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or("a PAX record cannot be read")?;
            records = rest;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record without '='")?;
            let (key, value) = record.split_at(equals);
            pax.take(key, value.get(1..).unwrap_or_default())?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = text(value),
            b"linkpath" => self.link = text(value),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(seconds(value)?) },
            _ => {
                if let Some(of_sparse) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(of_sparse, value)?;
                } else if key.starts_with(b"SCHILY.xattr.") || key.starts_with(b"LIBARCHIVE.xattr.") {
                    self.xattrs = self.xattrs.saturating_add(1);
                }
            }
        }
        Ok(())
    }
}

impl Sparse {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"major" => self.major = number(value)?,
            b"minor" => self.minor = number(value)?,
            b"realsize" => self.real_size = number(value)?,
            b"size" => self.size = number(value)?,
            b"name" => self.name = text(value),
            b"offset" | b"numbytes" => {
                if self.numbers.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(WRONG_MAP);
                }
                self.numbers.push(decimal(value).ok_or(WRONG_MAP)?);
            }
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Option<Vec<_>>>();
                self.numbers = if value.is_empty() { Vec::new() } else { numbers.ok_or(WRONG_MAP)? };
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the place of the map and the size of the file.
    pub(super) fn form(&self) -> Result<(MapPlace, u64), &'static str> {
        let place = match (self.major, self.minor) {
            (Some(1), Some(0)) => MapPlace::Content,
            (Some(0), Some(0 | 1)) | (None, None) => MapPlace::Records,
            _ => return Err("a sparse file in a form that is not known"),
        };
        let size = match place {
            MapPlace::Content => self.real_size,
            MapPlace::Records => self.size.or(self.real_size),
        };
        Ok((place, size.ok_or("a sparse file without its size")?))
    }

    /// Returns the map of the records as pairs of offset and length.
    pub(super) fn pairs(&self) -> Result<impl Iterator<Item = (u64, u64)>, &'static str> {
        let (pairs, odd) = self.numbers.as_chunks::<2>();
        if odd.is_empty() { Ok(pairs.iter().map(|[at, len]| (*at, *len))) } else { Err(WRONG_MAP) }
    }
}

/// Splits off one record, and removes its length and line end.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    // A length has at most 7 digits, because the whole header has at most 1 MiB.
    let blank = records.iter().take(8).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(records.get(..blank)?)?).ok()?;
    let record = records.get(blank.checked_add(1)?..len.checked_sub(1)?)?;
    (records.get(len.checked_sub(1)?) == Some(&b'\n')).then_some((record, records.get(len..)?))
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn number(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() { Ok(None) } else { decimal(value).map(Some).ok_or("a number of a PAX record cannot be read") }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if is_decimal { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// Parses a time with a fraction, and rounds it down.
fn seconds(value: &[u8]) -> Result<i64, &'static str> {
    let (is_negative, digits) = value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits));
    let dot = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = digits.split_at(dot);
    let whole = decimal(whole).and_then(|whole| i64::try_from(whole).ok());
    let whole = whole.ok_or("a time of a PAX record cannot be read")?;
    let has_fraction = fraction.iter().any(|byte| (b'1'..=b'9').contains(byte));
    Ok(if is_negative { -whole - i64::from(has_fraction) } else { whole })
}

/// The map at the beginning of a sparse file of form 1.0: the number of pairs, then the pairs, one number per line.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    count: Option<usize>,
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl Numbers {
    /// Tells whether all numbers were read; the rest of the block is padding.
    pub(super) fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() >= count)
    }

    /// Reads the numbers of the next block.
    pub(super) fn feed(&mut self, block: &[u8], max_pairs: usize) -> Result<(), &'static str> {
        for byte in block {
            if self.is_complete() {
                return Ok(());
            }
            if *byte != b'\n' {
                // The longest number of 64 bits has 20 digits.
                if self.digits.len() >= 20 {
                    return Err(WRONG_MAP);
                }
                self.digits.push(*byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or(WRONG_MAP)?;
            self.digits.clear();
            if self.count.is_some() {
                self.numbers.push(number);
            } else {
                let pairs = usize::try_from(number).ok().filter(|pairs| *pairs <= max_pairs).ok_or(WRONG_MAP)?;
                self.count = Some(pairs * 2);
            }
        }
        Ok(())
    }

    /// Returns the map as pairs of offset and length.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        let (pairs, _odd) = self.numbers.as_chunks::<2>();
        pairs.iter().map(|[at, len]| (*at, *len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_line_ends_and_what_looks_like_records() {
        let pax = Pax::parse(b"29 SCHILY.xattr.a=\n9 uid=77\n\n12 path=a\nb\n10 uid=12\n").unwrap();
        assert_eq!((pax.path.as_deref(), pax.uid, pax.xattrs), (Some(&b"a\nb"[..]), Some(12), 1));
    }

    #[test]
    fn a_malformed_record_is_refused() {
        for bad in
            [&b"x"[..], b"5 a=b\n", b"99 a=b\n", b"0 a=b\n", b"1 \n", b"4 a\n", b"9 uid=-1\n", b"99999999999 a=b\n"]
        {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, expected) in [("5", 5), ("5.9", 5), ("-5", -5), ("-5.000", -5), ("-5.1", -6), ("0.1", 0)] {
            assert_eq!(seconds(text.as_bytes()), Ok(expected), "{text}");
        }
        assert!(seconds(b"x").is_err() && seconds(b"").is_err() && seconds(b"--1").is_err());
    }

    #[test]
    fn a_sparse_file_is_told_in_three_forms() {
        let told = |text: &str| {
            let record = |text: &str| {
                let line = format!(" GNU.sparse.{text}\n");
                let len = (line.len()..).find(|len| len.to_string().len() + line.len() == *len).unwrap();
                format!("{len}{line}")
            };
            let sparse = Pax::parse(text.split(' ').map(record).collect::<String>().as_bytes())?.sparse.unwrap();
            let pairs = sparse.pairs()?.collect::<Vec<_>>();
            sparse.form().map(|form| (form, pairs))
        };
        let map = vec![(0, 10), (512, 7)];
        assert_eq!(
            told("size=600 offset=0 numbytes=10 offset=512 numbytes=7"),
            Ok(((MapPlace::Records, 600), map.clone()))
        );
        assert_eq!(told("size=600 numblocks=2 map=0,10,512,7"), Ok(((MapPlace::Records, 600), map.clone())));
        assert_eq!(told("major=0 minor=1 realsize=600 map=0,10,512,7"), Ok(((MapPlace::Records, 600), map)));
        assert_eq!(told("major=1 minor=0 realsize=600"), Ok(((MapPlace::Content, 600), vec![])));
        for bad in [
            "size=1 map=0,1,2",
            "size=1 map=x",
            "size=1 numbytes=1",
            "size=1 offset=1 offset=2",
            "map=0,1",
            "major=2 minor=0 size=1",
        ] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_map_of_a_sparse_file_may_cross_blocks() {
        let mut numbers = Numbers::default();
        numbers.feed(b"2\n0\n1", 9).unwrap();
        assert!(!numbers.is_complete());
        numbers.feed(b"0\n512\n7\n\0\0", 9).unwrap();
        assert!(numbers.is_complete());
        assert_eq!(numbers.pairs().collect::<Vec<_>>(), [(0, 10), (512, 7)]);
        assert!(Numbers::default().feed(b"10\n", 9).is_err());
        assert!(Numbers::default().feed(b"x\n", 9).is_err());
    }
}
