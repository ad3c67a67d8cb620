//! A bundle is read whole or refused whole, and every problem is named with file, line and column.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

mod bundles;

use bundles::{bundle, files, sealed};
use keygate_policies::BUNDLE_MODEL;
use keygate_policies::bundle::{Bundle, Draft, Files, Manifest, Rule, SignatureError, SigningKey, verify};
use std::io::Read as _;

const ROW: &str = "p, role:r, pay, /pay/*, read, allow\n";

#[test]
fn a_bundle_is_read_and_its_rows_print_as_they_are_written() {
    let rows = [
        "p, role:writer, pay, /pay/*, readwrite, allow",
        "p, user:a\\x2cb, default, =/a\\x20b\\x00\\xff, read, allow",
        "p, group:ops, pay, [/a, /c), write, allow, source=10.0.0.0/8|2001:db8::/32;until=2027-01-01T00:00:00Z",
        "p, user:*, *, [/x, ), read, deny, connection=plain;on_partial=filter",
        "p, user:spiffe://corp/pay, pay, -, compact, allow, time=Mon@08:00-18:00",
        "p, role:writer, pay, *, read, deny",
    ];
    let roles = "# who\n\ng, user:svc, role:writer, pay\r\ng,group:ops,role:writer,*\n";
    let bundle = bundle(&rows.join("\n"), roles);
    assert_eq!(bundle.rows().iter().map(ToString::to_string).collect::<Vec<_>>(), rows);
    assert_eq!(bundle.rows()[3].line, 4);
    let links: Vec<String> = bundle.links().iter().map(ToString::to_string).collect();
    assert_eq!(links, ["g, user:svc, role:writer, pay", "g, group:ops, role:writer, *"]);
    assert_eq!((bundle.links()[0].line, bundle.revision()), (3, 7));
    assert!(bundle.digest().starts_with("sha256:"));
}

/// `file:line rule column` of all findings.
fn found(files: &Files) -> Vec<String> {
    let findings = Bundle::read(files).expect_err("the bundle is broken");
    let told = |found: &keygate_policies::bundle::Finding| {
        format!("{}:{} {} {}", found.file, found.line, found.rule.name(), found.column.unwrap_or("-"))
    };
    findings.iter().map(told).collect()
}

#[test]
fn all_wrong_columns_of_all_rows_are_reported_at_once() {
    let policy = "p, someone, a tenant, /a, execute, maybe, colour=red;source=x\n\
                  p, role:r, pay, /pay/*/x, read, allow\n\
                  q, role:r\n\
                  p, role:r, pay, *\n\
                  g, user:u, role:r, pay\n\
                  p, role:r, pay, *, compact, allow\n\
                  p, role:r, pay, *, read, allow, on_partial=filter\n\
                  p, \"role:r\", pay, *, read, allow\n\
                  p, role:*, pay, *, read, allow\n\
                  p, role:r, pay, *, write, deny, on_partial=filter\n\
                  p, role:r, pay, -, compact, deny, on_partial=filter\n\
                  p, role:r, pay, *, readwrite, allow, on_partial=reject\n";
    assert_eq!(
        found(&files(policy, "g, user:*, group:g, -\ng, user:u, role:ghost, pay\n", "")),
        [
            "policy.csv:1 row-value ACTION",
            "policy.csv:1 condition-invalid CONDITIONS",
            "policy.csv:1 condition-invalid CONDITIONS",
            "policy.csv:1 effect-unsupported EFFECT",
            "policy.csv:1 pattern-invalid PATTERN",
            "policy.csv:1 row-value SUBJECT",
            "policy.csv:1 row-value TENANT",
            "policy.csv:2 glob-not-at-end PATTERN",
            "policy.csv:3 row-section SECTION",
            "policy.csv:4 row-arity -",
            "policy.csv:5 row-section SECTION",
            "policy.csv:6 pattern-invalid PATTERN",
            "policy.csv:7 condition-invalid CONDITIONS",
            "policy.csv:8 file-encoding -",
            "policy.csv:9 row-value SUBJECT",
            "policy.csv:10 condition-invalid CONDITIONS",
            "policy.csv:11 condition-invalid CONDITIONS",
            "policy.csv:12 condition-invalid CONDITIONS",
            "roles.csv:1 row-value MEMBER",
            "roles.csv:1 row-value ROLE",
            "roles.csv:1 row-value TENANT",
            "roles.csv:2 role-unknown ROLE",
        ]
    );
}

