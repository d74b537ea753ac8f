//! Reads the configured certificate files, and returns the TLS settings for tonic.
//!
//! Every call contains a token, so plain text on a non-loopback address is refused unless the operator allows it.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::config::FlightConfig;
use crate::error::{Error, Result};

/// The time limit of a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Returns the TLS settings for `listener`, or `None` for plain text.
pub(super) fn settings(listener: &TcpListener, config: &FlightConfig) -> Result<Option<ServerTlsConfig>> {
    let (cert, key) = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => (read(cert)?, read(key)?),
        (None, None) => return plaintext(listener, config).map(|()| None),
        _ => return Err(Error::invalid("flight: set `tls_cert` and `tls_key` together")),
    };
    // The binary contains two crypto providers, so rustls requires that one of them be installed as the default. An
    // error means that a provider is already installed, so the error is ignored.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut settings = ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).timeout(HANDSHAKE_MAX);
    if let Some(ca) = &config.tls_client_ca {
        settings = settings.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    Ok(Some(settings))
}

fn plaintext(listener: &TcpListener, config: &FlightConfig) -> Result<()> {
    if config.tls_client_ca.is_some() {
        return Err(Error::invalid("flight: `tls_client_ca` needs `tls_cert` and `tls_key`"));
    }
    let address =
        listener.local_addr().map_err(|error| Error::internal("the listener has no address").with_source(error))?;
    if address.ip().is_loopback() || config.plaintext_allowed {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "flight: tokens would cross the network in plain text on {address}: set `tls_cert` and `tls_key`, or \
         `plaintext_allowed = true` behind a TLS proxy"
    )))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
        .map_err(|error| Error::invalid(format!("cannot read `{}`: {error}", path.display())).with_source(error))
}
