//! Describes a flist for people and programs: counts of its content, and names, modes and times as text.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::metadata::{FileKind, Flist};

/// Counts of a flist's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Character devices.
    pub char_devices: u64,
    /// Block devices.
    pub block_devices: u64,
    /// Named pipes.
    pub fifos: u64,
    /// Unix sockets.
    pub sockets: u64,
    /// Bytes of content of all files.
    pub content_bytes: u64,
    /// The number of blocks of all files.
    pub blocks: u64,
    /// The number of distinct blocks, which is the number in the stores.
    pub unique_blocks: u64,
}

/// Counts the content of a flist.
#[must_use]
pub fn summarize(flist: &Flist) -> Summary {
    let mut summary = Summary { content_bytes: flist.content_bytes(), ..Summary::default() };
    let mut ids = HashSet::new();
    for inode in flist.inodes() {
        *match inode.kind() {
            FileKind::File => &mut summary.files,
            FileKind::Directory => &mut summary.directories,
            FileKind::Symlink => &mut summary.symlinks,
            FileKind::CharDevice => &mut summary.char_devices,
            FileKind::BlockDevice => &mut summary.block_devices,
            FileKind::Fifo => &mut summary.fifos,
            FileKind::Socket => &mut summary.sockets,
        } += 1;
        let blocks = flist.blocks(inode.ino());
        summary.blocks += blocks.len() as u64;
        ids.extend(blocks.iter().map(|block| block.id));
    }
    summary.unique_blocks = ids.len() as u64;
    summary
}

/// Formats a name so that a terminal prints it without side effects: bytes that are not printable UTF-8 become `\xNN`, and
/// a backslash is doubled. Different names stay different.
#[must_use]
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if is_printable(letter) => text.push(letter),
                letter => letter.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape_byte(&mut text, byte)),
            }
        }
        chunk.invalid().iter().for_each(|byte| escape_byte(&mut text, *byte));
    }
    text
}

/// Control characters act on the terminal; direction marks and other invisible characters make one name look like another.
fn is_printable(letter: char) -> bool {
    let is_invisible = matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    !letter.is_control() && !is_invisible
}

fn escape_byte(text: &mut String, byte: u8) {
    let _infallible = write!(text, "\\x{byte:02x}");
}

/// Formats a `st_mode` as `ls -l` does: `drwxr-sr-x`.
#[must_use]
pub fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o100_000 => '-',
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '?',
    };
    let mut text = String::from(kind);
    for (shift, special, letters) in [(6, 0o4000, ['s', 'S']), (3, 0o2000, ['s', 'S']), (0, 0o1000, ['t', 'T'])] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        let [with_execute, without] = letters;
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with_execute,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Formats seconds since 1970 as `2026-11-25 18:07`, in UTC; a year without four digits gives `@seconds`.
#[must_use]
pub fn time_text(seconds: i64) -> String {
    /// Years 0 to 9999.
    const SHOWN: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
    if !SHOWN.contains(&seconds) {
        return format!("@{seconds}");
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date, by eras of 400 years that begin in March (Howard Hinnant, "chrono-compatible low-level date
    // algorithms"): leap days then come last and need no case of their own.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_effect_on_a_terminal() {
        for (name, shown) in [
            (b"plain name".as_slice(), "plain name"),
            ("\u{e9}\u{4e2d}".as_bytes(), "\u{e9}\u{4e2d}"),
            (b"a\\b", "a\\\\b"),
            (b"\x1b[31m\n", "\\x1b[31m\\x0a"),
            (b"\xff\xfea", "\\xff\\xfea"),
            ("a\u{202e}b".as_bytes(), "a\\xe2\\x80\\xaeb"),
            ("\u{9b}".as_bytes(), "\\xc2\\x9b"),
        ] {
            assert_eq!(escape(name), shown);
        }
    }

    #[test]
    fn modes_are_shown_as_by_ls() {
        for (mode, shown) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o104_755, "-rwsr-xr-x"),
            (0o104_644, "-rwSr--r--"),
            (0o102_711, "-rwx--s--x"),
            (0o041_777, "drwxrwxrwt"),
            (0o041_776, "drwxrwxrwT"),
            (0o120_777, "lrwxrwxrwx"),
            (0o020_600, "crw-------"),
            (0o060_000, "b---------"),
            (0o010_622, "prw--w--w-"),
            (0o140_755, "srwxr-xr-x"),
        ] {
            assert_eq!(mode_text(mode), shown);
        }
    }

    #[test]
    fn times_are_dates_as_long_as_the_year_has_four_digits() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00"),
            (-1, "1969-12-31 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (1_600_000_040, "2020-09-13 12:27"),
            (4_102_444_799, "2099-12-31 23:59"),
            (-62_167_219_200, "0000-01-01 00:00"),
            (253_402_300_799, "9999-12-31 23:59"),
            (253_402_300_800, "@253402300800"),
            (i64::MIN, "@-9223372036854775808"),
            (i64::MAX, "@9223372036854775807"),
        ] {
            assert_eq!(time_text(seconds), shown);
        }
    }
}
