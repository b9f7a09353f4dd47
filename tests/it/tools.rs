//! `mpnet`'s verbs in their first form, as a user types them.

use std::path::Path;

use crate::common::{
    binary, failure, failure_without_a_trace, files, pretrain, repository, stdout,
};

fn mpnet(folder: &Path, arguments: &[&str]) -> assert_cmd::Command {
    let mut command = binary("mpnet", folder);
    command.args(arguments);
    command
}

#[test]
fn every_binary_explains_itself() {
    let here = repository("");
    for name in ["pretrain-mpnet", "convert-to-hf", "mpnet"] {
        assert!(stdout(binary(name, &here).arg("--help")).contains("Usage:"));
        let said = failure(binary(name, &here).arg("--no-such-flag"), 2);
        assert!(said.contains("--no-such-flag"), "{said}");
    }
    let commands = commands(&stdout(&mut mpnet(&here, &["--help"])));
    for verb in [
        "import",
        "export",
        "eval",
        "doctor",
        "runtime",
        "compile",
        "graph",
        "verify",
        "report",
        "tokenizer",
    ] {
        assert!(
            commands.iter().any(|c| c == verb),
            "no {verb}: {commands:?}"
        );
    }
    for verb in commands {
        let help = stdout(&mut mpnet(&here, &[&verb, "--help"]));
        assert!(help.contains("Usage:"), "{verb}: {help}");
        let said = failure(&mut mpnet(&here, &[&verb, "--no-such-flag"]), 2);
        assert!(said.contains("--no-such-flag"), "{verb}: {said}");
    }
}

/// The commands that a help lists, but for `help` itself.
fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    // An entry is indented by two columns, what goes on below it by more.
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn shells_and_man_know_the_flags_of_every_program() {
    let folder = tempfile::tempdir().unwrap();
    let shells = ["completions", "bash", "--output", "shells"];
    let written = stdout(&mut mpnet(folder.path(), &shells));
    let programs = [
        ("pretrain-mpnet", "--gradient-checkpointing"),
        ("convert-to-hf", "--trim-vocab"),
        ("mpnet", "tokenizer"),
    ];
    for (program, flag) in programs {
        let file = written.lines().find(|line| line.contains(program));
        let text = std::fs::read_to_string(folder.path().join(file.unwrap())).unwrap();
        assert!(text.contains(flag), "{program}: {text}");
    }
    stdout(&mut mpnet(folder.path(), &["man", "--output", "a/pages"]));
    let page = |name: &str| std::fs::read_to_string(folder.path().join("a/pages").join(name));
    // roff writes a dash as `\-`.
    let page_of_export = page("mpnet-export.1").unwrap();
    assert!(page_of_export.contains(r"\-\-opset"), "{page_of_export}");
    assert!(page("pretrain-mpnet.1").unwrap().contains(r"\-\-preset"));
    let said = failure(
        &mut mpnet(folder.path(), &["completions", "tcsh", "--output", "x"]),
        2,
    );
    assert!(said.contains("bash"), "{said}");
}

#[test]
fn a_verb_without_its_arguments_is_a_usage_error() {
    for verb in ["import", "export", "eval"] {
        let said = failure(&mut mpnet(&repository(""), &[verb]), 2);
        assert!(
            said.contains("required") && said.contains("<MODEL>"),
            "{said}"
        );
    }
}

#[test]
fn doctor_names_a_truncated_library_and_the_line_that_replaces_it() {
    let path = stdout(&mut mpnet(&repository(""), &["runtime", "path"]));
    let library = Path::new(path.trim());
    let is_build = |folder: &&Path| folder.join("build.json").is_file();
    let build = library.ancestors().find(is_build).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let copy = cache
        .path()
        .join("onnxruntime")
        .join(build.file_name().unwrap());
    let truncated = copy.join(library.strip_prefix(build).unwrap());
    std::fs::create_dir_all(truncated.parent().unwrap()).unwrap();
    std::fs::copy(build.join("build.json"), copy.join("build.json")).unwrap();
    std::fs::write(&truncated, &std::fs::read(library).unwrap()[..1_000_000]).unwrap();
    let mut command = mpnet(&repository(""), &["doctor"]);
    let output = command.env("MPNET_CACHE", cache.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("has 1000000 of "), "{printed}");
    let fix = "fix: mpnet runtime install --force onnxruntime-training-cpu";
    assert!(printed.contains(fix), "{printed}");
}

