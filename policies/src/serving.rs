//! What a server asks of bundles: is this one fit to be applied, and its rulings.

use crate::bundle::{Action, Bundle, Context, Files, Instant, RangeText, Verb, VerifyingKey, verify};
use crate::compiler::Compiler;
use crate::decision::{Asker, BundlePolicy};
use crate::testing::run_tests;
use aws_lc_rs::digest;
use bytes::Bytes;
use keygate_core::{
    Access, AdminVerb, Asking, BundleAbout, BundleDigest, Gift, KeyAction, KeyRange, Rules, Ruling,
    SightRuling,
};
use smallvec::SmallVec;
use std::fmt::Write as _;
use std::sync::Arc;

/// Findings that are told at once; whoever mends these sees the others next time.
const TOLD: usize = 50;

/// The name of a tar among bundles.
pub fn digest_of_tar(parts: &[Bytes]) -> BundleDigest {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut name = [0; 32];
    name.copy_from_slice(context.finish().as_ref());
    BundleDigest(name)
}

/// Whose signatures a bundle needs.
#[derive(Clone, Debug)]
pub struct Trust {
    pub keys: Vec<VerifyingKey>,
    pub needed: usize,
}

/// The files of a bundle that came in parts.
fn files(digest: &BundleDigest, parts: &[Bytes]) -> Result<Files, String> {
    let found = digest_of_tar(parts);
    if found != *digest {
        return Err(format!("its content is `{found}`, not `{digest}` as announced"));
    }
    Files::from_tar(&parts.concat()).map_err(|error| error.to_string())
}

fn read(files: &Files) -> Result<Bundle, String> {
    Bundle::read(files).map_err(|findings| told(findings.iter().map(ToString::to_string)))
}

fn told(findings: impl Iterator<Item = String>) -> String {
    let (mut text, mut count) = (String::new(), 0);
    for finding in findings {
        if count < TOLD {
            let separator = if count == 0 { "" } else { "\n" };
            // Writing to a text cannot fail.
            let _done = write!(text, "{separator}{finding}");
        }
        count += 1;
    }
    if count > TOLD {
        let _done = write!(text, "\nand {} more", count - TOLD);
    }
    text
}

/// What stands in the way of a bundle that can be read.
fn unfit(policy: &BundlePolicy) -> Option<String> {
    let report = run_tests(policy);
    if report.failures.is_empty() {
        return None;
    }
    let texts = |ranges: &[KeyRange]| {
        ranges.iter().map(|range| RangeText(range).to_string()).collect::<Vec<_>>().join(" ")
    };
    let lines = report.failures.iter().map(|failure| {
        let hidden = failure.expected_hidden.as_deref().map_or(String::new(), |expected| {
            format!(", hiding `{}` and not `{}`", texts(&failure.explanation.hidden), texts(expected))
        });
        format!(
            "{}:{}: error: `{}` of {} is `{:?}`, expected `{:?}`{hidden}",
            failure.file,
            failure.line,
            failure.request,
            failure.who,
            failure.explanation.decision.outcome,
            failure.expected
        )
    });
    Some(told(lines))
}

impl Compiler {
    /// Compiles a bundle that is to be applied, and runs its tests. Takes as long as the bundle is large; while the
    /// answer is kept, [`keygate_core::Compile::bundle`] only finds it.
    ///
    /// # Errors
    /// Everything that is wrong with it, a finding a line.
    pub fn prepare(
        &self,
        digest: &BundleDigest,
        parts: &[Bytes],
        trust: Option<&Trust>,
    ) -> Result<Arc<BundlePolicy>, String> {
        let files = files(digest, parts)?;
        if let Some(trust) = trust {
            verify(&files, &trust.keys, trust.needed).map_err(|error| error.to_string())?;
        }
        if let Some(policy) = self.prepared(digest) {
            self.remember(*digest, parts, &policy);
            return Ok(policy);
        }
        let policy = Arc::new(BundlePolicy::compile(Arc::new(read(&files)?)));
        if let Some(why) = unfit(&policy) {
            return Err(why);
        }
        self.remember(*digest, parts, &policy);
        Ok(policy)
    }

    /// The same for a bundle that was applied once.
    pub(crate) fn compile_bundle(
        &self,
        digest: &BundleDigest,
        parts: &[Bytes],
    ) -> Result<Arc<BundlePolicy>, String> {
        if let Some(policy) = self.prepared(digest) {
            return Ok(policy);
        }
        let policy = Arc::new(BundlePolicy::compile(Arc::new(read(&files(digest, parts)?)?)));
        self.remember(*digest, parts, &policy);
        Ok(policy)
    }
}

impl BundlePolicy {
    fn ruling(&self, asking: &Asking<'_>, action: Action, keys: &KeyRange) -> Ruling {
        let groups: SmallVec<[&str; 8]> = asking.groups.names().iter().map(AsRef::as_ref).collect();
        let asker = Asker { tenant: asking.tenant, user: asking.name, groups: &groups };
        self.rule(&asker, &context_of(asking), action, keys)
    }
}

fn context_of(asking: &Asking<'_>) -> Context {
    let origin = asking.origin;
    Context { source: origin.source, now: Some(Instant(asking.now)), connection: origin.connection }
}

impl Rules for BundlePolicy {
    fn about(&self) -> BundleAbout {
        let bundle = self.bundle();
        BundleAbout {
            revision: bundle.revision(),
            manifest: bundle.digest().to_owned(),
            rows: bundle.rows().len() as u64,
            links: bundle.links().len() as u64,
        }
    }

    fn knows(&self, asking: &Asking<'_>) -> bool {
        let groups: SmallVec<[&str; 8]> = asking.groups.names().iter().map(AsRef::as_ref).collect();
        self.names(&Asker { tenant: asking.tenant, user: asking.name, groups: &groups })
    }

    fn keys(&self, asking: &Asking<'_>, action: KeyAction, range: &KeyRange) -> Ruling {
        self.ruling(asking, action.into(), range)
    }

    fn sight(&self, asking: &Asking<'_>, range: &KeyRange) -> SightRuling {
        let groups: SmallVec<[&str; 8]> = asking.groups.names().iter().map(AsRef::as_ref).collect();
        let asker = Asker { tenant: asking.tenant, user: asking.name, groups: &groups };
        self.rule_sight(&asker, &context_of(asking), range)
    }

    fn admin(&self, asking: &Asking<'_>, verb: AdminVerb) -> Ruling {
        self.ruling(asking, Action::Verb(Verb::from(verb)), &KeyRange::everything())
    }

    fn beyond(&self, asking: &Asking<'_>, own: &dyn Fn(&Access) -> bool, gift: &Gift<'_>) -> Vec<String> {
        let groups: SmallVec<[&str; 8]> = asking.groups.names().iter().map(AsRef::as_ref).collect();
        let giver = Asker { tenant: asking.tenant, user: asking.name, groups: &groups };
        self.beyond_giver(&giver, Instant(asking.now), own, gift)
    }

    fn until(&self, asking: &Asking<'_>, action: KeyAction) -> Option<i64> {
        let groups: SmallVec<[&str; 8]> = asking.groups.names().iter().map(AsRef::as_ref).collect();
        let asker = Asker { tenant: asking.tenant, user: asking.name, groups: &groups };
        self.decided_until(&asker, &context_of(asking), action.into()).map(|instant| instant.0)
    }
}
