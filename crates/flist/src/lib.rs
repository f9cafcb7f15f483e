//! Flists as rfs writes and reads them: metadata, blocks, stores, cache, pack. A library, no FUSE.
