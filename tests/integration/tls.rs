//! Every listener and every channel speaks TLS where certificates are configured.

use std::path::Path;

use holdfast_client::Client;
use holdfast_core::metadata::Durability;
use holdfast_proto::transport::{Tls, TlsConfig};
use holdfast_tests::{TestCluster, assert_holds, produce};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, and a certificate of it for loopback.
fn certificates(dir: &Path) -> TlsConfig {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    TlsConfig {
        certificate: Some(write("leaf.pem", certificate.pem())),
        key: Some(write("leaf.key", key.serialize_pem())),
        authority: write("authority.pem", authority_certificate.pem()),
        require_client_certificate: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_certificates_serves_those_who_have_one_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = certificates(dir.path());
    let cluster = TestCluster::start_with(Some(Tls::load(&config).unwrap())).await;
    let client = cluster.client().await;
    cluster.create_topic(&client, "secret", 2, Durability::Disk).await;
    let producer = client.producer("secret").build().await.unwrap();
    produce(&producer, 0..100).await;
    assert_holds(&client, "secret", 0..100).await;

    let stranger = TlsConfig { certificate: None, key: None, ..config };
    for tls in [None, Some(Tls::load(&stranger).unwrap())] {
        let refused = Client::builder()
            .bootstrap(cluster.bootstrap().iter().cloned())
            .tls(tls)
            .connect_timeout(std::time::Duration::from_secs(3))
            .connect()
            .await;
        assert!(refused.is_err(), "somebody without a certificate was served");
    }
}
