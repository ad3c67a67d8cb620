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
    assert!(shared.contains("have a certificate in common"), "{shared}");
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
