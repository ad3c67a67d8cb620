//! The certificates that Keygate makes for itself, so that a first start is safe without preparation.
//!
//! `<data-dir>/pki` (0700) holds a CA, a server certificate, a client certificate of the user `root`, their keys, and
//! the first password of `root`, each 0600 and written whole or not at all. Who brings certificates of their own finds
//! the password alone. Whatever is there already is kept; the two
//! certificates are issued again when they are about to expire, do not cover a host that is advertised now, or do not
//! fit their key (a crash between the two renames): at the start, and once a day while the server runs.

mod files;
mod issue;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

pub(crate) use self::files::read_secret;
pub use self::{files::private_file, issue::Now};
use self::{
    files::{exists, make_directory, write_secret},
    issue::{Authority, Leaf, Purpose},
};
use crate::config::{Ca, ClientCertificates, ClientTls, Config};

/// Below the directory of the certificates.
const ROOT_PASSWORD: &str = "root-password";

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot {what} `{path}`: {source}")]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "`{path}` can be used by others than its owner (mode {mode:04o}): run `chmod {wanted:04o} {path}`"
    )]
    OpenToOthers { path: PathBuf, mode: u32, wanted: u32 },
    #[error("`{path}` is damaged: {why}; remove it and start again to have it made anew")]
    Damaged { path: PathBuf, why: String },
    #[error(
        "`{path}` is missing, and without it no certificate can be issued: put it back, or remove the directory to begin with a new CA"
    )]
    NoAuthorityKey { path: PathBuf },
    #[error("cannot make a certificate for {what}: {source}")]
    Issue { what: String, source: rcgen::Error },
    #[error("no randomness from the system")]
    Randomness,
}

/// What a first start made, or a later one found.
pub struct Pki {
    pub ca: PathBuf,
    pub server_cert: PathBuf,
    pub server_key: PathBuf,
    /// Of the user `root`.
    pub client_cert: PathBuf,
    pub client_key: PathBuf,
    /// Missing when the operator has taken it away, as is wise after changing the password.
    pub root_password_file: PathBuf,
    /// Whether the CA was made just now.
    pub created: bool,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("ca", &self.ca).field("created", &self.created).finish_non_exhaustive()
    }
}

impl Pki {
    fn at(directory: &Path) -> Self {
        Self {
            ca: directory.join("ca.pem"),
            server_cert: directory.join("server.pem"),
            server_key: directory.join("server-key.pem"),
            client_cert: directory.join("root.pem"),
            client_key: directory.join("root-key.pem"),
            root_password_file: directory.join(ROOT_PASSWORD),
            created: false,
        }
    }

    /// What to tell a newcomer: the command that works, to be pasted.
    pub fn first_steps(&self, endpoint: &str) -> String {
        format!(
            "etcdctl --endpoints={endpoint} --cacert={} --cert={} --key={} endpoint status -w table\n\
             or, with the password: etcdctl --endpoints={endpoint} --cacert={} --user \"root:$(cat {})\" endpoint status -w table",
            shell(&self.ca),
            shell(&self.client_cert),
            shell(&self.client_key),
            shell(&self.ca),
            shell(&self.root_password_file),
        )
    }
}

/// The same for those who brought certificates of their own.
pub fn first_steps_by_password(directory: &Path, endpoint: &str) -> String {
    let file = directory.join(ROOT_PASSWORD);
    format!("etcdctl --endpoints={endpoint} --user \"root:$(cat {})\" endpoint status -w table", shell(&file))
}

/// Where all of it lies.
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("pki")
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Finds or makes everything in `directory`. The server certificate covers this machine and `hosts`.
pub fn ensure(directory: &Path, hosts: &[String], now: Now) -> Result<Pki, PkiError> {
    make_directory(directory)?;
    let pki = Pki::at(directory);
    let ca_key = directory.join("ca-key.pem");
    let created = !exists(&pki.ca)?;
    // Looked at even when nobody asks for it: others could read it all the time.
    if exists(&pki.root_password_file)? {
        read_password(&pki.root_password_file)?;
    }
    let authority = Authority::find_or_make(&pki.ca, &ca_key, now)?;
    let server = Purpose::Server { hosts: server_hosts(hosts) };
    Leaf { cert: &pki.server_cert, key: &pki.server_key, purpose: server }.find_or_issue(&authority)?;
    let client = Purpose::Client { user: "root" };
    Leaf { cert: &pki.client_cert, key: &pki.client_key, purpose: client }.find_or_issue(&authority)?;
    Ok(Pki { created, ..pki })
}

/// The first password of `root`, and where it lies.
pub struct FirstPassword {
    pub file: PathBuf,
    pub password: Zeroizing<String>,
}

/// Finds or makes the password in `directory`, whoever made the certificates. Only for a server that has no user
/// `root`: with one, a missing file means that the operator took it away.
pub fn first_password(directory: &Path) -> Result<FirstPassword, PkiError> {
    make_directory(directory)?;
    let file = directory.join(ROOT_PASSWORD);
    if !exists(&file)? {
        let mut password = random_password()?;
        password.push('\n');
        write_secret(&file, password.as_bytes())?;
    }
    Ok(FirstPassword { password: read_password(&file)?, file })
}

