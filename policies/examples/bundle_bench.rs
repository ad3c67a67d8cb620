//! How long it takes to read and compile large bundles, and to decide by them.
//!
//! `cargo run --release -p keygate-policies --example bundle_bench`

use keygate_core::KeyRange;
use keygate_policies::bundle::{Action, Bundle, Connection, Context, Files, Instant as Moment, Manifest};
use keygate_policies::{Asker, BUNDLE_MODEL, BundlePolicy};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const SAMPLES: usize = 300_000;

fn main() {
    for (rows, roles, tenants) in [(10_000, 1_000, 1_000), (100_000, 10_000, 1_000), (100_000, 1, 1)] {
        let files = files(rows, roles, tenants);
        let started = Instant::now();
        let bundle = Arc::new(Bundle::read(&files).expect("a generated bundle is valid"));
        let read = started.elapsed();
        let started = Instant::now();
        let policy = BundlePolicy::compile(bundle);
        let name = format!("rows={rows} roles={roles} tenants={tenants}");
        println!("{name}: read {} ms, compile {} ms", read.as_millis(), started.elapsed().as_millis());
        decide(&name, &policy, rows, roles, tenants);
        compare(&name, policy.bundle(), &files);
    }
}

/// Against itself, with one row taken away, and with every row changed.
fn compare(name: &str, bundle: &Bundle, files: &Files) {
    let policy = String::from_utf8_lossy(files.get("policy.csv").unwrap_or_default()).into_owned();
    let (_, without_first) = policy.split_once('\n').unwrap_or_default();
    let changes = [
        ("nothing", policy.clone()),
        ("one row", without_first.to_owned()),
        ("all rows", policy.replace("readwrite", "read")),
    ];
    for (change, text) in changes {
        let mut files = files.clone();
        files.insert("policy.csv", text.into_bytes());
        files.insert("manifest.json", Manifest::of(&files, 2).to_bytes());
        let other = Bundle::read(&files).expect("the changed bundle is valid too");
        let started = Instant::now();
        let deltas = keygate_policies::diff(bundle, &other).len();
        println!("{name}: diff of {change}: {deltas} deltas in {} ms", started.elapsed().as_millis());
    }
}

/// Row `n` is of role `n % roles`, which lives in tenant `role % tenants`. Each role has a user.
fn files(rows: usize, roles: usize, tenants: usize) -> Files {
    let mut policy = String::new();
    for row in 0..rows {
        let role = row % roles;
        let (effect, conditions) = match row / roles % 10 {
            8 => ("deny", ", source=10.66.0.0/16"),
            9 => ("allow", ", time=Mon-Fri@06:00-22:00;connection=mtls"),
            _ => ("allow", ""),
        };
        let tenant = role % tenants;
        policy += &format!("p, role:r{role}, t{tenant}, /apps/{row:06}/*, readwrite, {effect}{conditions}\n");
    }
    let links = (0..roles).map(|role| format!("g, user:u{role}, role:r{role}, t{}\n", role % tenants));
    let mut files = Files::default();
    files.insert("model.conf", BUNDLE_MODEL.into());
    files.insert("policy.csv", policy.into_bytes());
    files.insert("roles.csv", links.collect::<String>().into_bytes());
    files.insert("manifest.json", Manifest::of(&files, 1).to_bytes());
    files
}

fn decide(name: &str, policy: &BundlePolicy, rows: usize, roles: usize, tenants: usize) {
    let context = Context {
        source: "10.1.2.3".parse().ok(),
        now: Some(Moment(1_800_000_000)),
        connection: Some(Connection::Mtls),
    };
    let questions: Vec<(String, String, KeyRange, KeyRange)> = (0..20_000)
        .map(|n| {
            let row = n * 7_919 % rows;
            let role = row % roles;
            let key = |end: &str| bytes::Bytes::from(format!("/apps/{row:06}/{end}"));
            let range = KeyRange::Span { start: key("a"), end: key("z") };
            (format!("t{}", role % tenants), format!("u{role}"), KeyRange::Single(key("key")), range)
        })
        .collect();
    for kind in ["single", "range"] {
        let mut times = Vec::with_capacity(SAMPLES);
        let mut allowed = 0;
        for sample in 0..SAMPLES {
            let (tenant, user, single, range) = &questions[sample % questions.len()];
            let keys = if kind == "single" { single } else { range };
            let asker = Asker { tenant, user, groups: &["ops"] };
            let started = Instant::now();
            let decided = black_box(policy.decide(&asker, &context, Action::Read, keys));
            times.push(started.elapsed().as_nanos() as u64);
            allowed += u64::from(decided.outcome == keygate_policies::Outcome::Allow);
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{name} {kind}: p50={} p99={} p99.9={} ns, {allowed} of {SAMPLES} allowed",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}