#[test]
fn doctor_runs_an_op_on_the_cpu() {
    let printed = stdout(&mut mpnet(&repository(""), &["doctor"]));
    assert!(printed.contains("has the training API"), "{printed}");
    let cpu = printed
        .lines()
        .find(|line| line.starts_with("cpu"))
        .unwrap();
    assert!(cpu.contains("works"), "{cpu}");
    for provider in ["cuda", "rocm", "migraphx", "directml", "openvino", "webgpu"] {
        assert!(printed.contains(provider), "no {provider}: {printed}");
    }
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn doctor_lets_two_ranks_sum_something() {
    stdout(&mut mpnet(&repository(""), &["runtime", "install", "mpi"]));
    let listed = stdout(&mut mpnet(&repository(""), &["runtime", "list"]));
    assert!(listed.contains("mpich 5.0.2"), "{listed}");
    let printed = stdout(&mut mpnet(&repository(""), &["doctor"]));
    let mut lines = printed.lines().skip_while(|line| !line.starts_with("mpi "));
    let sum = lines.find(|line| line.contains(" over 2 ranks"));
    assert!(
        sum.is_some_and(|line| line.contains("works: ")),
        "{printed}"
    );
    assert!(
        printed.lines().any(|line| line.starts_with("nccl ")),
        "{printed}"
    );
}

#[test]
fn runtime_names_the_library_and_a_file_that_is_there() {
    let printed = stdout(&mut mpnet(&repository(""), &["runtime", "path"]));
    assert!(Path::new(printed.trim()).is_file(), "{printed}");
    let listed = stdout(&mut mpnet(&repository(""), &["runtime", "list"]));
    assert!(listed.contains("onnxruntime-training-cpu"), "{listed}");
    let nowhere = ["runtime", "path", "--ort", "nowhere.whl"];
    let said = failure(&mut mpnet(&repository(""), &nowhere), 1);
    assert!(said.contains("nowhere.whl"), "{said}");
    let unknown = ["runtime", "install", "no-such-build"];
    let said = failure(&mut mpnet(&repository(""), &unknown), 1);
    assert!(said.contains("no-such-build"), "{said}");
}

#[test]
fn compile_checks_a_provider_and_names_the_nodes_that_it_lacks() {
    let check = |provider: &str| {
        let arguments = [
            "compile",
            "--preset",
            "tiny",
            "--target",
            "session",
            "--check",
            "--provider",
        ];
        mpnet(&repository(""), &[&arguments[..], &[provider]].concat())
    };
    let all = stdout(&mut check("cpu"));
    assert!(all.contains(" 0 without a kernel on cpu"), "{all}");
    assert!(!all.contains("--allow-cpu-nodes"), "{all}");

    let output = check("webgpu").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let listed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "needs --allow-cpu-nodes",
        " LogSoftmax f32, opset 18",
        " Less i64, opset 18",
    ] {
        assert!(listed.contains(line), "no '{line}': {listed}");
    }
}

