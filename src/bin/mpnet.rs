//! `mpnet`: everything beside training and conversion.

use anyhow::Result;
use clap::{Parser, Subcommand};
use mpnet::cli::{
    compile, doctor, eval, exit, export, graph, import, report, runtime, tokenizer, verify,
};
use std::process::ExitCode;

/// Compile, verify and look after MPNet training with ONNX Runtime.
#[derive(Debug, Parser)]
#[command(name = "mpnet", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What of ONNX Runtime is on this machine, and what it lacks
    Doctor(doctor::DoctorArgs),
    /// Fetch and list builds of ONNX Runtime
    #[command(subcommand)]
    Runtime(runtime::RuntimeCommand),
    /// Write the artifacts of a model
    Compile(compile::CompileArgs),
    /// Print a model's graph and its figures
    Graph(graph::GraphArgs),
    /// Run golden cases and print every difference
    Verify(verify::VerifyArgs),
    /// A HuggingFace folder or PyTorch file as a native checkpoint
    Import(import::ImportArgs),
    /// A checkpoint's encoder for other programs
    Export(export::ExportArgs),
    /// Loss and accuracy of a model, in any format, on text
    Eval(eval::EvalArgs),
    /// One HTML page of a run: curves, events, settings
    Report(report::ReportArgs),
    /// Make or check a tokenizer
    Tokenizer(tokenizer::TokenizerArgs),
}

fn run(verb: &Verb) -> Result<u8> {
    match verb {
        Verb::Doctor(args) => doctor::run(args)?,
        Verb::Runtime(command) => runtime::run(command)?,
        Verb::Compile(args) => return compile::run(args),
        Verb::Graph(args) => graph::run(args)?,
        Verb::Verify(args) => return verify::run(args),
        Verb::Import(args) => import::run(args)?,
        Verb::Export(args) => export::run(args)?,
        Verb::Eval(args) => eval::run(args)?,
        Verb::Report(args) => report::run(args)?,
        Verb::Tokenizer(args) => return tokenizer::run(args),
    }
    Ok(exit::DONE)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit::init_logging(false);
    exit::code(run(&arguments.verb))
}
