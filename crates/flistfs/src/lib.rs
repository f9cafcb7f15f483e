//! contd-flistfs: serves one flist by FUSE, read-only, and outlives the daemon.
