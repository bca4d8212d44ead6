//! Certificates of servers, taken up as they are renewed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum_server::tls_rustls::RustlsConfig;

/// How often it is looked whether a certificate has changed.
const PERIOD: Duration = Duration::from_secs(30);

/// Takes up the files of a certificate and its key, as PEM, whenever they change. `what` is served with them, for the log.
pub async fn keep_current(what: &str, config: RustlsConfig, (certificate, key): (PathBuf, PathBuf)) {
    let changed = |file: &PathBuf| -> Option<SystemTime> { std::fs::metadata(file).ok()?.modified().ok() };
    let mut known = (changed(&certificate), changed(&key));
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = (changed(&certificate), changed(&key));
        if now == known {
            continue;
        }
        match config.reload_from_pem_file(&certificate, &key).await {
            Ok(()) => {
                known = now;
                tracing::info!(what, certificate = %certificate.display(), "there is a new certificate");
            }
            // Half of a new pair may be written already.
            Err(error) => {
                tracing::warn!(what, %error, "the new certificate cannot be used, the old one stays");
            }
        }
    }
}
