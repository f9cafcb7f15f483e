//! The bytes of the FUSE protocol (7.40 of `linux/fuse.h`), the part that a read-only file system needs.
//!
//! Requests are decoded field by field with bounds checks, replies are appended field by field: no struct is laid over
//! memory. All numbers are in the byte order of the machine, as the kernel has them.

use crate::negotiate::Negotiated;

/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The newest minor version that this code knows.
pub const MINOR: u32 = 40;
/// The oldest kernel's minor version that is served (Linux 5.4): `max_pages` and cached symlinks are there.
pub const OLDEST_MINOR: u32 = 31;

/// Bytes of the header of each request.
pub const IN_HEADER_BYTES: usize = 40;
/// Bytes of the header of each reply.
pub const OUT_HEADER_BYTES: usize = 16;
/// The least that a read from `/dev/fuse` must offer (`FUSE_MIN_READ_BUFFER`); without writes, no request is longer.
pub const REQUEST_BUFFER_BYTES: usize = 8 * 1024;
/// The most bytes that one READ may ask for: 64 pages. Each thread has a buffer of that size.
pub const MAX_READ_BYTES: u32 = 256 * 1024;
/// The same in pages.
pub const MAX_PAGES: u16 = 64;
/// The most that the kernel reads ahead: a few READs, so that several threads work for a sequential reader.
pub const MAX_READ_AHEAD_BYTES: u32 = 4 * MAX_READ_BYTES;

/// Flags of INIT: the low half is `flags`, the high half `flags2`.
pub mod init_flag {
    /// Many reads of one file at once.
    pub const ASYNC_READ: u64 = 1;
    /// READDIRPLUS exists.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// Lookups and listings in one directory at the same time.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// Reads of more than 128 KiB.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// Symlink targets stay in the page cache.
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    /// OPENDIR may be refused once and for all, and is not sent again.
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// There is a `flags2`.
    pub const INIT_EXT: u64 = 1 << 30;
    /// A file may be passed through to another one.
    pub const PASSTHROUGH: u64 = 1 << 37;
}

/// Flags of an answered OPEN or OPENDIR.
pub mod open_flag {
    /// The content in the page cache stays valid.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// A listing may be cached.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// No FLUSH on close: else `close(2)` would wait for the server.
    pub const NOFLUSH: u32 = 1 << 5;
    /// Reads go to the file behind the backing id.
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// A request of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The first request of all.
    Init(Init),
    /// The last one, for some kinds of mount.
    Destroy,
    /// A name in a directory.
    Lookup {
        /// The name, without its NUL.
        name: &'a [u8],
    },
    /// The kernel drops an inode, or many. No answer.
    Forget,
    /// The attributes of a node.
    Getattr,
    /// A symlink's target.
    Readlink,
    /// Opens a file.
    Open,
    /// Reads from a file.
    Read(Read),
    /// Closes a file.
    Release {
        /// The handle that OPEN returned.
        handle: u64,
    },
    /// Closes a directory.
    Releasedir,
    /// Opens a directory.
    Opendir,
    /// Lists a directory.
    Readdir(Read),
    /// Lists a directory with attributes.
    Readdirplus(Read),
    /// The figures of the file system.
    Statfs,
    /// A process that waits for an answer was signalled. No answer needed.
    Interrupt,
    /// A call of a device or of a certain file system.
    Ioctl,
    /// Anything that would change something.
    Change,
    /// Anything else.
    Unknown(u32),
}

/// The kernel's side of INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// Its major version.
    pub major: u32,
    /// Its minor version.
    pub minor: u32,
    /// The most it reads ahead, in bytes.
    pub max_readahead: u32,
    /// The features of the kernel.
    pub flags: u64,
}

/// From where and how much; for a listing, the cookie of the last entry and the size of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// In bytes, or entries.
    pub offset: u64,
    /// In bytes.
    pub size: u32,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// To be repeated in the reply.
    pub unique: u64,
    /// Which inode.
    pub node: u64,
    /// The operation.
    pub operation: Operation<'a>,
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not even a header, so there is nobody to answer.
    #[error("decode a request of {len} bytes: it is shorter than its header")]
    NoHeader {
        /// How many came.
        len: usize,
    },
    /// The header's length is not what came, or the body is too short for its operation.
    #[error("decode request {unique}, operation {opcode}, of {len} bytes: its body is cut off")]
    Short {
        /// To be repeated in the reply.
        unique: u64,
        /// The operation.
        opcode: u32,
        /// How many bytes came.
        len: usize,
    },
}

mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const READLINK: u32 = 5;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const STATFS: u32 = 17;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const INIT: u32 = 26;
    pub(super) const OPENDIR: u32 = 27;
    pub(super) const READDIR: u32 = 28;
    pub(super) const RELEASEDIR: u32 = 29;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const IOCTL: u32 = 39;
    pub(super) const BATCH_FORGET: u32 = 42;
    pub(super) const READDIRPLUS: u32 = 44;
    /// SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE,
    /// RENAME2, COPY_FILE_RANGE, TMPFILE. A read-only mount never sends them; one remounted by hand might.
    pub(super) const CHANGES: [u32; 16] = [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51];
}

/// Takes numbers from the front of a slice.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*bytes))
    }
}

/// Returns the length that the header of a request names.
pub fn declared_bytes(request: &[u8]) -> Option<usize> {
    usize::try_from(Cursor(request).u32()?).ok()
}

impl<'a> Request<'a> {
    /// Decodes what one read from `/dev/fuse` gave.
    ///
    /// # Errors
    /// [`WireError`]; a [`WireError::Short`] still has somebody to answer.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let len = bytes.len();
        let no_header = WireError::NoHeader { len };
        let (header, body) = bytes.split_at_checked(IN_HEADER_BYTES).ok_or(no_header)?;
        let mut cursor = Cursor(header);
        let declared = cursor.u32().ok_or(no_header)?;
        let opcode = cursor.u32().ok_or(no_header)?;
        let unique = cursor.u64().ok_or(no_header)?;
        let node = cursor.u64().ok_or(no_header)?;
        let short = WireError::Short { unique, opcode, len };
        if usize::try_from(declared) != Ok(len) {
            return Err(short);
        }
        let operation = Self::operation(opcode, body).ok_or(short)?;
        Ok(Self { unique, node, operation })
    }

    fn operation(opcode: u32, body: &'a [u8]) -> Option<Operation<'a>> {
        Some(match opcode {
            opcode::INIT => Operation::Init(Self::init(body)?),
            opcode::DESTROY => Operation::Destroy,
            opcode::LOOKUP => Operation::Lookup { name: body.split(|byte| *byte == 0).next()? },
            opcode::FORGET | opcode::BATCH_FORGET => Operation::Forget,
            opcode::GETATTR => Operation::Getattr,
            opcode::READLINK => Operation::Readlink,
            opcode::OPEN => Operation::Open,
            opcode::READ => Operation::Read(Self::read(body)?),
            opcode::RELEASE => Operation::Release { handle: Cursor(body).u64()? },
            opcode::RELEASEDIR => Operation::Releasedir,
            opcode::OPENDIR => Operation::Opendir,
            opcode::READDIR => Operation::Readdir(Self::read(body)?),
            opcode::READDIRPLUS => Operation::Readdirplus(Self::read(body)?),
            opcode::STATFS => Operation::Statfs,
            opcode::INTERRUPT => Operation::Interrupt,
            opcode::IOCTL => Operation::Ioctl,
            other if opcode::CHANGES.contains(&other) => Operation::Change,
            other => Operation::Unknown(other),
        })
    }

    fn init(body: &[u8]) -> Option<Init> {
        let mut cursor = Cursor(body);
        let (major, minor, max_readahead) = (cursor.u32()?, cursor.u32()?, cursor.u32()?);
        let low = u64::from(cursor.u32()?);
        let high = if low & init_flag::INIT_EXT == 0 { 0 } else { u64::from(cursor.u32()?) };
        Some(Init { major, minor, max_readahead, flags: low | high << 32 })
    }

    fn read(body: &[u8]) -> Option<Read> {
        let mut cursor = Cursor(body);
        let _file_handle = cursor.u64()?;
        Some(Read { offset: cursor.u64()?, size: cursor.u32()? })
    }
}

/// The attributes of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The inode number.
    pub ino: u64,
    /// In bytes.
    pub size: u64,
    /// In seconds since 1970; may be negative.
    pub mtime: i64,
    /// In seconds since 1970; may be negative.
    pub ctime: i64,
    /// Type and permissions.
    pub mode: u32,
    /// Links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number in the kernel's encoding.
    pub rdev: u32,
}

/// The block size that `stat` shows.
pub const BLOCK_BYTES: u32 = 4096;
/// The unit of `st_blocks`.
const SECTOR_BYTES: u64 = 512;

/// Grows a reply's body, field by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body(Vec<u8>);

