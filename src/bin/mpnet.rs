//! `mpnet`: everything beside training and conversion.

use std::process::ExitCode;

fn main() -> ExitCode {
    let case = std::env::args().nth(1).unwrap();
    let options = mpnet_runtime::library::LocateOptions::for_user(None).unwrap();
    let build = mpnet_runtime::library::locate(&options).unwrap();
    let loaded = mpnet_runtime::library::load(&build).unwrap();
    let case = mpnet::verify::Case::load(std::path::Path::new(&case)).unwrap();
    let report = mpnet::verify::verify(&loaded, &case, Some(2)).unwrap();
    println!("{report}");
    ExitCode::SUCCESS
}