#[test]
fn findings_say_what_is_accepted() {
    let findings = Bundle::read(&files("p, role:r, pay, /, read, allow\n", "", "")).unwrap_err();
    assert_eq!(
        findings[0].to_string(),
        "policy.csv:1: error: PATTERN: `/` does not say whether it is one key (`=/`) or a prefix (`/*`); \
         accepted: `=KEY`, `TEXT*`, `[FIRST, END)`, `[FIRST, )`, `*` [pattern-invalid]"
    );
}

#[test]
fn cycles_and_deep_chains_of_roles_are_refused() {
    let chain = |length: usize| -> String {
        let links = (1..length).map(|n| format!("g, role:r{n}, role:r{}, pay\n", n + 1));
        links.chain(["g, user:u, role:r1, pay\n".to_owned()]).collect()
    };
    let rows = |length: usize| format!("p, role:r{length}, pay, *, read, allow\n");
    assert_eq!(bundle(&rows(10), &chain(10)).links().len(), 10);
    assert_eq!(found(&files(&rows(11), &chain(11), "")), ["roles.csv:1 role-depth ROLE"]);
    let long = chain(100_000);
    assert_eq!(found(&files(&rows(100_000), &long, "")).len(), 1);
    let cycle = "g, role:a, role:b, *\ng, role:b, role:a, pay\n";
    assert_eq!(found(&files("", cycle, "")), ["roles.csv:2 role-cycle ROLE"]);
    // In two tenants it is no cycle.
    let apart = "g, role:a, role:b, one\ng, role:b, role:a, two\n";
    bundle("p, role:b, one, *, read, allow\np, role:a, two, *, read, allow\n", apart);
    assert_eq!(found(&files("", "g, role:a, role:a, pay\n", "")), ["roles.csv:1 role-cycle ROLE"]);
}

