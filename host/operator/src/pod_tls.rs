//! TLS to pods, whose certificates are not checked, as the kubelet's HTTPS probes do not: a pod's address is in
//! no certificate, and what is learnt is no secret.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// A configuration that takes any certificate.
pub fn unchecked() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let unchecked = Arc::new(Unchecked(provider.clone()));
    let builder = ClientConfig::builder_with_provider(provider);
    // Only a provider without common versions fails here, and ring's has all.
    #[allow(clippy::expect_used)]
    let builder = builder.with_safe_default_protocol_versions().expect("ring serves TLS 1.2 and 1.3");
    let mut config = builder.dangerous().with_custom_certificate_verifier(unchecked).with_no_client_auth();
    // Connections are kept, so that a memory of sessions for thousands of pods gains nothing.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
