//! Reads the part of Cap'n Proto that the values of a legacy flist use: structs, lists of structs, text and data.
//!
//! ```text
//! message = u32 segments - 1 ++ u32 words of each ++ padding to 8 bytes ++ the segments        (stream framing)
//! word 0 of segment 0 is the pointer to the root struct
//! ```
//!
//! Reads in place and checks every step against the segment; nothing is trusted, nothing is copied. The budget limits attacks
//! that the encoding allows: many pointers to one object, lists of elements without size, and cycles of pointers. It is
//! twice the words of the message, which a single reading of a valid message cannot exceed. There is no recursion: the
//! schema nests four deep, and [`super::values`] follows the schema.

use std::cell::Cell;

/// The bytes of a word.
const WORD: usize = 8;

/// The most segments of a message, as in the reference implementations. Real values have one.
const MAX_SEGMENTS: usize = 512;

/// The tag of a list of structs, and that of a list of bytes.
const COMPOSITE: usize = 7;
const BYTES: usize = 2;

/// A value is not a valid message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapnpError {
    /// The segment table does not match the length of the value.
    #[error("the segments do not add up to the value")]
    Framing,
    /// A pointer leads out of its segment or to a segment that does not exist.
    #[error("a pointer leads out of the message")]
    OutOfBounds,
    /// A pointer has another kind than in the schema.
    #[error("a pointer is not to a {expected}")]
    WrongKind {
        /// The kind in the schema.
        expected: &'static str,
    },
    /// A list has an impossible number of elements.
    #[error("a list does not hold what it announces")]
    ListLength,
    /// A text does not end with NUL.
    #[error("a text does not end with NUL")]
    Text,
    /// More words were read than a valid message needs: objects are shared, or there are too many empty elements.
    #[error("the message unfolds to more than it holds")]
    Amplified,
}

/// A message in its bytes, not copied.
#[derive(Debug)]
pub(super) struct Message<'a> {
    segments: Vec<&'a [[u8; WORD]]>,
    /// The number of words that may still be read.
    budget: Cell<usize>,
}

/// A struct of a message. Fields unknown to its writer read as their default, as the format requires.
#[derive(Debug, Clone, Copy)]
pub(super) struct Struct<'m, 'a> {
    message: &'m Message<'a>,
    segment: usize,
    data: &'a [[u8; WORD]],
    /// The position of the first pointer, and the number of pointers.
    pointers: usize,
    pointer_count: usize,
}

/// The structs of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'m, 'a> {
    message: &'m Message<'a>,
    segment: usize,
    start: usize,
    len: usize,
    data_words: usize,
    pointer_count: usize,
}

/// The target of a pointer, after following far pointers.
#[derive(Debug, Clone, Copy)]
struct Target {
    segment: usize,
    start: usize,
    pointer: Pointer,
}

/// The 64 bits of a pointer.
#[derive(Debug, Clone, Copy)]
struct Pointer(u64);

impl Pointer {
    const STRUCT: u64 = 0;
    const LIST: u64 = 1;
    const FAR: u64 = 2;

    fn kind(self) -> u64 {
        self.0 & 3
    }

    /// Returns `count` bits starting at `from`: at most 32, so they always fit.
    fn bits(self, from: u32, count: u32) -> usize {
        usize::try_from((self.0 >> from) & ((1 << count) - 1)).unwrap_or(usize::MAX)
    }

    /// Returns the words between this pointer and its target: 30 bits with a sign.
    fn offset(self) -> isize {
        const HALF: isize = 1 << 29;
        let unsigned = isize::try_from(self.bits(2, 30)).unwrap_or(isize::MAX);
        if unsigned < HALF { unsigned } else { unsigned - 2 * HALF }
    }
}