fn read_password(file: &Path) -> Result<Zeroizing<String>, PkiError> {
    let mut password = read_secret(file)?;
    let length = password.trim_end_matches(['\r', '\n']).len();
    password.truncate(length);
    if password.is_empty() {
        return Err(PkiError::Damaged { path: file.to_owned(), why: "it is empty".to_owned() });
    }
    Ok(password)
}

/// etcd's `--auto-tls`: a certificate that signs itself, in `<data-dir>/fixtures/client`. Clients cannot verify it.
pub fn ensure_auto(
    data_dir: &Path,
    hosts: &[String],
    validity_years: u32,
    now: Now,
) -> Result<Serving, PkiError> {
    let directory = auto_directory(data_dir);
    make_directory(&directory)?;
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let purpose = Purpose::SelfSigned { hosts: server_hosts(hosts), years: validity_years };
    Leaf { cert: &cert, key: &key, purpose }.find_or_self_sign(now)?;
    Ok(Serving { cert, key, client_ca: None, managed: None })
}

fn auto_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("fixtures").join("client")
}

/// The files with which the client port is served.
#[derive(Debug)]
pub struct Serving {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// `None`: client certificates are not asked for.
    pub client_ca: Option<ClientCa>,
    /// What was found or made below the data directory, if that is what is served.
    pub managed: Option<Pki>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCa {
    pub path: PathBuf,
    pub demand: Demand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    Optional,
    Required,
}

/// Makes what the configuration asks for and what is due; `None` when no listener speaks TLS. To be called again each
/// day: the paths stay what they are.
pub fn prepare(config: &Config, now: Now) -> Result<Option<Serving>, PkiError> {
    let hosts: Vec<String> = (config.advertise_client.iter().map(|url| url.host.clone()))
        .chain(config.listen_client.iter().map(|url| url.address.ip().to_string()))
        .collect();
    match &config.tls {
        ClientTls::Off => Ok(None),
        ClientTls::SelfSigned { validity_years } => {
            ensure_auto(&config.data_dir, &hosts, *validity_years, now).map(Some)
        }
        ClientTls::Files { cert, key, client_certificates } => Ok(Some(Serving {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: client_ca(client_certificates, None),
            managed: None,
        })),
        ClientTls::Managed { client_certificates } => {
            let pki = ensure(&directory(config), &hosts, now)?;
            Ok(Some(Serving {
                cert: pki.server_cert.clone(),
                key: pki.server_key.clone(),
                client_ca: client_ca(client_certificates, Some(&pki.ca)),
                managed: Some(pki),
            }))
        }
    }
}

/// The same files, without making anything.
pub fn locate(config: &Config) -> Option<Serving> {
    match &config.tls {
        ClientTls::Off => None,
        ClientTls::SelfSigned { .. } => {
            let directory = auto_directory(&config.data_dir);
            let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
            Some(Serving { cert, key, client_ca: None, managed: None })
        }
        ClientTls::Files { cert, key, client_certificates } => Some(Serving {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: client_ca(client_certificates, None),
            managed: None,
        }),
        ClientTls::Managed { client_certificates } => {
            let pki = Pki::at(&directory(config));
            Some(Serving {
                cert: pki.server_cert.clone(),
                key: pki.server_key.clone(),
                client_ca: client_ca(client_certificates, Some(&pki.ca)),
                managed: Some(pki),
            })
        }
    }
}

fn client_ca(certificates: &ClientCertificates, managed: Option<&Path>) -> Option<ClientCa> {
    let (ca, demand) = match certificates {
        ClientCertificates::Ignored => return None,
        ClientCertificates::Optional { ca } => (ca, Demand::Optional),
        ClientCertificates::Required { ca } => (ca, Demand::Required),
    };
    let path = match ca {
        Ca::File(path) => path.clone(),
        Ca::Managed => managed?.to_path_buf(),
    };
    Some(ClientCa { path, demand })
}

/// This machine by its usual names, then `hosts`; addresses that mean "any" and names that cannot be in a certificate
/// are left out.
fn server_hosts(hosts: &[String]) -> Vec<String> {
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    for host in here.as_deref().map(str::trim).into_iter().chain(hosts.iter().map(String::as_str)) {
        let is_any = matches!(host, "0.0.0.0" | "::");
        let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
        if !host.is_empty() && !is_any && is_name && !all.iter().any(|known| known.eq_ignore_ascii_case(host))
        {
            all.push(host.to_owned());
        }
    }
    all
}

/// 130 random bits in letters and digits that cannot be taken for one another.
/// 130 bits, in letters that nobody mistakes for each other.
pub fn random_password() -> Result<Zeroizing<String>, PkiError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0u8; 26]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| PkiError::Randomness)?;
    Ok(Zeroizing::new(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()))
}

#[cfg(test)]
mod tests;