impl Body {
    /// Makes an empty one with room.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Returns the bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Appends `fuse_init_out`.
    pub fn init(&mut self, agreed: &Negotiated, max_background: u16) -> &mut Self {
        let congestion_threshold = max_background / 4 * 3;
        let [low, high] = [agreed.flags, agreed.flags >> 32].map(|half| u32::try_from(half & 0xffff_ffff).unwrap_or(0));
        self.u32(MAJOR).u32(agreed.minor).u32(agreed.max_readahead).u32(low);
        self.u16(max_background).u16(congestion_threshold).u32(BLOCK_BYTES);
        // Times are whole seconds: a granularity of 10^9 ns, the most the kernel takes.
        self.u32(1_000_000_000).u16(MAX_PAGES).u16(0).u32(high).u32(agreed.max_stack_depth);
        for _unused in 0..6 {
            self.u32(0);
        }
        self
    }

    /// Appends `fuse_entry_out`.
    pub fn entry(&mut self, attributes: &Attributes, valid_seconds: u64) -> &mut Self {
        let generation = 0;
        self.u64(attributes.ino).u64(generation).u64(valid_seconds).u64(valid_seconds).u32(0).u32(0);
        self.attributes(attributes)
    }

    /// Appends a `fuse_entry_out` of node 0: in LOOKUP a name that does not exist, in READDIRPLUS one without attributes.
    pub fn no_entry(&mut self, valid_seconds: u64) -> &mut Self {
        self.u64(0).u64(0).u64(valid_seconds).u64(0).u32(0).u32(0);
        self.attributes(&Attributes { ino: 0, size: 0, mtime: 0, ctime: 0, mode: 0, nlink: 0, uid: 0, gid: 0, rdev: 0 })
    }

    /// Appends `fuse_attr_out`.
    pub fn attributes_reply(&mut self, attributes: &Attributes, valid_seconds: u64) -> &mut Self {
        self.u64(valid_seconds).u32(0).u32(0);
        self.attributes(attributes)
    }

    fn attributes(&mut self, a: &Attributes) -> &mut Self {
        // The format has no atime; mtime is the least surprising answer.
        let [atime, mtime, ctime] = [a.mtime, a.mtime, a.ctime].map(i64::cast_unsigned);
        self.u64(a.ino).u64(a.size).u64(a.size.div_ceil(SECTOR_BYTES)).u64(atime).u64(mtime).u64(ctime);
        self.u32(0).u32(0).u32(0);
        self.u32(a.mode).u32(a.nlink).u32(a.uid).u32(a.gid).u32(a.rdev).u32(BLOCK_BYTES).u32(0)
    }

    /// Appends `fuse_open_out`; a backing id of 0 is none.
    pub fn open(&mut self, handle: u64, flags: u32, backing_id: u32) -> &mut Self {
        self.u64(handle).u32(flags).u32(backing_id)
    }

    /// Appends `fuse_kstatfs` of a full, read-only file system.
    pub fn statfs(&mut self, blocks: u64, files: u64) -> &mut Self {
        self.u64(blocks).u64(0).u64(0).u64(files).u64(0);
        self.u32(BLOCK_BYTES).u32(255).u32(BLOCK_BYTES).u32(0);
        for _spare in 0..6 {
            self.u32(0);
        }
        self
    }

