//! Where it is served, with TLS or without.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use stoker_reports::Listener;

/// An address as it is given.
pub struct Address {
    /// Who comes there.
    pub what: &'static str,
    /// The flag that gives it.
    pub flag: &'static str,
    pub address: String,
    /// Files of the certificate and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// An address that is listened on.
pub struct Bound {
    pub listener: Listener,
    at: SocketAddr,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.at)
    }
}

impl Address {
    /// Listens there. Certificates are taken up as they are renewed.
    pub async fn bind(self) -> anyhow::Result<Bound> {
        let Self { what, flag, address, tls } = self;
        let refused = || format!("cannot listen on {address} for {what}: choose another with {flag}");
        let socket = TcpListener::bind(&address).with_context(refused)?;
        let at = socket.local_addr().with_context(refused)?;
        let tls = match tls {
            None => None,
            Some((certificate, key)) => {
                let config = RustlsConfig::from_pem_file(&certificate, &key).await.with_context(|| {
                    format!(
                        "the certificate {} with the key {} cannot be used: both must be PEM files that belong together",
                        certificate.display(),
                        key.display()
                    )
                })?;
                tokio::spawn(stoker_operator::keep_current(what, config.clone(), (certificate, key)));
                Some(config)
            }
        };
        Ok(Bound { listener: Listener { socket, tls }, at })
    }
}
