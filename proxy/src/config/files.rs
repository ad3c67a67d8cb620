//! The files that a configuration names.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::quota_webhook::Receiver;

use super::{
    AuthToken, Ca, ClientCertificates, ClientTls, ClusterState, Config, LimitsSource, Mode, problem::Problems,
};

/// Looks at the files that a configuration names: whether each can be read, and whether others can read a key. Apart
/// from [`super::load`], because a configuration may be checked on another machine than the one it is for.
pub fn check_files(config: &Config) -> Problems {
    let mut problems = Problems::default();
    let path_of = |key: &str| {
        let setting = config.effective.iter().find(|setting| setting.key == key);
        setting.map_or_else(|| key.to_owned(), |setting| setting.source.clone())
    };
    let mut public = Vec::new();
    let mut private = Vec::new();
    match &config.tls {
        ClientTls::Off | ClientTls::SelfSigned { .. } => {}
        ClientTls::Managed { client_certificates } => public.extend(ca_file(client_certificates)),
        ClientTls::Files { cert, key, client_certificates } => {
            public.push(("client-transport-security.cert-file", cert));
            private.push(("client-transport-security.key-file", key));
            public.extend(ca_file(client_certificates));
        }
    }
    public.extend(config.client_crl_file.iter().map(|path| ("client-crl-file", path)));
    if let Some(rules) = &config.identity_rules_file
        && let Err(error) = crate::identify::rules::Rules::read(rules)
    {
        problems.add(path_of("keygate.identity-rules-file"), error.to_string());
    }
    if let Err(error) = crate::policies::trust(&config.own.policy_keys, config.own.policy_keys_needed) {
        problems.add(path_of("keygate.policy-keys"), error.to_string());
    }
    if config.own.policy_keys_needed as usize > config.own.policy_keys.len() {
        let message = "more keys must have signed than `policy-keys` names, so no bundle could be applied";
        problems.add(path_of("keygate.policy-keys-needed"), message);
    }
    if let Some(Receiver { url: _, ca, secret }) = &config.own.quota_webhook {
        if let Some(Err(error)) = ca.as_deref().map(crate::outbound::authorities) {
            problems.add(path_of("keygate.quota-webhook-ca-file"), error);
        }
        if let Some(Err(error)) = secret.as_deref().map(crate::quota_webhook::secret) {
            problems.add(path_of("keygate.quota-webhook-secret-file"), error);
        }
    }
    // What is in it can be mended while the server runs.
    if let Some(path) = &config.own.policy_dir
        && let Err(error) = fs::metadata(path)
    {
        problems.add(path_of("keygate.policy-dir"), format!("cannot read `{}`: {error}", path.display()));
    }
    if let AuthToken::Jwt(jwt) = &config.auth_token {
        // What checks a keyed hash also makes one.
        let checking = if jwt.method.is_symmetric() { &mut private } else { &mut public };
        checking.extend(jwt.public_key.iter().map(|path| ("auth-token", path)));
        private.extend(jwt.private_key.iter().map(|path| ("auth-token", path)));
    }
    for (key, path) in public.iter().chain(&private) {
        if let Err(error) = fs::File::open(path) {
            problems.add(path_of(key), format!("cannot read `{}`: {error}", path.display()));
        }
    }
    if config.mode == Mode::Keygate {
        for (key, path) in private {
            if let Err(error) = crate::pki::private_file(path) {
                problems.add(path_of(key), error.to_string());
            }
        }
    }
    if let Some(source @ LimitsSource::File(_)) = &config.limits_source
        && let Err(limits) = source.read()
    {
        problems.append(limits);
    }
    if config.cluster_state == ClusterState::Existing && is_fresh(&config.data_dir) {
        problems.add(
            path_of("initial-cluster-state"),
            "an existing cluster cannot be joined yet, and the data directory is empty: say `new` to start one",
        );
    }
    problems
}

fn ca_file(certificates: &ClientCertificates) -> Option<(&'static str, &PathBuf)> {
    match certificates {
        ClientCertificates::Optional { ca: Ca::File(path) }
        | ClientCertificates::Required { ca: Ca::File(path) } => {
            Some(("client-transport-security.trusted-ca-file", path))
        }
        _ => None,
    }
}

fn is_fresh(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}
