//! The TUN device and its in-memory stand-in.
