//! The certificate authorities that TLS connections trust: the system's, and those in a configured `ca_file`.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` override the location of the system's certificates.
//!
//! **Invariant:** the certificates in a `ca_file` are added to the system's certificates and never replace them.

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::{Error, Result};

/// The number of Base64 characters per line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// The certificates of trusted authorities.
#[derive(Clone, Default)]
pub(crate) struct Roots(Vec<CertificateDer<'static>>);

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({} certificates)", self.0.len())
    }
}

impl Roots {
    /// Loads the system's certificates, and the certificates in `ca_file` if this file is configured. Fails with
    /// `Invalid` if the file cannot be read or contains no certificate.
    pub(crate) fn load(ca_file: Option<&Path>) -> Result<Self> {
        let system = Self::system();
        let Some(path) = ca_file else { return Ok(system) };
        let name = format!("`{}`", path.display());
        let pem = fs::read(path).map_err(|error| Error::invalid(format!("cannot read {name}: {error}")))?;
        system.and_pem(&pem, name)
    }

    /// Loads the system's certificates. Skips certificates that the TLS library cannot parse: trust stores often
    /// contain obsolete ones, and the other certificates are still needed.
    pub(crate) fn system() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in loaded.errors {
            tracing::debug!(%error, "skipped a system certificate that cannot be read");
        }
        let is_supported =
            |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone()).is_ok();
        Self(loaded.certs.into_iter().filter(is_supported).collect())
    }

    /// Adds the certificates in the PEM data `pem`. Error messages refer to this data as `name`.
    pub(crate) fn and_pem(mut self, pem: &[u8], name: impl Display) -> Result<Self> {
        let count_before = self.0.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let invalid =
                |why: &dyn Display| Error::invalid(format!("{name} contains a certificate that is not valid: {why}"));
            let certificate = certificate.map_err(|error| invalid(&error))?;
            RootCertStore::empty().add(certificate.clone()).map_err(|error| invalid(&error))?;
            self.0.push(certificate);
        }
        if self.0.len() == count_before {
            return Err(Error::invalid(format!("{name} contains no certificate (PEM)")));
        }
        Ok(self)
    }

    /// Returns all certificates, each in DER format.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Returns all certificates as one string in PEM format.
    pub(crate) fn pem(&self) -> String {
        let mut text = String::new();
        for certificate in self.iter() {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let encoded = STANDARD.encode(certificate);
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                // Base64 is ASCII, so every byte index is a character boundary.
                let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
                text.push_str(line);
                text.push('\n');
                rest = more;
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }
}
