//! From our container spec to an OCI bundle: config.json with the secure defaults.
