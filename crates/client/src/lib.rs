//! Async client of the API socket: the command line uses nothing else.