#[test]
fn files_that_are_not_the_listed_ones_are_refused() {
    let good = files(ROW, "", "- as: {user: u}\n  deny: [compact]\n");
    assert!(Bundle::read(&good).is_ok());
    let mut cases = Vec::new();
    let mut case = |expected: &'static str, change: &dyn Fn(&mut Files)| {
        let mut changed = good.clone();
        change(&mut changed);
        cases.push((found(&changed), vec![expected.to_owned()]));
    };
    case("policy.csv:0 file-digest -", &|files| files.insert("policy.csv", "# other\n".into()));
    case("tests/b.yaml:0 file-unlisted -", &|files| files.insert("tests/b.yaml", "[]".into()));
    case("polciy.csv:0 file-unknown -", &|files| files.insert("polciy.csv", ROW.into()));
    case("tests/a/b.yaml:0 file-unknown -", &|files| files.insert("tests/a/b.yaml", "[]".into()));
    case("tests/all.yaml:0 file-missing -", &|files| files.remove("tests/all.yaml"));
    case("roles.csv:0 file-missing -", &|files| files.remove("roles.csv"));
    case("manifest.json:0 file-missing -", &|files| files.remove("manifest.json"));
    let manifest = |from: &str, to: &str| {
        let text = String::from_utf8(good.get("manifest.json").unwrap().to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    for (from, to, expected) in [
        ("\"format\": 1", "\"format\": 2", "manifest.json:0 manifest-invalid format"),
        ("\"revision\": 7", "\"revision\": 0", "manifest.json:0 manifest-invalid revision"),
        ("\"revision\": 7", "\"revision\": 7, \"revision\": 8", "manifest.json:3 manifest-invalid -"),
        ("\"revision\": 7", "\"revision\": -1", "manifest.json:3 manifest-invalid -"),
        ("\"revision\": 7", "\"revision\": 7, \"extra\": 8", "manifest.json:3 manifest-invalid -"),
        ("\"files\": {", "\"files\": {\"roles.csv\": \"\", ", "manifest.json:8 manifest-invalid -"),
        (
            concat!("\"", env!("CARGO_PKG_VERSION"), "\""),
            "\"999.0.0\"",
            "manifest.json:0 manifest-version min_keygate",
        ),
        (
            concat!("\"", env!("CARGO_PKG_VERSION"), "\""),
            "\"1\"",
            "manifest.json:0 manifest-invalid min_keygate",
        ),
    ] {
        case(expected, &|files| files.insert("manifest.json", manifest(from, to)));
    }
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn models_that_mean_something_else_are_refused_by_name() {
    let changed = |from: &str, to: &str| {
        assert!(BUNDLE_MODEL.contains(from), "{from}");
        let mut files = files(ROW, "", "");
        files.insert("model.conf", BUNDLE_MODEL.replace(from, to).into());
        found(&sealed(files))
    };
    let effect = "some(where (p.eft == allow)) && !some(where (p.eft == deny))";
    assert_eq!(changed(effect, "!some(where (p.eft == deny))"), ["model.conf:25 model-default-allow -"]);
    assert_eq!(changed(effect, "some(where (p.eft == maybe))"), ["model.conf:25 effect-unsupported -"]);
    let unsupported = |line: u32| vec![format!("model.conf:{line} model-unsupported -")];
    assert_eq!(changed("covers(p.obj, r.obj)", "keyMatch2(r.obj, p.obj)"), unsupported(28));
    assert_eq!(changed("g = _, _, _", "g = _, _"), unsupported(22));
    assert_eq!(changed("[role_definition]", "[role_definitions]"), unsupported(0));
    assert_eq!(changed("[matchers]", "[matchers]\nm2 = true"), unsupported(0));
    // Comments, blanks and continued lines are no meaning.
    let mut files = files(ROW, "", "");
    let same = BUNDLE_MODEL.replace(" && includes", " \\\n   &&   includes").replace('#', ";");
    files.insert("model.conf", same.into());
    assert!(Bundle::read(&sealed(files)).is_ok());
}

#[test]
fn tests_are_read_with_their_lines_and_their_errors() {
    let text = "# first\n- as: {tenant: pay, user: svc, groups: [g], source: 10.0.0.1, at: 2026-01-01T00:00:00Z, connection: mtls}\n  allow: [\"put /pay/a\", \"range [/pay/, /pay0)\"]\n\n- as: {user: auditor}\n  deny: [compact]\n  filtered: {request: \"range /pay/*\", hidden: [\"/pay/secret/*\"]}\n";
    let bundle = Bundle::read(&files(ROW, "", text)).unwrap();
    let lines: Vec<u32> = bundle.tests().iter().map(|case| case.line).collect();
    assert_eq!((lines, bundle.tests()[1].filtered.len()), (vec![2, 5], 1));
    let broken = "- as: {user: u, source: x, at: y, connection: z, tenant: a b}\n  allow: [\"put /a*\", \"fly /a\", \"get\", \"compact /a\"]\n";
    assert_eq!(found(&files(ROW, "", broken)), vec!["tests/all.yaml:1 test-invalid -"; 8]);
    assert_eq!(found(&files(ROW, "", "- as: {usr: u}\n")), ["tests/all.yaml:1 test-invalid -"]);
}

fn key(seed: u8) -> SigningKey {
    // PKCS#8 of Ed25519 is a fixed beginning and 32 bytes.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    SigningKey::from_pkcs8(&der).unwrap()
}

#[test]
fn enough_named_keys_must_have_signed() {
    let mut files = files(ROW, "", "");
    let trusted = [key(1).verifying_key(), key(2).verifying_key()];
    assert_eq!(verify(&files, &trusted, 1), Err(SignatureError::TooFew { found: 0, needed: 1 }));
    assert_eq!(verify(&files, &trusted, 0), Err(SignatureError::TooFew { found: 0, needed: 1 }));
    for seed in [1, 3, 1] {
        let text = key(seed).sign(&files).unwrap();
        files.insert("SIGNATURES", text.into_bytes());
    }
    assert_eq!(verify(&files, &trusted, 1), Ok(vec![trusted[0].id()]));
    assert_eq!(verify(&files, &trusted, 2), Err(SignatureError::TooFew { found: 1, needed: 2 }));
    let text = key(2).sign(&files).unwrap();
    files.insert("SIGNATURES", text.clone().into_bytes());
    assert_eq!(verify(&files, &trusted, 2).map(|ids| ids.len()), Ok(2));
    assert!(Bundle::read(&files).is_ok());
    // The same key twice is one.
    let twice: String = text
        .lines()
        .filter(|line| line.contains(&trusted[0].id()))
        .map(|line| format!("{line}\n{line}\n"))
        .collect();
    files.insert("SIGNATURES", twice.into_bytes());
    assert_eq!(verify(&files, &trusted, 2), Err(SignatureError::TooFew { found: 1, needed: 2 }));
    files.insert("SIGNATURES", text.into_bytes());
    files.insert("manifest.json", Manifest::of(&files, 8).to_bytes());
    assert!(matches!(verify(&files, &trusted, 1), Err(SignatureError::Wrong { line: 2, .. })));
    files.insert("SIGNATURES", vec![b'#'; 70_000]);
    assert_eq!(verify(&files, &trusted, 1), Err(SignatureError::TooLong));
    files.insert("SIGNATURES", "ed25519 xyz\n".into());
    assert_eq!(verify(&files, &trusted, 1), Err(SignatureError::Line { line: 1 }));
}

fn tar(entries: &[(&str, &[u8], tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn folders_and_tars_are_the_same_bundle() {
    let files = files(ROW, "", "- as: {user: u}\n  deny: [compact]\n");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tests")).unwrap();
    std::fs::write(folder.path().join(".hidden"), "x").unwrap();
    for (path, bytes) in files.iter() {
        std::fs::write(folder.path().join(path), bytes).unwrap();
    }
    assert!(Files::open(folder.path()).unwrap() == files);
    let regular = tar::EntryType::Regular;
    let mut entries: Vec<_> = files.iter().map(|(path, bytes)| (path, bytes, regular)).collect();
    entries.push(("tests/", b"", tar::EntryType::Directory));
    let file = folder.path().join("bundle.tar");
    std::fs::write(&file, tar(&entries)).unwrap();
    assert!(Files::open(&file).unwrap() == files);
    for (bad, reason) in [
        (("../policy.csv", regular), "relative path"),
        (("/policy.csv", regular), "relative path"),
        (("policy.csv", regular), "twice"),
        (("link", tar::EntryType::Symlink), "neither a file"),
    ] {
        let mut with = entries.clone();
        with.push((bad.0, b"x", bad.1));
        let error = Files::from_tar(&tar(&with)).err().expect(bad.0);
        assert!(error.to_string().contains(reason), "{error}");
    }
    let packed = files.to_packed_tar().unwrap();
    std::fs::write(&file, &packed).unwrap();
    assert!(Files::open(&file).unwrap() == files);
    let cut = Files::from_tar(&packed[..packed.len() - 9]).err().unwrap();
    assert!(cut.to_string().contains("gzip cannot be read"), "{cut}");
    let more = [packed.as_slice(), b"and more"].concat();
    assert!(Files::from_tar(&more).err().unwrap().to_string().contains("gzip cannot be read"));
    let plain = files.to_tar().unwrap();
    let in_parts: Vec<u8> = plain.chunks(700).flat_map(packed_by_gzip).collect();
    assert!(Files::from_tar(&in_parts).unwrap() == files, "only the first part was read");
    std::fs::create_dir(folder.path().join("more")).unwrap();
    assert!(Files::open(folder.path()).is_err());
    assert!(Files::open(&folder.path().join("absent")).is_err());
}

fn packed_by_gzip(content: impl std::io::Read) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(content, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

/// A thousand times smaller than what it unpacks to.
#[test]
fn no_gzip_unpacks_without_end() {
    let packed = packed_by_gzip(std::io::repeat(0).take(80 << 20));
    assert!(packed.len() < 1 << 20);
    let error = Files::from_tar(&packed).err().unwrap();
    assert!(error.to_string().contains("more than 67 MiB"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(500))]

    /// A tar whose headers say anything, with checksums that fit them, is read or refused, cut short too.
    #[test]
    fn no_tar_panics(changes in proptest::collection::vec((0_usize..3, 0_usize..512, proptest::num::u8::ANY), 1..6), kind in proptest::num::u8::ANY, cut in 0_usize..12_000) {
        let files = files(ROW, "", "");
        let mut builder = tar::Builder::new(Vec::new());
        for (number, (path, bytes)) in files.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(bytes.len() as u64);
            if number == 0 {
                header.set_entry_type(tar::EntryType::new(kind));
            }
            for (_, at, byte) in changes.iter().filter(|change| change.0 == number) {
                header.as_mut_bytes()[*at] = *byte;
            }
            header.set_cksum();
            builder.append(&header, bytes).unwrap();
        }
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(cut);
        if let Ok(files) = Files::from_tar(&bytes) {
            let _ = Draft::read(&files);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2_000))]

    /// Bytes of any kind, and texts near to the real ones, are read or refused without a panic; a row
    /// that is taken prints as a text that is taken as the same row.
    #[test]
    fn no_bytes_panic(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..200), text in TEXT, at in 0_usize..6) {
        for bytes in [raw, text.clone().into_bytes()] {
            let mut files = files(ROW, "", "");
            let path = ["policy.csv", "roles.csv", "model.conf", "tests/a.yaml", "SIGNATURES", "policy.csv"][at];
            files.insert(path, bytes.clone());
            let draft = Draft::read(&sealed(files.clone()));
            for row in &draft.rows {
                let again = bundles::files(&format!("{row}\n"), "", "");
                let read = Draft::read(&again);
                proptest::prop_assert_eq!(read.rows.iter().map(ToString::to_string).collect::<Vec<_>>(), vec![row.to_string()]);
                proptest::prop_assert_eq!(&read.rows[0].keys, &row.keys);
                proptest::prop_assert_eq!(&read.rows[0].conditions, &row.conditions);
            }
            let _ = verify(&files, &[key(1).verifying_key()], 1);
            files.insert("manifest.json", bytes.clone());
            proptest::prop_assert!(Draft::read(&files).findings.iter().any(|found| found.rule == Rule::ManifestInvalid));
            let _ = Files::from_tar(&bytes);
        }
    }
}

const TEXT: &str = r"(([pg#]|p, (role|user|group):[a-c*é\\]{1,3}, (\*|pay|default), (=?[/a\\x0-9f*]{0,6}|\[[a-c/]{0,2}, ?[a-c/]{0,2}\)|-), (read|write|readwrite|compact), (allow|deny)(, (source=(1?0\.0\.0\.0|::|ff00::)/[0-9]{1,3}|time=((Mon|Fri)-?(Tue)?@)?[0-9]{2}:00-2[0-4]:[0-9]{2}|until=20[0-9]{2}-0[1-9]-[0-3][0-9]T00:00:00Z|on_partial=filter|connection=(tls|mtls|plain\|tls)))?|.{0,20})\n){0,5}";
