//! API and shim messages, framing and the codec: no I/O.
