//! A throw-away CA with a server and a client certificate, for etcd's TLS modes. Keygate makes
//! its own on first start, unless it is called as etcd.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::server::TlsFiles;

/// Writes `ca.pem`, `server.pem`, `server.key`, `root.pem` and `root.key` below `directory`. The
/// client's common name is `root`.
pub(super) fn write(directory: &Path) -> Result<TlsFiles> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    ca.distinguished_name.push(DnType::CommonName, "test authority");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::from_params(&ca, &ca_key);

    let mut server = CertificateParams::new(["localhost", "127.0.0.1", "*.tenants.test"].map(str::to_owned))?;
    server.distinguished_name.push(DnType::CommonName, "server");
    // etcd also dials itself with this certificate, so it is a client's too.
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let server_key = KeyPair::generate()?;
    let server_certificate = server.signed_by(&server_key, &issuer)?;

    let mut client = CertificateParams::new(Vec::new())?;
    client.distinguished_name.push(DnType::CommonName, "root");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client_certificate = client.signed_by(&client_key, &issuer)?;

    fs::create_dir_all(directory).context("create the directory of the certificates")?;
    let files = [
        ("ca.pem", ca_certificate.pem()),
        ("server.pem", server_certificate.pem()),
        ("server.key", server_key.serialize_pem()),
        ("root.pem", client_certificate.pem()),
        ("root.key", client_key.serialize_pem()),
    ];
    for (name, text) in files {
        fs::write(directory.join(name), text).with_context(|| format!("write `{name}`"))?;
    }
    Ok(TlsFiles {
        ca: directory.join("ca.pem"),
        certificate: directory.join("root.pem"),
        key: directory.join("root.key"),
    })
}
