//! Container records, replaced atomically, and the event journal.
