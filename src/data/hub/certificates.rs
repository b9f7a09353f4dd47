//! Whom a connection to the Hub trusts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use ureq::tls::{Certificate, RootCerts};

/// Variables that name a file of certificates, or a folder of them, as other programs of Python and curl read them.
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` are among what the system's certificates are taken from.
const BUNDLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Mozilla's authorities, which come with this program, the system's, and those that variables name.
pub(super) fn trusted(variable: impl Fn(&str) -> Option<OsString>) -> RootCerts {
    let mut roots: Vec<Certificate<'static>> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect();
    let mut add = |found: CertificateResult, origin: &str| {
        for error in found.errors {
            tracing::warn!("certificates of {origin}: {error}");
        }
        let found = found.certs.into_iter();
        roots.extend(found.map(|der| Certificate::from_der(&der).to_owned()));
    };
    add(load_native_certs(), "the system");
    for name in BUNDLES {
        let Some(path) = variable(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let path = PathBuf::from(path);
        let (file, folder): (Option<&Path>, Option<&Path>) = if path.is_dir() {
            (None, Some(&path))
        } else {
            (Some(&path), None)
        };
        add(load_certs_from_paths(file, folder), name);
    }
    RootCerts::Specific(Arc::new(roots))
}

/// What is wrong with the server's certificate, where that is why a request failed.
pub(super) fn problem(error: &ureq::Error) -> Option<String> {
    let tls = match error {
        ureq::Error::Rustls(tls) => tls,
        ureq::Error::Io(io) => io.get_ref()?.downcast_ref()?,
        _ => return None,
    };
    match tls {
        rustls::Error::InvalidCertificate(problem) => Some(format!("{problem:?}")),
        _ => None,
    }
}
