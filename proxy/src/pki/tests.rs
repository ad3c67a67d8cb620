use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::*;

fn today() -> Now {
    SystemTime::now().into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).unwrap()
}

/// A whole TLS handshake in memory, in which both sides show and check certificates.
fn handshake(pki: &Pki, host: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(chain(&pki.ca).remove(0)).unwrap();
    let roots = Arc::new(roots);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&pki.server_cert), key(&pki.server_key))?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(&pki.client_cert), key(&pki.client_key))?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(host.to_owned()).unwrap())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_first_start_makes_what_a_handshake_needs_and_a_second_finds_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let pki_directory = directory.path().join("data").join("pki");
    let hosts =
        ["10.1.2.3".to_owned(), "node-1.example".to_owned(), "0.0.0.0".to_owned(), "bad host!".to_owned()];
    let first = ensure(&pki_directory, &hosts, today()).unwrap();
    assert!(first.created);
    let password = first_password(&pki_directory).unwrap();
    assert_eq!((password.password.len(), &password.file), (26, &first.root_password_file));
    for host in ["localhost", "127.0.0.1", "::1", "10.1.2.3", "node-1.example"] {
        handshake(&first, host).unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    assert!(handshake(&first, "elsewhere.example").is_err());

    assert_eq!(mode(&pki_directory), 0o700);
    assert_eq!(mode(pki_directory.parent().unwrap()), 0o700);
    let entries: Vec<PathBuf> =
        fs::read_dir(&pki_directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 7, "{entries:?}");
    for path in &entries {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }

    let before: Vec<Vec<u8>> = entries.iter().map(|path| fs::read(path).unwrap()).collect();
    let second = ensure(&pki_directory, &hosts, today()).unwrap();
    assert!(!second.created);
    assert_eq!(first_password(&pki_directory).unwrap().password, password.password);
    assert_eq!(before, entries.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_new_host_or_a_pair_that_does_not_fit_is_issued_again_under_the_same_ca() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("pki");
    let first = ensure(&dir, &[], today()).unwrap();
    let (ca, server) = (fs::read(&first.ca).unwrap(), fs::read(&first.server_cert).unwrap());
    let second = ensure(&dir, &["new.example".to_owned()], today()).unwrap();
    assert_eq!(fs::read(&second.ca).unwrap(), ca);
    assert_ne!(fs::read(&second.server_cert).unwrap(), server);
    handshake(&second, "new.example").unwrap();
    // A crash between the two renames: the key is new, the certificate is not.
    fs::write(&second.server_cert, &server).unwrap();
    let third = ensure(&dir, &[], today()).unwrap();
    handshake(&third, "localhost").unwrap();
}

#[test]
fn certificates_and_the_password_are_made_apart() {
    let directory = tempfile::tempdir().unwrap();
    let pki = ensure(&directory.path().join("certificates"), &[], today()).unwrap();
    assert!(!pki.root_password_file.exists());
    let alone = directory.path().join("password");
    let password = first_password(&alone).unwrap();
    assert_eq!(fs::read_dir(&alone).unwrap().count(), 1);
    assert_eq!((mode(&alone), mode(&password.file)), (0o700, 0o600));
    fs::write(&password.file, "\n").unwrap();
    assert!(matches!(first_password(&alone), Err(PkiError::Damaged { .. })));
}

#[test]
fn files_that_others_can_read_or_that_are_damaged_stop_the_start_with_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("pki");
    let pki = ensure(&dir, &[], today()).unwrap();
    first_password(&dir).unwrap();
    for path in [&pki.server_key, &pki.client_key, &pki.root_password_file, &dir.join("ca-key.pem")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = ensure(&dir, &[], today()).unwrap_err().to_string();
        assert!(
            error.contains("mode 0644") && error.contains("chmod 0600") && !error.contains('\n'),
            "{error}"
        );
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(ensure(&dir, &[], today()), Err(PkiError::OpenToOthers { wanted: 0o700, .. })));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();

    let ca_key = fs::read(dir.join("ca-key.pem")).unwrap();
    fs::write(dir.join("ca-key.pem"), "nonsense").unwrap();
    assert!(matches!(ensure(&dir, &[], today()), Err(PkiError::Damaged { .. })));
    // Without the key nothing is wrong until something must be issued.
    fs::remove_file(dir.join("ca-key.pem")).unwrap();
    ensure(&dir, &[], today()).unwrap();
    assert!(matches!(
        ensure(&dir, &["new.example".to_owned()], today()),
        Err(PkiError::NoAuthorityKey { .. })
    ));
    fs::write(dir.join("ca-key.pem"), ca_key).unwrap();
    fs::set_permissions(dir.join("ca-key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    ensure(&dir, &["new.example".to_owned()], today()).unwrap();
    fs::write(&pki.ca, "nonsense").unwrap();
    assert!(matches!(ensure(&dir, &[], today()), Err(PkiError::Damaged { .. })));
}

#[test]
fn auto_tls_makes_a_pair_where_etcd_makes_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = ensure_auto(directory.path(), &["10.0.0.1".to_owned()], 1, today()).unwrap();
    assert_eq!(first.cert, directory.path().join("fixtures/client/cert.pem"));
    assert_eq!(first.key, directory.path().join("fixtures/client/key.pem"));
    let before = fs::read(&first.cert).unwrap();
    ensure_auto(directory.path(), &["10.0.0.1".to_owned()], 1, today()).unwrap();
    assert_eq!(fs::read(&first.cert).unwrap(), before);
}

#[test]
fn the_line_to_paste_is_quoted_for_the_shell_and_shows_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let pki = ensure(&directory.path().join("with space").join("pki"), &[], today()).unwrap();
    let text = pki.first_steps("https://127.0.0.1:2379");
    assert!(text.starts_with("etcdctl --endpoints=https://127.0.0.1:2379 --cacert='/"), "{text}");
    assert!(text.contains("endpoint status -w table"));
    let password = first_password(pki.root_password_file.parent().unwrap()).unwrap().password;
    assert!(!text.contains(password.as_str()) && !format!("{pki:?}").contains(password.as_str()));
}

/// A server that ran for a year served an expired certificate.
#[test]
fn what_is_about_to_expire_is_issued_again_and_what_is_not_stays() {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("pki");
    let day = Duration::from_secs(86_400);
    let long_ago = SystemTime::now() - 350 * day;
    let pki = ensure(&dir, &[], long_ago.into()).unwrap();
    let all = || {
        [&pki.server_cert, &pki.server_key, &pki.client_cert, &pki.client_key, &pki.ca]
            .map(|path| fs::read(path).unwrap())
    };
    let first = all();
    ensure(&dir, &[], (long_ago + 334 * day).into()).unwrap();
    assert_eq!(all(), first);
    ensure(&dir, &[], today()).unwrap();
    let second = all();
    assert!((0..4).all(|file| second[file] != first[file]));
    assert_eq!(second[4], first[4], "the CA is everybody's");
    handshake(&pki, "localhost").unwrap();
    // etcd's `--auto-tls` too.
    let auto = ensure_auto(directory.path(), &[], 1, long_ago.into()).unwrap();
    let before = fs::read(&auto.cert).unwrap();
    ensure_auto(directory.path(), &[], 1, today()).unwrap();
    assert_ne!(fs::read(&auto.cert).unwrap(), before);
}
