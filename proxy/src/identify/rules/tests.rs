use super::*;
use std::path::Path;

const FILE: &str = "
authorities:
  - {name: pay-ca, ca-file: pay.pem, crl-file: pay.crl, tenant: pay}
  - {name: corp-ca, ca-file: /etc/corp.pem}
rules:
  - {name: admin, authority: platform, common-name: root, tenant: default, user: root}
  - {name: services, authority: pay-ca, uri: 'spiffe://corp/pay/{service}', user: 'svc-{service}', groups: [services, 'of-{service}']}
  - {authority: corp-ca, dns: '{host}.Shop.corp', tenant: shop, user: '{host}'}
  - {authority: corp-ca, common-name: '{cn}', tenant: shop, user: '{cn}'}
";

fn rules() -> Rules {
    Rules::parse(FILE, Path::new("/etc/keygate")).unwrap()
}

fn names(common_name: &str, dns: &[&str], uris: &[&str]) -> CertificateNames {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let common_name = (!common_name.is_empty()).then(|| common_name.into());
    CertificateNames { common_name, dns: owned(dns), uris: owned(uris) }
}

fn who(authority: &str, names: &CertificateNames) -> String {
    match rules().certificate(&authority.into(), names) {
        Err(why) => why.to_string(),
        Ok(Match { named, rule }) => {
            let groups = named.groups.names().join(",");
            let rule = rule.unwrap_or_else(|| "none".into());
            format!("{}@{} [{groups}] by {rule}", named.user, named.tenant.name())
        }
    }
}

#[test]
fn the_first_rule_of_the_authority_that_matches_counts() {
    let spiffe = &["spiffe://corp/pay/api"][..];
    for (authority, names, expected) in [
        ("platform", names("root", &[], &[]), "root@default [] by admin"),
        ("platform", names("alice", &[], &[]), "no rule for authority `platform` matches"),
        ("pay-ca", names("root", &[], spiffe), "svc-api@pay [services,of-api] by services"),
        // The same name in another authority's mouth.
        ("platform", names("x", &[], spiffe), "no rule for authority `platform` matches"),
        ("corp-ca", names("x", &["a.shop.corp"], &[]), "a@shop [] by rules[2]"),
        ("corp-ca", names("x", &["a.b.shop.corp", "b.shop.corp"], &[]), "b@shop [] by rules[2]"),
        ("corp-ca", names("x", &["shop.corp"], &[]), "x@shop [] by rules[3]"),
        (
            "corp-ca",
            names("root", &[], &[]),
            "rule `rules[3]` makes the name `root` of a pattern; give root a rule of its own",
        ),
        (
            "pay-ca",
            names("x", &[], &["spiffe://corp/pay/a", "spiffe://corp/pay/b"]),
            "the certificate has `2` URI names; an identity is exactly one",
        ),
        ("corp-ca", names("", &[], &[]), "no rule for authority `corp-ca` matches"),
    ] {
        assert_eq!(who(authority, &names), expected);
    }
    let sources = rules().authorities;
    assert_eq!(sources[0].ca, Path::new("/etc/keygate/pay.pem"));
    assert_eq!(sources[1].ca, Path::new("/etc/corp.pem"));
    let rules = rules();
    let pairs: Vec<_> = rules.pairs().collect();
    assert_eq!(pairs, [("platform", "default"), ("pay-ca", "pay"), ("corp-ca", "shop"), ("corp-ca", "shop")]);
}

#[test]
fn without_a_file_the_platforms_common_names_are_users() {
    let rules = Rules::without_file();
    let of = |names| rules.certificate(&PLATFORM.into(), &names).map(|found| found.named.user.to_string());
    assert_eq!(of(names("alice", &[], &[])).as_deref(), Ok("alice"));
    assert_eq!(of(names("", &["a"], &[])), Err(Unnamed::NoCommonName));
}

