//! Who owns what, and in which order things happen: the only place that knows actix.
