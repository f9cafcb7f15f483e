//! Files that are whole or absent: atomic replacement behind a trait that tests can make fail.
