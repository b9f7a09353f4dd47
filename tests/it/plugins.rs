//! Providers in libraries of their own. The plug-in of OpenVINO computes on the processor, so that any machine that it
//! is published for runs these.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use assert_cmd::Command;

use crate::common::{binary, failure, repository, stdout};

fn verify(provider: &str) -> Command {
    let mut command = binary("mpnet", &repository(""));
    command.args(["verify", "--provider", provider, "--case"]);
    command.arg(repository("tests/data/golden/postln-padded"));
    command
}

/// By name, and by the path of its library.
#[test]
fn a_golden_case_passes_on_a_plug_in() {
    let printed = stdout(&mut verify("plugin:openvino"));
    assert!(printed.contains(" 0 outside"), "{printed}");
    let mut install = binary("mpnet", &repository(""));
    install.args(["runtime", "install", "plugin:openvino"]);
    let library = stdout(&mut install);
    let printed = stdout(&mut verify(&format!("plugin:{}", library.trim())));
    assert!(printed.contains(" 0 outside"), "{printed}");
    let mut doctor = binary("mpnet", &repository(""));
    let printed = stdout(doctor.arg("doctor"));
    assert!(printed.contains("--device-id 0: "), "{printed}");
}

/// fp32 is fp32 also where OpenVINO would choose bf16 by itself, and bf16 is another arithmetic.
#[test]
fn openvino_computes_in_the_precision_that_is_asked_for() {
    let first_error = |precision: &str| -> f64 {
        let mut command = verify("plugin:openvino");
        let printed = stdout(command.args(["--precision", precision]));
        let mut lines = printed.lines();
        let logits = lines.find(|line| line.starts_with("logits")).unwrap();
        logits.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    assert!(first_error("fp32") < 1e-4);
    let mut doctor = binary("mpnet", &repository(""));
    if stdout(doctor.arg("doctor")).contains("multiplies matrices in bf16") {
        assert!(first_error("bf16") > 1e-4);
    }
}

#[test]
fn what_cannot_load_a_plug_in_says_so() {
    let mut command = binary("mpnet", &repository(""));
    command.args(["runtime", "install"]);
    let old = stdout(&mut command);
    let mut command = verify("plugin:openvino");
    let said = failure(command.args(["--ort", old.trim()]), 1);
    assert!(said.contains("1.19.2") && said.contains("1.22"), "{said}");
    let said = failure(&mut verify("plugin:/nowhere/libplugin.so"), 1);
    assert!(
        said.contains("no plug-in at /nowhere/libplugin.so"),
        "{said}"
    );
    let said = failure(&mut verify("plugin:opnvino"), 2);
    assert!(said.contains("plugin:openvino"), "{said}");
}
