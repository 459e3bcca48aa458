//! TLS towards pods' own servers. Whose certificate it is does not matter: the connection leads into the pod whatever it says, and the
//! kubelet verifies none either. So nothing of a certificate is looked at: no names, no dates, no signatures.

use std::io;
use std::sync::{Arc, LazyLock};

use bulkhead_guest_http::{Io, chain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Protocols over TLS, the first that the server knows too.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Signatures that a server may make; none is looked at.
const SIGNATURES: [SignatureScheme; 11] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA1,
];

/// Agrees with a server in a guest on keys; says whether it speaks HTTP/2.
///
/// # Errors
/// Why they do not, for people.
pub(super) async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(Io, bool), String> {
    agree(stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let is_none =
            matches!(inner, Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)));
        let hint = if is_none { "the server speaks no TLS: " } else { "" };
        format!("TLS: {hint}{}", chain(&error))
    })
}

async fn agree(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<(Io, bool)> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(config()));
    // An address has no server name indication, as in a probe of the kubelet's.
    let address = std::net::IpAddr::from(std::net::Ipv4Addr::LOCALHOST);
    let connector = TlsConnector::from(Arc::clone(&CONFIG));
    let stream = connector.connect(ServerName::IpAddress(address.into()), stream).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
    Ok((Io::new(stream), is_http2))
}

fn config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("the provider has what the versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // Nothing is kept of one probe for the next.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Takes every certificate.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.to_vec()
    }
}
