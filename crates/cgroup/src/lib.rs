//! The cgroups of one container, on cgroup v1, the hybrid of both, and v2.
#![deny(unsafe_code)]
