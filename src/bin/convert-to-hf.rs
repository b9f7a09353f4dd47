//! `convert-to-hf`: checkpoints to HuggingFace's layout.

use mpnet::cli::{convert, exit};
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::code(convert::main(std::env::args_os()))
}
