//! Container log files: CRI line format, writer with rotation, reader with tail and follow.
