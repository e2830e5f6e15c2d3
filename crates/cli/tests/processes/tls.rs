//! One side with certificates and the other without, or with those of a stranger.

use std::path::{Path, PathBuf};

use holdfast_cli::exit;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::cluster::{BrokerFile, start};
use crate::process::{Outcome, eventually, run};

/// Certificates of an authority of its own.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn certificates(dir: &Path, name: &str) -> Certificates {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate_pem = leaf.signed_by(&key, &issuer).unwrap().pem();
    let write = |end: &str, text: String| {
        let path = dir.join(format!("{name}-{end}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    Certificates {
        authority: write("authority", authority_pem),
        certificate: write("certificate", certificate_pem),
        key: write("key", key.serialize_pem()),
    }
}

#[test]
fn sides_that_do_not_fit_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, strange) = (certificates(dir.path(), "ours"), certificates(dir.path(), "strange"));
    let section = |strict: bool| {
        let Certificates { authority, certificate, key } = &ours;
        format!(
            "[tls]\nauthority = {authority:?}\ncertificate = {certificate:?}\nkey = {key:?}\n\
             require-client-certificate = {strict}\n"
        )
    };
    let files = ["plain", "tls", "strict"].map(|name| BrokerFile::alone(&dir.path().join(name)));
    let [plain, tls, strict] = &files;
    let endpoint = |file: &BrokerFile| format!("127.0.0.1:{}", file.client_port);
    let processes = [
        start("broker", &plain.text(), dir.path(), "plain-broker"),
        start("broker", &(tls.text() + &section(false)), dir.path(), "tls-broker"),
        start("broker", &(strict.text() + &section(true)), dir.path(), "strict-broker"),
    ];
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (ours_authority, strange_authority) = (path(&ours.authority), path(&strange.authority));
    let (certificate, key) = (path(&ours.certificate), path(&ours.key));
    let (strange_certificate, strange_key) = (path(&strange.certificate), path(&strange.key));
    let trusting = ["--tls-authority", &ours_authority];
    let known = [&trusting[..], &["--tls-certificate", &certificate, "--tls-key", &key]].concat();
    let unknown =
        [&trusting[..], &["--tls-certificate", &strange_certificate, "--tls-key", &strange_key]].concat();
    let doubting = ["--tls-authority", &strange_authority];
    let health = |file: &BrokerFile, flags: &[&str]| -> Outcome {
        run(&[&["health", &endpoint(file), "--timeout", "3s"], flags].concat())
    };
    for (file, flags) in [(plain, &[][..]), (tls, &trusting), (strict, &known)] {
        eventually(|| match health(file, flags) {
            outcome if outcome.code == Some(0) => Ok(()),
            outcome => Err(outcome.stderr),
        });
    }
    for (file, flags) in [
        (plain, &trusting[..]),
        (tls, &[]),
        (tls, &doubting),
        (strict, &[]),
        (strict, &trusting),
        (strict, &unknown),
    ] {
        let endpoint = endpoint(file);
        health(file, flags).refused(exit::UNKNOWN, &[&endpoint, "--tls"]);
        let list = ["topic", "ls", "--timeout", "500ms", "--bootstrap", &endpoint];
        run(&[&list, flags].concat()).refused(exit::UNREACHABLE, &[&endpoint, "--tls"]);
    }
    for process in &processes {
        assert_eq!(process.errors(), 0, "{}", process.log());
    }
}