#[test]
fn compile_writes_the_artifacts_of_a_target_and_nothing_for_a_wrong_model() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&mut mpnet(
        folder.path(),
        &["compile", "--preset", "tiny", "-o", "training"],
    ));
    let written: Vec<_> = files(&folder.path().join("training")).into_keys().collect();
    let expected = [
        "checkpoint",
        "eval_model.onnx",
        "optimizer_model.onnx",
        "training_model.onnx",
    ];
    assert_eq!(written, expected.map(Into::<std::path::PathBuf>::into));
    // Into a folder that holds other things, which stay.
    let other = folder.path().join("training/notes");
    std::fs::write(&other, "mine").unwrap();
    std::fs::write(folder.path().join("training/checkpoint"), "old").unwrap();
    stdout(&mut mpnet(
        folder.path(),
        &["compile", "--preset", "tiny", "-o", "training"],
    ));
    let again = files(&folder.path().join("training"));
    assert_eq!(again[Path::new("notes")], b"mine");
    assert!(again[Path::new("checkpoint")].len() > 1000);

    let refused = |arguments: &[&str], words: &[&str]| {
        let mut command = mpnet(folder.path(), &[&["compile"], arguments].concat());
        let said = failure_without_a_trace(folder.path(), &mut command, 1);
        for word in words {
            assert!(said.contains(word), "no '{word}': {said}");
        }
    };
    let path = folder.path().join("model.json");
    std::fs::write(&path, "{\"encoder_layers\": 2").unwrap();
    refused(&["--model", "model.json", "-o", "wrong"], &["model.json"]);
    // More tokens than the table of embeddings has rows.
    let golden = repository("tests/data/golden/postln-gelu/case.json");
    let case = std::fs::read_to_string(golden).unwrap();
    let text = case.replace("\"vocab_size\": 197", "\"vocab_size\": 300");
    std::fs::write(&path, text).unwrap();
    refused(
        &["--model", "model.json", "-o", "wrong"],
        &["vocab_size 300", "256"],
    );
    refused(
        &["--checkpoint", "nowhere", "-o", "wrong"],
        &["no checkpoint", "nowhere"],
    );
    refused(
        &["--preset", "tiny", "-o", "model.json"],
        &["model.json is not a folder"],
    );
    refused(
        &["--preset", "tiny", "-o", "model.json/below"],
        &["writing model.json/below"],
    );
}

#[test]
fn graph_prints_ops_and_figures() {
    let arguments = [
        "graph",
        "--preset",
        "base",
        "--batch-size",
        "16",
        "--length",
        "512",
    ];
    let printed = stdout(&mut mpnet(&repository(""), &arguments));
    for figure in ["MatMul", "GFLOP", "parameter"] {
        assert!(printed.contains(figure), "no {figure}: {printed}");
    }
    let nodes = stdout(&mut mpnet(
        &repository(""),
        &[
            "graph",
            "--preset",
            "tiny",
            "--stage",
            "evaluation",
            "--nodes",
        ],
    ));
    assert!(nodes.contains("relative_attention_bias"), "{nodes}");
}

#[test]
fn graph_prints_the_passes_of_a_stage() {
    let passes = |further: &[&str]| {
        let arguments = [&["graph", "--preset", "tiny", "--passes"], further].concat();
        mpnet(&repository(""), &arguments)
    };
    let cuda = [
        "--stage",
        "step",
        "--provider",
        "cuda",
        "--precision",
        "bf16",
    ];
    let step = stdout(&mut passes(&cuda));
    let lines: Vec<&str> = step.lines().collect();
    let place = |name| lines.iter().position(|line| *line == name);
    assert!(
        place("fuse/residual_norm") < place("differentiate"),
        "{step}"
    );
    assert!(place("differentiate") < place("lower_precision"), "{step}");
    let training = stdout(&mut passes(&[]));
    assert!(training.starts_with("differentiate\n"), "{training}");
    let cuda = [&["--stage", "evaluation-step"], &cuda[2..]].concat();
    let evaluation = stdout(&mut passes(&cuda));
    assert!(evaluation.starts_with("tidy/"), "{evaluation}");
    assert!(evaluation.contains("\nlower_precision\n"), "{evaluation}");
    let export = stdout(&mut passes(&["--stage", "export"]));
    assert!(export.contains("\nexpand\n"), "{export}");
    let refused = passes(&["--stage", "model"]).output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && words.contains("--stage step"),
        "{words}"
    );
}