#[test]
fn everything_that_is_wrong_with_a_file_is_said_with_its_place() {
    let authority = "authorities: [{name: a, ca-file: a, tenant: pay}, {name: b, ca-file: b}]\nrules:\n";
    for (text, expected) in [
        (
            "  - {authority: a, uri: x, user: u, tenant: shop}",
            "rules[0]: it could match two tenants: `shop` here, and what authority `a` signs is of tenant `pay`",
        ),
        (
            "  - {authority: b, uri: 'x/{t}', user: u, tenant: '{t}'}",
            "rules[0].tenant: a tenant is written out",
        ),
        ("  - {authority: b, uri: x, user: u}", "rules[0]: which tenant is meant?"),
        ("  - {authority: b, uri: x, user: u, tenant: Pay}", "`Pay` is no tenant's name"),
        (
            "  - {authority: c, uri: x, user: u, tenant: pay}",
            "rules[0].authority: no authority `c`; there are `a`, `b`, `platform`",
        ),
        ("  - {authority: a, user: u}", "rules[0]: it matches nothing"),
        ("  - {authority: a, uri: '{a}{b}', user: u}", "rules[0].uri: behind `{a}` a separator is missing"),
        (
            "  - {authority: a, uri: 'x/{a}', common-name: '{a}', user: u}",
            "rules[0]: `{a}` is captured twice",
        ),
        (
            "  - {authority: a, uri: 'x/{a}', user: '{b}'}",
            "rules[0].user: `{b}` is captured nowhere in this rule",
        ),
        (
            "  - {authority: a, uri: x, user: u, groups: ['{g}']}",
            "rules[0].groups[0]: `{g}` is captured nowhere",
        ),
        (
            "  - {authority: b, uri: x, user: u, tenant: pay}\n  - {authority: b, uri: x, user: v, tenant: shop}",
            "rules[1]: it matches what rule `rules[0]` matches, which gives tenant `pay`",
        ),
        ("  - {authority: a, uri: x, user: u, colour: red}", "unknown field `colour`"),
        ("  - {authority: a, uri: x}", "missing field `user`"),
    ] {
        let problems = Rules::parse(&format!("{authority}{text}"), Path::new("")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(expected), "{text}\n{problems:?}");
    }
    let twice = "authorities: [{name: a, ca-file: a}, {name: a, ca-file: b}, {name: platform, ca-file: c}]";
    let problems = Rules::parse(twice, Path::new("")).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

/// What is missing may have been cut off: it is no answer, and never the one that lets people in.
#[test]
fn a_file_says_what_it_means_or_is_refused() {
    let authority = "authorities: [{name: a, ca-file: a, tenant: pay}]";
    let rule = "{authority: a, uri: x, user: u}";
    let of_platform = "{authority: platform, common-name: x, tenant: default, user: u}";
    for (text, expected) in [
        (String::from("{}"), "rules: there are none"),
        (authority.to_owned(), "rules: there are none"),
        (format!("platform: common-names\n{authority}\nrules: []"), "rules: there are none"),
        (format!("{authority}\nrules: [{of_platform}]"), "authorities[0]: no rule is about `a`"),
        (format!("platform: nobody\nrules: [{of_platform}]"), "platform: there are rules for"),
        (format!("platform: anybody\nrules: [{of_platform}]"), "unknown variant `anybody`"),
    ] {
        let problems = Rules::parse(&text, Path::new("")).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
    }
    assert!(Rules::parse("", Path::new("")).is_err());
    for (platform, says, who) in [
        ("", false, "no rule for authority `platform` matches"),
        ("platform: nobody", true, "no rule for authority `platform` matches"),
        ("platform: common-names", true, "alice"),
    ] {
        let text = format!("{platform}\n{authority}\nrules: [{rule}]");
        let rules = Rules::parse(&text, Path::new("")).unwrap();
        assert_eq!(rules.says_of_platform(), says, "{text}");
        let found = match rules.certificate(&PLATFORM.into(), &names("alice", &[], &[])) {
            Ok(found) => found.named.user.to_string(),
            Err(why) => why.to_string(),
        };
        assert_eq!(found, who, "{text}");
    }
}

/// A name that is skipped might be a second URI.
#[test]
fn a_certificate_with_a_name_that_cannot_be_read_is_not_read() {
    let certificate = |second: &[u8]| {
        let mut names = b"\x86\x0aspiffe://a".to_vec();
        names.extend([0x86, u8::try_from(second.len()).unwrap()]);
        names.extend(second);
        let all = [&[0x30, u8::try_from(names.len()).unwrap()][..], &names].concat();
        let mut params = rcgen::CertificateParams::default();
        let extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], all);
        params.custom_extensions.push(extension);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        CertificateNames::read(certificate.der())
    };
    assert_eq!(certificate(b"spiffe://b").unwrap().uris.len(), 2);
    assert_eq!(certificate(b"spiffe://\xff"), None);
}
