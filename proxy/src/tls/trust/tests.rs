use std::fs;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;

use super::*;
use crate::tls::{TrustSources, load_trust};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, and the names of those above it are its chain.
struct Ca(CertifiedIssuer<'static, KeyPair>);

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    fn root(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap())
    }

    fn below(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(ca_params(name), key, &self.0).unwrap())
    }

    /// With the key of `other` and another name.
    fn with_key_of(&self, other: &Self, name: &str) -> Self {
        let key = KeyPair::from_pem(&other.0.key().serialize_pem()).unwrap();
        Self(CertifiedIssuer::signed_by(ca_params(name), key, &self.0).unwrap())
    }

    fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    fn leaf(&self, name: &str, serial: u64) -> CertificateDer<'static> {
        let mut params = params(name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    fn revoke(&self, serials: &[u64], end: Ends) -> String {
        let now = rcgen::date_time_ymd(1970, 1, 1)
            + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: rcgen::date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2020, 1, 1),
            next_update: match end {
                Ends::Tomorrow => now + DAY,
                Ends::Yesterday => now - DAY,
            },
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

#[derive(Clone, Copy)]
enum Ends {
    Tomorrow,
    Yesterday,
}

/// A folder with the platform's authority in `ca.pem`, tenant `pay`'s in `pay.pem` with lists in
/// `pay.crl`, and rules of theirs.
struct Files(TempDir);

impl Files {
    fn new(platform: &[&Ca], pay: &[&Ca], lists: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("ca.pem", &platform.iter().map(|ca| ca.0.pem()).collect::<String>());
        files.write("pay.pem", &pay.iter().map(|ca| ca.0.pem()).collect::<String>());
        files.write("pay.crl", lists);
        let rules = "
authorities: [{name: pay-ca, ca-file: pay.pem, crl-file: pay.crl, tenant: pay}]
rules:
  - {authority: pay-ca, common-name: root, user: root}
  - {authority: platform, common-name: root, tenant: default, user: root}
  - {authority: platform, common-name: shop, tenant: shop, user: shop}
";
        files.write("rules.yaml", rules);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn load(&self) -> Result<Trust, TlsError> {
        load_trust(&TrustSources {
            ca: Some(self.0.path().join("ca.pem")),
            revocation: None,
            identity_rules: Some(self.0.path().join("rules.yaml")),
        })
    }
}

fn said(certified: &Certified) -> String {
    match &certified.whom {
        Ok(found) => format!("{}@{}", found.named.user, found.named.tenant.name()),
        Err(why) => why.to_string(),
    }
}

#[test]
fn an_authority_below_another_is_refused() {
    let (corp, alone) = (Ca::root("corp"), Ca::root("alone"));
    let pay = corp.below("pay");
    let lists = pay.revoke(&[], Ends::Tomorrow);
    for (platform, own, upper) in
        [(&corp, &pay, "authority `platform` signed"), (&pay, &corp, "authority `pay-ca` signed")]
    {
        let why = Files::new(&[&alone, platform], &[own], &lists).load().err().unwrap().to_string();
        assert!(why.contains(upper), "{why}");
    }
    let shared = Files::new(&[&alone, &pay], &[&pay], &lists).load().err().unwrap().to_string();
    assert!(shared.contains("have a key in common"), "{shared}");
    let renamed = corp.with_key_of(&pay, "renamed");
    let shared = Files::new(&[&alone, &renamed], &[&pay], &lists).load().err().unwrap().to_string();
    assert!(shared.contains("have a key in common"), "{shared}");
    // Only the name is the same.
    let other = Ca::root("corp").below("pay");
    Files::new(&[&corp], &[&other], "").load().err().unwrap();
    Files::new(&[&corp], &[&other], &other.revoke(&[], Ends::Tomorrow)).load().unwrap();
}

/// The tenant's authority is below the platform's by a certificate that is in no file. What the
/// tenant's own list says against a certificate must not make it the platform's.
#[test]
fn what_an_authority_says_against_a_chain_is_not_lost_because_another_accepts_it() {
    let corp = Ca::root("corp");
    let between = corp.below("between");
    let pay = between.below("pay");
    let chain = [pay.leaf("root", 7), pay.der(), between.der()];
    let own = &chain[..1];
    let now = SystemTime::now();
    for (lists, why) in [
        (pay.revoke(&[], Ends::Tomorrow), ""),
        (pay.revoke(&[7], Ends::Tomorrow), "Revoked"),
        (pay.revoke(&[], Ends::Yesterday), "revocation list"),
        (Ca::root("elsewhere").revoke(&[], Ends::Tomorrow), "Unknown"),
    ] {
        let trust = Files::new(&[&corp], &[&pay], &lists).load().unwrap();
        for host in [None, Some("pay"), Some("shop"), Some(".")] {
            let certified = trust.certify(&chain, host, now);
            assert!(certified.is_rejected(), "at {host:?}: {certified:?}");
            let said = said(&certified);
            assert!(said.contains("of several authorities") || !why.is_empty(), "{said}");
            if trust.admits(&chain, host, now).is_ok() {
                assert!(said.contains("`pay-ca`") && said.contains("`platform`"), "at {host:?}: {said}");
            }
        }
        // Without the chain to the platform it is the tenant's, as ever.
        if why.is_empty() {
            assert_eq!(said(&trust.certify(own, Some("pay"), now)), "root@pay");
        }
        let standing = trust.certify_standing(&chain, None, now);
        match why {
            "Revoked" => assert_eq!(standing, Err(Lapse::Revoked)),
            _ => assert!(standing.unwrap().is_rejected()),
        }
    }
}

/// The platform's authority signed one more certificate for the tenant's key, under a name of its own. Whoever holds that
/// key, the tenant, signs certificates that the platform's authority verifies: they are not the platform's for that.
#[test]
fn what_a_tenants_key_signed_under_another_name_is_not_the_platforms() {
    let (corp, pay) = (Ca::root("corp"), Ca::root("pay"));
    let renamed = corp.with_key_of(&pay, "renamed");
    let chain = [renamed.leaf("root", 7), renamed.der()];
    let now = SystemTime::now();
    let trust = Files::new(&[&corp], &[&pay], &pay.revoke(&[], Ends::Tomorrow)).load().unwrap();
    for host in [None, Some("pay"), Some("shop"), Some(PLATFORM_ONLY)] {
        let certified = trust.certify(&chain, host, now);
        assert!(certified.is_rejected(), "at {host:?}: {certified:?}");
    }
    let said_of_both = said(&trust.certify(&chain, None, now));
    assert!(said_of_both.contains("`platform`, `pay-ca` (whose key it carries"), "{said_of_both}");
    assert!(trust.certify_standing(&chain, None, now).unwrap().is_rejected());
    // Contrast: one of the platform's own below it is the platform's.
    let own = corp.below("renamed");
    let chain = [own.leaf("root", 7), own.der()];
    assert_eq!(said(&trust.certify(&chain, None, now)), "root@default");
    assert_eq!(said(&trust.certify_standing(&chain, None, now).unwrap()), "root@default");
}

#[test]
fn authorities_of_one_name_do_not_speak_against_each_others_clients() {
    let (corp, pay) = (Ca::root("same"), Ca::root("same"));
    let files = Files::new(&[&corp], &[&pay], &pay.revoke(&[1], Ends::Tomorrow));
    let trust = files.load().unwrap();
    let now = SystemTime::now();
    assert_eq!(said(&trust.certify(&[corp.leaf("root", 1)], None, now)), "root@default");
    assert_eq!(said(&trust.certify(&[pay.leaf("root", 2)], None, now)), "root@pay");
    let standing = trust.certify_standing(&[corp.leaf("root", 1)], None, now).unwrap();
    assert_eq!(said(&standing), "root@default");
}

/// An authority has a new key and its old name. The list of the new key says nothing of the old one's
/// certificates: newcomers with these are refused, and who is in stays.
#[test]
fn a_list_that_cannot_be_checked_ends_no_connection() {
    let (corp, old, new) = (Ca::root("corp"), Ca::root("pay"), Ca::root("pay"));
    let files = Files::new(&[&corp], &[&old, &new], &new.revoke(&[7], Ends::Tomorrow));
    let trust = files.load().unwrap();
    let now = SystemTime::now();
    let (of_old, of_new) = ([old.leaf("root", 7)], [new.leaf("root", 7)]);
    assert!(trust.admits(&of_old, None, now).is_err());
    assert_eq!(said(&trust.certify_standing(&of_old, None, now).unwrap()), "root@pay");
    assert_eq!(trust.certify_standing(&of_new, None, now), Err(Lapse::Revoked));
    // The old key is taken out: that is no revocation, and an end all the same.
    files.write("pay.pem", &new.0.pem());
    let trust = files.load().unwrap();
    assert_eq!(trust.certify_standing(&of_old, None, now), Err(Lapse::Untrusted));
    let much_later = now + DAY * 365 * 4000;
    assert_eq!(trust.certify_standing(&of_new, None, much_later), Err(Lapse::Expired));
}

#[test]
fn a_file_of_lists_is_read_whole_or_not_at_all() {
    let (corp, pay) = (Ca::root("corp"), Ca::root("pay"));
    let list = pay.revoke(&[7], Ends::Tomorrow);
    let other = Ca::root("other").revoke(&[], Ends::Tomorrow);
    for (text, why) in [
        (format!(" {list}"), "1 lists begin, 0 can be read"),
        (format!("{other}  {list}"), "2 lists begin, 1 can be read"),
        (list.replace("-----END X509 CRL-----\n", ""), "damaged PEM"),
        (String::new(), "neither PEM"),
        (format!("{list}{}", pay.revoke(&[8], Ends::Tomorrow)), "lists 1 and 2 are both of `CN=pay`"),
    ] {
        match Files::new(&[&corp], &[&pay], &text).load() {
            Ok(_) => panic!("was taken: {why}"),
            Err(error) => assert!(error.to_string().contains(why), "{error}"),
        }
    }
    let now = SystemTime::now();
    for text in [format!("\u{feff}{list}"), format!("{list}{list}"), format!("# of pay\n{list}{other}")] {
        let trust = Files::new(&[&corp], &[&pay], &text).load().unwrap();
        assert!(trust.admits(&[pay.leaf("root", 7)], None, now).is_err());
        trust.admits(&[pay.leaf("root", 8)], None, now).unwrap();
    }
}

#[test]
fn rules_must_say_whom_the_platforms_certificates_name() {
    let (corp, pay) = (Ca::root("corp"), Ca::root("pay"));
    let files = Files::new(&[&corp], &[&pay], &pay.revoke(&[], Ends::Tomorrow));
    let own = "authorities: [{name: pay-ca, ca-file: pay.pem, tenant: pay}]
rules: [{authority: pay-ca, common-name: root, user: root}]
";
    files.write("rules.yaml", own);
    let why = files.load().err().unwrap().to_string();
    assert!(why.contains("rules.yaml") && why.contains("`platform: common-names`"), "{why}");
    for (word, expected) in [("common-names", "root@default"), ("nobody", "no rule for authority")] {
        files.write("rules.yaml", &format!("platform: {word}\n{own}"));
        let certified = files.load().unwrap().certify(&[corp.leaf("root", 1)], None, SystemTime::now());
        assert!(said(&certified).contains(expected), "{certified:?}");
    }
}

#[test]
fn a_rule_with_another_name_changes_nobody() {
    let certified = |authority: &str, user: &str, rule: &str| Certified {
        authority: authority.into(),
        whom: Ok(Match {
            named: crate::identify::Named {
                tenant: TenantOf::Default,
                user: user.into(),
                groups: keygate_core::Groups::NONE,
            },
            rule: Some(rule.into()),
        }),
    };
    let rejected = |why| Certified { authority: "a".into(), whom: Err(why) };
    let one = certified("a", "u", "rules[0]");
    assert!(one.is_same_as(&certified("a", "u", "rules[1]")));
    assert!(!one.is_same_as(&certified("b", "u", "rules[0]")));
    assert!(!one.is_same_as(&certified("a", "v", "rules[0]")));
    assert!(!one.is_same_as(&rejected(Unnamed::Unreadable)));
    assert!(rejected(Unnamed::Unreadable).is_same_as(&rejected(Unnamed::SeveralUris(2))));
    assert!(!rejected(Unnamed::Unreadable).is_same_as(&rejected(Unnamed::NoCommonName)));
}

/// What a client is told of the authorities that a server has.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<Vec<u8>>>);

impl rustls::client::ResolvesClientCert for Told {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        self.0.lock().unwrap().extend(hints.iter().map(|hint| hint.to_vec()));
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The names of authorities in a whole handshake.
fn told(config: Arc<rustls::ServerConfig>, ca: &CertificateDer<'static>) -> Vec<Vec<u8>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let told = Arc::new(Told::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(told.clone());
    let mut client =
        rustls::ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(config).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    told.0.lock().unwrap().clone()
}

/// More names than a handshake message has room for, and none of a stranger's business.
#[test]
fn names_of_authorities_are_told_at_the_hosts_of_their_tenants_only() {
    const AUTHORITIES: usize = 2000;
    let corp = Ca::root("corp");
    let files = Files::new(&[&corp], &[], "");
    let (mut authorities, mut rules) = (String::new(), String::new());
    for number in 0..AUTHORITIES {
        let name = format!("authority of the tenant with number {number}");
        let key = KeyPair::generate().unwrap();
        files.write(&format!("{number}.pem"), &ca_params(&name).self_signed(&key).unwrap().pem());
        authorities +=
            &format!("  - {{name: ca-{number}, ca-file: {number}.pem, tenant: tenant-{number}}}\n");
        rules += &format!("  - {{authority: ca-{number}, common-name: x, user: x}}\n");
    }
    files.write("rules.yaml", &format!("platform: nobody\nauthorities:\n{authorities}rules:\n{rules}"));
    let own = KeyPair::generate().unwrap();
    let mut server = params("server");
    server.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    files.write("server.pem", &server.signed_by(&own, &corp.0).unwrap().pem());
    files.write("server-key.pem", &own.serialize_pem());
    let at = |name: &str| files.0.path().join(name);
    let loaded = crate::tls::load(&TlsSources {
        cert: at("server.pem"),
        key: at("server-key.pem"),
        client_certificates: ClientCertificates::Optional { ca: at("ca.pem") },
        revocation: None,
        identity_rules: Some(at("rules.yaml")),
        versions: crate::tls::Versions::Both,
        cipher_suites: Vec::new(),
        private_key_only: false,
    })
    .unwrap();
    for (host, expected) in
        [(None, 0), (Some(PLATFORM_ONLY), 0), (Some("elsewhere"), 0), (Some("tenant-1234"), 1)]
    {
        let names = told(loaded.config(host), &corp.der());
        assert_eq!(names.len(), expected, "at {host:?}");
        for name in names {
            assert!(String::from_utf8_lossy(&name).ends_with("with number 1234"));
        }
    }
}
