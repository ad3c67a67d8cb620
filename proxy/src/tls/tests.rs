use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn self_signed() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn sources(directory: &Path) -> TlsSources {
    let (cert, key) = self_signed();
    write(&directory.join("cert.pem"), &cert, 0o644);
    write(&directory.join("key.pem"), &key, 0o600);
    write(&directory.join("ca.pem"), &cert, 0o644);
    TlsSources {
        cert: directory.join("cert.pem"),
        key: directory.join("key.pem"),
        client_certificates: ClientCertificates::Ignored,
        revocation: None,
        identity_rules: None,
        versions: Versions::Both,
        cipher_suites: Vec::new(),
        private_key_only: true,
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let good = sources(directory.path());
    load(&good).unwrap();
    write(&at("empty.pem"), "", 0o600);
    write(&at("rubbish.pem"), "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", 0o600);
    write(&at("other-key.pem"), &self_signed().1, 0o600);
    write(&at("open-key.pem"), &fs::read_to_string(at("key.pem")).unwrap(), 0o644);
    let with_ca = |name: &str| TlsSources {
        client_certificates: ClientCertificates::Required { ca: at(name) },
        ..good.clone()
    };
    for (sources, expected) in [
        (TlsSources { cert: at("none.pem"), ..good.clone() }, "cannot read `"),
        (TlsSources { cert: at("empty.pem"), ..good.clone() }, "empty.pem` holds no certificate"),
        (TlsSources { cert: at("rubbish.pem"), ..good.clone() }, "rubbish.pem` holds no certificate"),
        (TlsSources { key: at("empty.pem"), ..good.clone() }, "empty.pem` holds no private key"),
        (TlsSources { key: at("cert.pem"), private_key_only: false, ..good.clone() }, "holds no private key"),
        (TlsSources { key: at("other-key.pem"), ..good.clone() }, "does not belong to the certificate"),
        (TlsSources { key: at("open-key.pem"), ..good.clone() }, "can be read by others (mode 0644)"),
        (with_ca("none.pem"), "none.pem"),
        (with_ca("empty.pem"), "empty.pem` holds no certificate"),
    ] {
        let message = load(&sources).err().unwrap().to_string();
        assert!(message.contains(expected), "{message}");
    }
    // etcd's mode takes what etcd takes.
    load(&TlsSources { key: at("open-key.pem"), private_key_only: false, ..good }).unwrap();
}

#[test]
fn versions_and_suites_are_the_operators() {
    let directory = tempfile::tempdir().unwrap();
    let good = sources(directory.path());
    let wanted = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
    let config = load(&TlsSources { cipher_suites: vec![wanted], ..good.clone() }).unwrap().config(None);
    let names: Vec<_> =
        config.crypto_provider().cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names.last().unwrap(), wanted);
    for versions in [Versions::Tls12Only, Versions::Tls13Only, Versions::Both] {
        load(&TlsSources { versions, ..good.clone() }).unwrap();
    }
}

#[test]
fn changed_files_are_taken_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let sources = sources(directory.path());
    let tls = ReloadingTls::open(sources.clone()).unwrap();
    let first = tls.current();
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &tls.current()));

    let (cert, key) = self_signed();
    write(&sources.cert, &cert, 0o644);
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &tls.current()), "half of a pair was taken");
    write(&sources.key, &key, 0o600);
    tls.reload_if_changed();
    let second = tls.current();
    assert!(!Arc::ptr_eq(&first, &second));

    fs::remove_file(&sources.cert).unwrap();
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&second, &tls.current()));
    // Renamed into place, with the old time stamp and size.
    write(&directory.path().join("new.pem"), &cert, 0o644);
    fs::rename(directory.path().join("new.pem"), &sources.cert).unwrap();
    tls.reload_if_changed();
    assert!(!Arc::ptr_eq(&second, &tls.current()));
}

/// New rules name a file that is not there yet: it is taken when it comes, though nothing else changes.
#[test]
fn what_new_rules_name_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.yaml");
    let text = |ca: &str| {
        format!(
            "authorities: [{{name: pay, ca-file: {ca}, tenant: pay}}]\nrules: [{{authority: pay, common-name: x, user: x}}]"
        )
    };
    write(&directory.path().join("old.pem"), &self_signed().0, 0o644);
    write(&rules, &text("old.pem"), 0o644);
    let sources = TlsSources { identity_rules: Some(rules.clone()), ..sources(directory.path()) };
    let tls = ReloadingTls::open(sources).unwrap();
    let first = tls.current();
    write(&rules, &text("new.pem"), 0o644);
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&first, &tls.current()) && tls.is_behind());
    write(&directory.path().join("new.pem"), &self_signed().0, 0o644);
    tls.reload_if_changed();
    let second = tls.current();
    assert!(!Arc::ptr_eq(&first, &second) && !tls.is_behind());
    // It was read once.
    tls.reload_if_changed();
    assert!(Arc::ptr_eq(&second, &tls.current()));
    assert_eq!(tls.generation(), 1);
}
