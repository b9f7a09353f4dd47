//! `pretrain-mpnet`: trains MPNet from text.

use mpnet::cli::{exit, pretrain};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::code(pretrain::main(std::env::args_os()))
}
