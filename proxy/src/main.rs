//! The binary. Everything is in the library; here are the allocator and the way out.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keygate::cli::main(keygate::app::run)
}
