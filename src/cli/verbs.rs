//! `mpnet`: the verbs, one file each.

use super::{
    compile, doctor, eval, exit, export, finetune, flags_page, graph, import, manual, plan, report,
    runtime, tokenizer, verify,
};
use crate::output::say;
use anyhow::Result;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// What follows the list of verbs.
const EXAMPLES: &str = "\
Examples:
  See what runs on this machine, and what is missing:
    mpnet doctor
  Evaluate the best checkpoint of a run:
    mpnet eval checkpoints --text 'texts/**/*.txt'
  Export it for ONNX Runtime, Optimum and sentence-transformers:
    mpnet export checkpoints --output my-onnx --head sentence --normalize";

/// Import, export and evaluate MPNet models, make tokenizers, report on runs, and look after the ONNX
/// Runtime that trains them
#[derive(Debug, Parser)]
#[command(name = "mpnet", version, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Examine what of ONNX Runtime is on this machine, and say what it lacks
    Doctor(doctor::DoctorArgs),
    /// Fetch and list builds of ONNX Runtime
    #[command(subcommand)]
    Runtime(runtime::RuntimeCommand),
    /// Write the files that ONNX Runtime trains a model from
    Compile(compile::CompileArgs),
    /// Print a model's graph and its figures
    Graph(graph::GraphArgs),
    /// Run golden cases and print every difference
    Verify(verify::VerifyArgs),
    /// Make a checkpoint of a HuggingFace folder or PyTorch file
    Import(import::ImportArgs),
    /// Write a checkpoint's encoder for other programs
    Export(export::ExportArgs),
    /// Measure loss and accuracy of a model, in any format, on text
    Eval(eval::EvalArgs),
    /// Train a model for a task: sentence embeddings, for sentence-transformers
    Finetune(Box<finetune::FinetuneArgs>),
    /// Write one HTML page of a run: curves, events, settings
    Report(report::ReportArgs),
    /// Reckon what a run would come to on many GPUs
    Plan(plan::PlanArgs),
    /// Make or check a tokenizer
    Tokenizer(tokenizer::TokenizerArgs),
    /// Write completions of the three programs' flags for a shell
    Completions(manual::CompletionsArgs),
    /// Write the three programs' pages for `man`
    Man(manual::ManArgs),
    /// Print the page of all flags, docs/flags.md
    #[command(hide = true)]
    Flags,
}

/// The verb whose arguments are a run's.
const FINETUNE: &str = "finetune";

/// The command with all verbs.
pub fn command() -> Command {
    Arguments::command().mut_subcommand(FINETUNE, finetune::with_defaults)
}

/// Parses `arguments` and does what the verb says. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Its flags may come from a file, and are those of a run.
    if arguments.get(1).is_some_and(|verb| verb == FINETUNE) {
        return finetune::main(arguments.into_iter().skip(1));
    }
    let matches = command().get_matches_from(arguments);
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    exit::init_logging(false)?;
    match &arguments.verb {
        Verb::Doctor(args) => doctor::run(args)?,
        Verb::Runtime(command) => runtime::run(command)?,
        Verb::Compile(args) => return compile::run(args),
        Verb::Graph(args) => graph::run(args)?,
        Verb::Verify(args) => return verify::run(args),
        Verb::Import(args) => import::run(args)?,
        Verb::Export(args) => export::run(args)?,
        Verb::Eval(args) => eval::run(args)?,
        Verb::Finetune(_) => {
            let first = "finetune is to be the first word behind mpnet";
            return Err(exit::UsageError(first.into()).into());
        }
        Verb::Report(args) => report::run(args)?,
        Verb::Plan(args) => plan::run(args)?,
        Verb::Tokenizer(args) => return tokenizer::run(args),
        Verb::Completions(args) => manual::completions(args, command())?,
        Verb::Man(args) => manual::man(args, command())?,
        Verb::Flags => say!("{}", flags_page::page(&command()).trim_end())?,
    }
    Ok(exit::DONE)
}