#[test]
fn tokenizer_train_makes_the_example_tokenizer_again() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = repository("examples/corpus/train");
    let arguments = ["tokenizer", "train", corpus.to_str().unwrap()];
    stdout(mpnet(folder.path(), &arguments).args(["--vocab-size", "4096", "--output", "made"]));
    let made = files(&folder.path().join("made"));
    for (name, bytes) in files(&repository("examples/tokenizer")) {
        assert!(made[&name] == bytes, "{} differs", name.display());
    }
}

#[test]
fn tokenizer_check_says_what_is_there_and_what_is_lacking() {
    let folder = tempfile::tempdir().unwrap();
    let example = repository("examples/tokenizer");
    let said = stdout(mpnet(folder.path(), &["tokenizer", "check"]).arg(&example));
    for line in ["4096 tokens", "<mask>, id 4095", "it can be trained with"] {
        assert!(said.contains(line), "no '{line}': {said}");
    }
    assert!(!said.contains("LACKS") && !said.contains("poor"), "{said}");

    let config = r#"{"pad_token": "</s>"}"#;
    std::fs::copy(
        example.join("tokenizer.json"),
        folder.path().join("tokenizer.json"),
    )
    .unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let mut command = mpnet(folder.path(), &["tokenizer", "check", "."]);
    let output = command.assert().code(1).get_output().stdout.clone();
    let said = String::from_utf8(output).unwrap();
    let line = "</s> is the padding token and the end token";
    assert!(said.contains(line) && said.contains("LACKS"), "{said}");
}

/// Every command that prints, in an order in which each finds what it needs.
const PRINTING: &[&str] = &[
    "mpnet doctor",
    "mpnet runtime list",
    "mpnet runtime path",
    "mpnet runtime install",
    "mpnet graph --preset tiny --nodes --memory",
    "mpnet compile --preset tiny --output compiled",
    "mpnet compile --preset tiny --check --provider webgpu --target session",
    "mpnet verify --case CASE",
    "mpnet verify --case CASE --json",
    "mpnet tokenizer check TOKENIZER",
    "mpnet tokenizer train valid.txt --vocab-size 300 --output trained",
    "mpnet report out",
    "mpnet eval out --text valid.txt",
    "mpnet eval out --text valid.txt --json",
    "mpnet export out --output onnx",
    "convert-to-hf --mpnet-checkpoint-path out --hf-model-folder-path hf",
    "mpnet import hf --output imported",
];

/// A command of [`PRINTING`] whose standard output goes to `output`.
#[cfg(unix)]
fn printing_to(folder: &Path, line: &str, output: std::process::Stdio) -> std::process::Output {
    let (name, arguments) = line.split_once(' ').unwrap();
    let command = binary(name, folder);
    let arguments = arguments.split(' ').map(|word| match word {
        "CASE" => repository("tests/data/golden/postln-gelu"),
        "TOKENIZER" => repository("examples/tokenizer"),
        word => word.into(),
    });
    std::process::Command::new(command.get_program())
        .args(arguments)
        .current_dir(folder)
        .stdout(output)
        .output()
        .unwrap()
}

/// `mpnet … | head` ends as a command that the system stops for it would, and a full disk is an error.
#[test]
#[cfg(target_os = "linux")]
fn what_nobody_reads_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&mut pretrain(folder.path(), &["--total-updates", "1"]));
    for line in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = printing_to(folder.path(), line, writer.into());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(141), "{line}: {said}");
        let words = ["panicked", "error"];
        assert!(!words.iter().any(|w| said.contains(w)), "{line}: {said}");
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = printing_to(folder.path(), line, full.unwrap().into());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{line}: {said}");
        assert!(said.contains("standard output"), "{line}: {said}");
    }
    // What they made is whole.
    for made in ["compiled", "trained", "onnx", "hf", "imported"] {
        assert!(folder.path().join(made).is_dir(), "{made}");
    }
    assert!(folder.path().join("out/report.html").is_file());
}
