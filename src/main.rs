//! The `tunnelhead` binary: everything lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tunnelhead::cli::run()
}
