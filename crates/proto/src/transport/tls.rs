//! TLS by rustls: the same certificate serves and dials.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Certificates of a process. With it, every listener and every channel speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsConfig {
    /// PEM file with this process's certificate chain, leaf first. Clients may leave it out.
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities that the other side's certificate must come from.
    pub authority: PathBuf,
    /// Whether a caller must present a certificate of that authority.
    #[serde(default)]
    pub require_client_certificate: bool,
}

/// Why certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{} holds no usable {what}: {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Certificate or key.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// Certificate and key do not go together, or the authority is empty.
    #[error("tls settings: {0}")]
    Rustls(String),
    /// A listener needs both.
    #[error("tls.certificate and tls.key are needed to listen: set both or remove the [tls] section")]
    NoCertificate,
}

/// Certificates, read and checked.
#[derive(Clone)]
pub struct Tls {
    acceptor: Option<TlsAcceptor>,
    client: ClientTlsConfig,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("serves", &self.acceptor.is_some()).finish_non_exhaustive()
    }
}

/// Makes ring the process's crypto provider. First thing in `main` and in tests; calling it again does nothing.
pub fn install_crypto_provider() {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Tls {
    /// Reads the files named.
    ///
    /// # Errors
    /// Names the file that cannot be read or used.
    pub fn load(config: &TlsConfig) -> Result<Tls, TlsError> {
        install_crypto_provider();
        let authority = read(&config.authority)?;
        let mut client = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority));
        let acceptor = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                client = client.identity(Identity::from_pem(read(certificate)?, read(key)?));
                Some(acceptor(config, certificate, key)?)
            }
            (None, None) => None,
            _ => return Err(TlsError::NoCertificate),
        };
        Ok(Tls { acceptor, client })
    }

    pub(super) fn client_config(&self) -> ClientTlsConfig {
        self.client.clone()
    }

    pub(super) fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        self.acceptor.clone().ok_or(TlsError::NoCertificate)
    }
}

fn acceptor(config: &TlsConfig, certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::Pem {
        path: key.to_owned(),
        what: "private key",
        problem: error.to_string(),
    })?;
    let builder = ServerConfig::builder();
    let builder = if config.require_client_certificate {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&config.authority)? {
            roots.add(authority).map_err(rustls_error)?;
        }
        builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(rustls_error)?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let mut server = builder.with_single_cert(chain, key).map_err(rustls_error)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error: rustls::pki_types::pem::Error| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        problem: error.to_string(),
    };
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn rustls_error(error: impl std::fmt::Display) -> TlsError {
    TlsError::Rustls(error.to_string())
}
