//! `mpnet`: everything beside training and conversion.

use std::process::ExitCode;

fn main() -> ExitCode {
    let case = std::env::args().nth(1).unwrap();
    let loaded = mpnet_runtime::library::load(&mpnet_runtime::library::Build { path: "/tmp/venv/lib/python3.11/site-packages/onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so".into() }).unwrap();
    let case = mpnet::verify::Case::load(std::path::Path::new(&case)).unwrap();
    let report = mpnet::verify::verify(&loaded, &case, Some(2)).unwrap();
    println!("{report}");
    ExitCode::SUCCESS
}
