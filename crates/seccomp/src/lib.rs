//! From the seccomp section of an OCI configuration to BPF.
#![deny(unsafe_code)]
