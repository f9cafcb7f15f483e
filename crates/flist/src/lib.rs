//! Flists as `rfs` writes and reads them: metadata, blocks, stores, cache, pack. A library, no FUSE.
//!
//! Takes in: a `.fl` file (SQLite metadata) and the stores its routes name; or a tree to pack.
//! Gives out: a validated tree in memory, exact file content, verified byte for byte; or a `.fl` that the real `rfs` reads.
//! Never does: mounts, FUSE, async. Never answers a read with zeros, stale bytes or fewer bytes than the file has;
//! never writes next to a flist it reads; never shows a password of a store in an error.
//!
//! ```text
//! "http://…/x.fl" ──source::fetch──> <cache>/fl/<hash>.fl ──Flist::open──> tree in memory (database closed again)
//!                                                                              │
//! read(ino, offset) ──Content::read_at──> recent blocks (memory) ──> BlockCache <cache>/blocks/xx/<key> (plain)
//!                                                      │ miss: one fetch per block, id checked, opened, key checked
//!                                                      └──> Routes ──> dir:// http(s):// zdb:// s3://
//!
//! directory, or entries of another source ──pack──> blocks in stores + out.fl
//! ```
//!
//! Two other crates stand on this one: `contd-image` packs container images, `contd-flist-legacy` reads the older `.flist`
//! (its blocks, which have another cipher, are opened here).
//!
//! Everything here blocks the calling thread and is `Send + Sync`; async callers use their blocking pool.
//! Every error enum has `hint()` (what to do next) and `kind()` (its class, [`FlistErrorKind`]).
//!
//! # Use
//!
//! ```ignore
#![doc = include_str!("../examples/read.rs")]
//! ```
#![forbid(unsafe_code)]

mod allow;
pub mod atomic;
pub mod block;
pub mod cache;
mod clock;
pub mod content;
mod error;
pub mod hash;
mod http;
pub mod image;
pub mod listing;
pub mod metadata;
mod net;
pub mod pack;
pub mod regular;
pub mod route;
pub mod source;
pub mod store;
mod sweep;
pub mod unfinished;
pub mod unpack;
mod url;
pub mod verify;
mod xxtea;

pub use allow::{UrlPrefix, permitted};
pub use block::{BLOCK_SIZE, BlockError, SealedBlock};
pub use cache::{BlockCache, CacheError, CacheLimits, CacheOptions, HeldObject};
pub use content::{Content, ReadError};
pub use error::FlistErrorKind;
pub use hash::{BlockId, BlockKey, BlockRef, hash_file};
pub use image::{ImageDefaults, ImageTagError};
pub use metadata::{Children, FileKind, Flist, Inode, MetadataError, ROOT_INO, Route};
pub use net::NetRoutes;
pub use pack::{PackError, PackOptions, PackProgress, PackReport, pack, pack_tree};
pub use source::{
    FetchError, FetchProgress, FetchedFlist, FlistSource, SourceError, fetch, fetch_opened, fetch_permitted,
};
pub use store::{BlockStore, DirRoutes, RoutePolicy, Routes, StoreError};
pub use sweep::{BlockProgress, BlockSource};
pub use unpack::{UnpackError, UnpackOptions, UnpackReport, unpack};
pub use url::split_scheme;
pub use verify::{BadBlock, VerifyReport, verify};
