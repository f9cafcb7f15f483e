//! Tests in which neither the runtime nor warm slots have a part: `make test` runs them once, all others in each variant.
//!
//! A test belongs here, or into a module of this name beside others of its kind, if all it asserts is decided before a shim is
//! called: flists, images, rights of callers, the API's socket, logs of removed containers, the command line.

mod command_line;
mod fairness;
mod fixtures;
mod flist_death;
mod flist_verbs;
mod hung_clients;
mod image;
mod images;
mod limited_users;
mod limited_users_rules;
mod logs_kept;
mod readme;
mod wire;