impl<'a> Message<'a> {
    /// Parses the framing. The segments must fill the value exactly.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, CapnpError> {
        let (words, rest) = bytes.as_chunks::<WORD>();
        let (table, _) = bytes.as_chunks::<4>();
        let entry =
            |at: usize| table.get(at).map(|entry| usize::try_from(u32::from_le_bytes(*entry)).unwrap_or(usize::MAX));
        let count = entry(0).and_then(|last| last.checked_add(1)).filter(|count| *count <= MAX_SEGMENTS);
        let count = count.ok_or(CapnpError::Framing)?;
        let mut body = words.get((1 + count).div_ceil(2)..).filter(|_| rest.is_empty()).ok_or(CapnpError::Framing)?;
        let budget = Cell::new(body.len().saturating_mul(2));
        let mut segments = Vec::with_capacity(count);
        for number in 1..=count {
            let len = entry(number).ok_or(CapnpError::Framing)?;
            let (segment, others) = body.split_at_checked(len).ok_or(CapnpError::Framing)?;
            segments.push(segment);
            body = others;
        }
        if body.is_empty() { Ok(Self { segments, budget }) } else { Err(CapnpError::Framing) }
    }

    /// Returns the root struct.
    pub(super) fn root(&self) -> Result<Struct<'_, 'a>, CapnpError> {
        self.structure(0, 0)?.ok_or(CapnpError::WrongKind { expected: "struct" })
    }

    fn words(&self, segment: usize, start: usize, len: usize) -> Result<&'a [[u8; WORD]], CapnpError> {
        let end = start.checked_add(len).ok_or(CapnpError::OutOfBounds)?;
        self.segments.get(segment).and_then(|words| words.get(start..end)).ok_or(CapnpError::OutOfBounds)
    }

    fn pointer(&self, segment: usize, at: usize) -> Result<Pointer, CapnpError> {
        let word = self.words(segment, at, 1)?.first().ok_or(CapnpError::OutOfBounds)?;
        Ok(Pointer(u64::from_le_bytes(*word)))
    }

    /// Takes the words of an object from the budget. Even an empty object costs a word.
    fn spend(&self, words: usize) -> Result<(), CapnpError> {
        let left = self.budget.get().checked_sub(words.max(1)).ok_or(CapnpError::Amplified)?;
        self.budget.set(left);
        Ok(())
    }

    /// Follows the pointer at a position, over at most one landing pad. `None` if it is null.
    fn follow(&self, segment: usize, at: usize) -> Result<Option<Target>, CapnpError> {
        let pointer = self.pointer(segment, at)?;
        if pointer.0 == 0 {
            return Ok(None);
        }
        if pointer.kind() != Pointer::FAR {
            return near(segment, at, pointer).map(Some);
        }
        let (is_double, pad, pad_segment) = (pointer.bits(2, 1) == 1, pointer.bits(3, 29), pointer.bits(32, 32));
        self.spend(1)?;
        let landing = self.pointer(pad_segment, pad)?;
        if !is_double {
            return near(pad_segment, pad, landing).map(Some);
        }
        // The pad holds the position, and then a pointer whose offset is unused.
        let tag = self.pointer(pad_segment, pad.saturating_add(1))?;
        if landing.kind() != Pointer::FAR || landing.bits(2, 1) == 1 || tag.kind() == Pointer::FAR {
            return Err(CapnpError::WrongKind { expected: "landing pad" });
        }
        Ok(Some(Target { segment: landing.bits(32, 32), start: landing.bits(3, 29), pointer: tag }))
    }

    fn structure(&self, segment: usize, at: usize) -> Result<Option<Struct<'_, 'a>>, CapnpError> {
        let Some(Target { segment, start, pointer }) = self.follow(segment, at)? else { return Ok(None) };
        if pointer.kind() != Pointer::STRUCT {
            return Err(CapnpError::WrongKind { expected: "struct" });
        }
        let (data_words, pointer_count) = (pointer.bits(32, 16), pointer.bits(48, 16));
        self.spend(data_words + pointer_count)?;
        self.words(segment, start, data_words + pointer_count)?;
        let data = self.words(segment, start, data_words)?;
        Ok(Some(Struct { message: self, segment, data, pointers: start + data_words, pointer_count }))
    }

    fn structures(&self, segment: usize, at: usize) -> Result<List<'_, 'a>, CapnpError> {
        let empty = List { message: self, segment: 0, start: 0, len: 0, data_words: 0, pointer_count: 0 };
        let Some(Target { segment, start, pointer }) = self.follow(segment, at)? else { return Ok(empty) };
        let is_composite = pointer.bits(32, 3) == COMPOSITE;
        if pointer.kind() != Pointer::LIST {
            return Err(CapnpError::WrongKind { expected: "list of structs" });
        }
        let count = pointer.bits(35, 29);
        if !is_composite {
            // The kind of the elements does not matter if there are none.
            return if count == 0 { Ok(empty) } else { Err(CapnpError::WrongKind { expected: "list of structs" }) };
        }
        // Composite: the count is in words and excludes the tag, which has the form of a struct pointer.
        let tag = self.pointer(segment, start)?;
        let (len, data_words, pointer_count) = (tag.bits(2, 30), tag.bits(32, 16), tag.bits(48, 16));
        let needed = len.checked_mul(data_words + pointer_count).ok_or(CapnpError::ListLength)?;
        if tag.kind() != Pointer::STRUCT || needed > count {
            return Err(CapnpError::ListLength);
        }
        self.spend(count.max(len).saturating_add(1))?;
        let start = start.saturating_add(1);
        self.words(segment, start, count)?;
        Ok(List { message: self, segment, start, len, data_words, pointer_count })
    }

    fn bytes(&self, segment: usize, at: usize) -> Result<&'a [u8], CapnpError> {
        let Some(Target { segment, start, pointer }) = self.follow(segment, at)? else { return Ok(&[]) };
        if pointer.kind() != Pointer::LIST || pointer.bits(32, 3) != BYTES {
            return Err(CapnpError::WrongKind { expected: "list of bytes" });
        }
        let len = pointer.bits(35, 29);
        self.spend(len.div_ceil(WORD))?;
        let words = self.words(segment, start, len.div_ceil(WORD))?;
        words.as_flattened().get(..len).ok_or(CapnpError::OutOfBounds)
    }
}

