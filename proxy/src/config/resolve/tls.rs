//! Which certificates the client port shows, and which it asks for.

use std::path::PathBuf;

use super::Resolver;
use crate::config::{
    Ca, ClientCertificates, ClientTls, Mode,
    draft::{Draft, TlsVersion},
    url::{ListenUrl, Scheme},
};

impl Resolver<'_> {
    pub(super) fn tls(&mut self, draft: &Draft, listeners: &[ListenUrl]) -> ClientTls {
        let needed = listeners.iter().any(|url| url.scheme == Scheme::Https);
        if draft.tls_min > draft.tls_max {
            self.problem("tls-min-version", "the oldest version is newer than --tls-max-version");
        }
        if draft.tls_min == TlsVersion::V1_3 && self.raw.get("cipher-suites").is_some() {
            self.problem("cipher-suites", "cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        if !draft.dropped_suites.is_empty() {
            self.warn(
                "cipher-suites",
                format!("not offered, and left out: {}", draft.dropped_suites.join(", ")),
            );
        }
        let files = match (&draft.cert_file, &draft.key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                self.problem("cert-file", "a certificate needs its key: --key-file is missing");
                None
            }
            (None, Some(_)) => {
                self.problem("key-file", "a key needs its certificate: --cert-file is missing");
                None
            }
        };
        if !needed {
            if files.is_some() || draft.client_cert_auth || draft.auto_tls {
                self.warn(
                    "listen-client-urls",
                    "every client URL is http, so certificates are neither shown nor asked for",
                );
            }
            return ClientTls::Off;
        }
        match (files, self.mode) {
            (Some((cert, key)), _) => {
                if draft.auto_tls {
                    self.warn("auto-tls", "accepted, has no effect beside --cert-file");
                }
                let client_certificates = self.client_certificates(draft, None);
                ClientTls::Files { cert, key, client_certificates }
            }
            (None, Mode::Keygate) => {
                let client_certificates = self.client_certificates(draft, Some(Ca::Managed));
                ClientTls::Managed { client_certificates }
            }
            (None, Mode::Etcd) if draft.auto_tls => {
                if draft.client_cert_auth || draft.trusted_ca_file.is_some() {
                    self.problem("client-cert-auth", "client certificates cannot be asked for with --auto-tls; give --cert-file and --key-file");
                }
                if draft.self_signed_years == 0 {
                    self.problem("self-signed-cert-validity", "at least one year is needed");
                }
                ClientTls::SelfSigned { validity_years: draft.self_signed_years.min(100) }
            }
            (None, Mode::Etcd) => {
                if draft.cert_file.is_none() && draft.key_file.is_none() {
                    self.problem(
                        "listen-client-urls",
                        "https needs --cert-file and --key-file, or --auto-tls",
                    );
                }
                ClientTls::Off
            }
        }
    }

    pub(super) fn client_crl_file(&mut self, draft: &Draft, tls: &ClientTls) -> Option<PathBuf> {
        let file = draft.client_crl_file.clone()?;
        match tls {
            ClientTls::Managed { client_certificates } | ClientTls::Files { client_certificates, .. }
                if *client_certificates != ClientCertificates::Ignored =>
            {
                Some(file)
            }
            ClientTls::Off
            | ClientTls::SelfSigned { .. }
            | ClientTls::Managed { .. }
            | ClientTls::Files { .. } => {
                self.warn(
                    "client-crl-file",
                    "accepted, has no effect: client certificates are not asked for",
                );
                None
            }
        }
    }

    pub(super) fn identity_rules_file(&mut self, draft: &Draft, tls: &ClientTls) -> Option<PathBuf> {
        let file = draft.identity_rules_file.clone()?;
        if *tls == ClientTls::Off {
            self.problem("identity-rules-file", "no client URL is https, so nobody could show a certificate");
        }
        Some(file)
    }

    fn client_certificates(&mut self, draft: &Draft, own: Option<Ca>) -> ClientCertificates {
        match (draft.trusted_ca_file.clone().map(Ca::File).or(own), draft.client_cert_auth) {
            (Some(ca), true) => ClientCertificates::Required { ca },
            // etcd takes the CA alone as a demand; whoever relied on that must not find the door open.
            (Some(ca), false) if self.mode == Mode::Etcd => ClientCertificates::Required { ca },
            (Some(ca), false) => ClientCertificates::Optional { ca },
            (None, false) => ClientCertificates::Ignored,
            (None, true) => {
                self.problem(
                    "client-cert-auth",
                    "--trusted-ca-file is missing: whose certificates shall be accepted?",
                );
                ClientCertificates::Ignored
            }
        }
    }
}
