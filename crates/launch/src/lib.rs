//! The native launcher: from an OCI bundle to a running, isolated process.
#![deny(unsafe_code)]
