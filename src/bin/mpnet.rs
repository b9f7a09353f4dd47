//! `mpnet`: everything beside training and conversion.

use mpnet::cli::{exit, verbs};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::code(verbs::main(std::env::args_os()))
}
