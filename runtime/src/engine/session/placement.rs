//! Which nodes of a model ONNX Runtime puts on another provider than asked, read from what it logs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;

/// What is logged before the nodes of a provider.
const HEADING: &str = "odes placed on [";
const HEADING_OF_SOME: &str = "ode(s) placed on [";

/// The operators, with their numbers, that `builder` puts on the processor when it loads `model`; empty where the
/// log does not tell.
pub(super) fn on_processor(builder: SessionBuilder, model: &[u8]) -> String {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    let logger = Arc::new(move |_, _: &str, _: &str, _: &str, message: &str| {
        let mut lines = sink.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(message.to_owned());
    });
    if let Ok(builder) = builder.with_logger(logger)
        && let Ok(mut builder) = builder.with_log_level(LogLevel::Verbose)
    {
        // Whether it loads is not the question: the placement is logged before.
        let _ = builder.commit_from_memory(model);
    }
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    describe(&lines)
}

fn describe(lines: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut listing = false;
    for line in lines {
        if line.contains(HEADING) || line.contains(HEADING_OF_SOME) {
            listing = line.contains("[CPUExecutionProvider]");
        } else if listing {
            // `  Gather (Gather_12)`; anything else ends the list.
            match line.trim().split_once(" (") {
                Some((operator, rest)) if rest.ends_with(')') && !operator.contains(' ') => {
                    *counts.entry(operator).or_default() += 1;
                }
                Some(_) | None => listing = false,
            }
        }
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(operator, count)| format!("{count} {operator}"))
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use mpnet_plan::{Precision, Provider};
    use ort::session::Session;

    use super::{describe, on_processor};
    use crate::library::{self, Build, InstallOptions, Origin};
    use crate::provider::{self, Target};

    /// A real build's log, so that other words in it are noticed: y = 2 det(x + x), of which OpenVINO has no `Det`.
    /// `two_providers.onnx` was written by the package `onnx`.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn a_real_build_says_where_nodes_are() {
        let wheel = library::wheel_of("onnxruntime-openvino").unwrap();
        let options = InstallOptions::for_user().unwrap();
        let build = Build {
            path: library::install(Some(wheel), &options).unwrap().library(),
            origin: Origin::Cache,
        };
        let loaded = library::load(&build).unwrap();
        let builder = Session::builder(loaded.environment()).unwrap();
        let builder = builder.with_intra_threads(1).unwrap();
        let target = Target {
            provider: Provider::OpenVino,
            device_id: 0,
            precision: Precision::F32,
            plugin: None,
        };
        let builder = provider::register(builder, target, true).unwrap();
        let model = include_bytes!("../../../tests/data/two_providers.onnx");
        assert_eq!(on_processor(builder, model), "1 Add, 1 Det");

        // It has one device: another one is not passed over.
        let builder = Session::builder(loaded.environment()).unwrap();
        let target = Target {
            device_id: 1,
            ..target
        };
        let Err(error) = provider::register(builder, target, true) else {
            panic!("OpenVINO has a second device");
        };
        assert!(error.to_string().contains("--device-id 1"), "{error}");
    }

    /// As ONNX Runtime 1.24 logs it.
    #[test]
    fn counts_the_nodes_below_the_heading() {
        let lines = [
            "Node placements",
            " Node(s) placed on [OpenVINOExecutionProvider]. Number of nodes: 1",
            "  OpenVINOExecutionProvider_0 (x)",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
            "  ScatterElements (ScatterElements_1)",
            "  Gather (Gather_2)",
            "  Gather (Gather_3)",
            "SaveMLValueNameIndexMapping",
            "  Add (Add_9)",
        ]
        .map(str::to_owned);
        assert_eq!(describe(&lines), "2 Gather, 1 ScatterElements");
    }
}
