//! The `tunnelhead` binary: everything lives in the library.

fn main() {}
