//! From a flist to a container's root: starts or finds its server, lays the overlay on top.