/// Computes the target of a pointer that is not far.
fn near(segment: usize, at: usize, pointer: Pointer) -> Result<Target, CapnpError> {
    if pointer.kind() != Pointer::STRUCT && pointer.kind() != Pointer::LIST {
        return Err(CapnpError::WrongKind { expected: "struct or list" });
    }
    let start = at.checked_add(1).and_then(|next| next.checked_add_signed(pointer.offset()));
    Ok(Target { segment, start: start.ok_or(CapnpError::OutOfBounds)?, pointer })
}

impl<'m, 'a> Struct<'m, 'a> {
    fn word(&self, at: usize) -> [u8; WORD] {
        self.data.get(at).copied().unwrap_or_default()
    }

    /// Returns the 64 bits at a multiple of 8 bytes.
    pub(super) fn u64(&self, byte: usize) -> u64 {
        u64::from_le_bytes(self.word(byte / WORD))
    }

    /// Returns the 32 bits at a multiple of 4 bytes.
    pub(super) fn u32(&self, byte: usize) -> u32 {
        let [a, b, c, d, e, f, g, h] = self.word(byte / WORD);
        u32::from_le_bytes(if byte % WORD < 4 { [a, b, c, d] } else { [e, f, g, h] })
    }

    /// Returns the 16 bits at a multiple of 8 bytes: the schema has such fields nowhere else.
    pub(super) fn u16(&self, byte: usize) -> u16 {
        let [low, high, ..] = self.word(byte / WORD);
        u16::from_le_bytes([low, high])
    }

    fn place(&self, index: usize) -> Option<usize> {
        (index < self.pointer_count).then(|| self.pointers + index)
    }

    /// Returns a struct field; `None` if it was never set.
    pub(super) fn structure(&self, index: usize) -> Result<Option<Struct<'m, 'a>>, CapnpError> {
        self.place(index).map_or(Ok(None), |at| self.message.structure(self.segment, at))
    }

    /// Returns a field that is a list of structs.
    pub(super) fn structures(&self, index: usize) -> Result<Option<List<'m, 'a>>, CapnpError> {
        self.place(index).map(|at| self.message.structures(self.segment, at)).transpose()
    }

    /// Returns a data field; empty if it was never set.
    pub(super) fn data(&self, index: usize) -> Result<&'a [u8], CapnpError> {
        self.place(index).map_or(Ok(&[]), |at| self.message.bytes(self.segment, at))
    }

    /// Returns a text field as bytes without its NUL; empty if it was never set.
    pub(super) fn text(&self, index: usize) -> Result<&'a [u8], CapnpError> {
        match self.data(index)? {
            [] => Ok(&[]),
            [text @ .., 0] => Ok(text),
            _ => Err(CapnpError::Text),
        }
    }
}

impl<'m, 'a> List<'m, 'a> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Iterates over the elements, which were checked to be inside the message.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Struct<'m, 'a>, CapnpError>> + use<'m, 'a> {
        let Self { message, segment, start, len, data_words, pointer_count } = *self;
        (0..len).map(move |index| {
            let at = start + index * (data_words + pointer_count);
            let data = message.words(segment, at, data_words)?;
            Ok(Struct { message, segment, data, pointers: at + data_words, pointer_count })
        })
    }
}
