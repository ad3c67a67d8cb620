//! A throw-away authority and a server certificate for loopback, for servers that bring none of their own.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes `ca.crt`, `server.crt` and `server.key` (ECDSA P-256) into `directory`, which is made if need be.
pub(crate) fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make `{}`", directory.display()))?;
    let mut authority = CertificateParams::new(Vec::<String>::new()).context("describe the authority")?;
    authority.distinguished_name.push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().context("make the authority's key")?;
    let authority_certificate = authority.self_signed(&authority_key).context("sign the authority")?;
    let issuer = Issuer::new(authority, authority_key);

    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut server = CertificateParams::new(names).context("describe the server")?;
    server.distinguished_name.push(DnType::CommonName, "bench server");
    // etcd uses its server certificate as a client of itself too.
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let server_key = KeyPair::generate().context("make the server's key")?;
    let server_certificate = server.signed_by(&server_key, &issuer).context("sign the server")?;

    write_file(&directory.join("ca.crt"), &authority_certificate.pem())?;
    write_file(&directory.join("server.crt"), &server_certificate.pem())?;
    write_file(&directory.join("server.key"), &server_key.serialize_pem())
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    let attempt = || format!("write `{}`", path.display());
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).with_context(attempt)?;
    file.write_all(text.as_bytes()).with_context(attempt)
}