    /// Appends `fuse_dirent` with its name, padded to 8 bytes.
    pub fn dirent(&mut self, ino: u64, next_offset: u64, mode: u32, name: &[u8]) -> &mut Self {
        // Names have at most 255 bytes.
        let name_bytes = u32::try_from(name.len()).unwrap_or(u32::MAX);
        self.u64(ino).u64(next_offset).u32(name_bytes).u32(mode >> 12 & 0o17);
        self.0.extend_from_slice(name);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    /// Returns how many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes of `fuse_entry_out`.
pub const ENTRY_BYTES: usize = 128;
/// Bytes of `fuse_dirent` without its name.
const DIRENT_BYTES: usize = 24;

/// Returns how much room an entry of a listing takes.
pub fn dirent_bytes(name: &[u8], has_attributes: bool) -> usize {
    let entry = if has_attributes { ENTRY_BYTES } else { 0 };
    entry + (DIRENT_BYTES + name.len()).next_multiple_of(8)
}

/// Returns the header of a reply: `errno` is 0 for an answer with a body, otherwise positive.
pub fn reply_header(unique: u64, errno: i32, body_bytes: usize) -> [u8; OUT_HEADER_BYTES] {
    // Bodies have at most MAX_READ_BYTES.
    let len = u32::try_from(OUT_HEADER_BYTES + body_bytes).unwrap_or(u32::MAX);
    let [a, b, c, d] = len.to_ne_bytes();
    let [e, f, g, h] = errno.saturating_neg().to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = unique.to_ne_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(IN_HEADER_BYTES + body.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&len.to_ne_bytes());
        bytes.extend_from_slice(&opcode.to_ne_bytes());
        bytes.extend_from_slice(&7u64.to_ne_bytes());
        bytes.extend_from_slice(&3u64.to_ne_bytes());
        bytes.resize(IN_HEADER_BYTES, 0);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn every_prefix_of_a_request_is_refused_and_never_panics() {
        let body = [0x11; 40];
        for opcode in [0, 1, 2, 3, 5, 14, 15, 17, 18, 26, 27, 28, 29, 36, 38, 42, 44, 4096, u32::MAX] {
            let whole = request(opcode, &body);
            assert!(Request::decode(&whole).is_ok(), "{opcode}");
            for cut in 0..whole.len() {
                assert!(Request::decode(&whole[..cut]).is_err(), "{opcode} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_body_too_short_for_its_operation_names_whom_to_answer() {
        for opcode in [opcode::READ, opcode::READDIR, opcode::READDIRPLUS, opcode::INIT] {
            let error = Request::decode(&request(opcode, &[0; 12])).unwrap_err();
            assert!(matches!(error, WireError::Short { unique: 7, .. }), "{error}");
        }
    }

    #[test]
    fn a_name_ends_at_its_nul_and_a_read_has_offset_and_size() {
        let bytes = request(opcode::LOOKUP, b"etc\0");
        let decoded = Request::decode(&bytes).unwrap();
        assert_eq!(decoded, Request { unique: 7, node: 3, operation: Operation::Lookup { name: b"etc" } });
        let mut body = 9u64.to_ne_bytes().to_vec();
        body.extend_from_slice(&524_288u64.to_ne_bytes());
        body.extend_from_slice(&4096u32.to_ne_bytes());
        let bytes = request(opcode::READ, &body);
        let decoded = Request::decode(&bytes).unwrap();
        assert_eq!(decoded.operation, Operation::Read(Read { offset: 524_288, size: 4096 }));
    }

    #[test]
    fn replies_have_the_sizes_that_the_kernel_checks() {
        let attributes =
            Attributes { ino: 2, size: 513, mtime: -1, ctime: 5, mode: 0o100_644, nlink: 1, uid: 1, gid: 2, rdev: 0 };
        assert_eq!(Body::default().entry(&attributes, 1).len(), ENTRY_BYTES);
        assert_eq!(Body::default().no_entry(1).len(), ENTRY_BYTES);
        assert_eq!(Body::default().attributes_reply(&attributes, 1).len(), 104);
        let agreed = Negotiated { minor: MINOR, max_readahead: 1, flags: 2 << 32 | 3, max_stack_depth: 4 };
        let mut body = Body::default();
        assert_eq!(body.init(&agreed, 16).len(), 64);
        let word = |at: usize| u32::from_ne_bytes(body.0[at..at + 4].try_into().unwrap());
        assert_eq!([0, 4, 8, 12, 32, 36].map(word), [MAJOR, MINOR, 1, 3, 2, 4]);
        assert_eq!(Body::default().open(1, 0, 0).len(), 16);
        assert_eq!(Body::default().statfs(1, 1).len(), 80);
        for name in [&b"a"[..], b"12345678", b"123456789"] {
            assert_eq!(Body::default().dirent(1, 1, 0, name).len(), dirent_bytes(name, false));
        }
    }

    #[test]
    fn the_high_half_of_the_flags_counts_only_when_the_kernel_says_so() {
        let mut body = [7u32, 45, 4096, 1, 6].map(u32::to_ne_bytes).concat();
        body.resize(64, 0);
        let flags = |body: &[u8]| match Request::decode(&request(opcode::INIT, body)).unwrap().operation {
            Operation::Init(init) => init.flags,
            other => panic!("{other:?}"),
        };
        assert_eq!(flags(&body), 1);
        body[12..16].copy_from_slice(&(1u32 << 30).to_ne_bytes());
        assert_eq!(flags(&body), 6 << 32 | init_flag::INIT_EXT);
    }

    #[test]
    fn an_error_travels_as_a_negative_number() {
        let header = reply_header(0x0102, 5, 0);
        assert_eq!(header[..4], 16u32.to_ne_bytes());
        assert_eq!(header[4..8], (-5i32).to_ne_bytes());
        assert_eq!(header[8..], 0x0102u64.to_ne_bytes());
    }
}
