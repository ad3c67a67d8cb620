//! Stands in for a bundle that cannot be used any more: it denies everything to everybody whom bundles bind.
//!
//! So a server can be started on such a bundle without anybody getting beyond its deny rows, and the platform's root,
//! whom no bundle binds, can put another one in force.

use keygate_core::{
    Access, AdminVerb, Asking, BundleAbout, Gift, KeyAction, KeyRange, Rules, Ruling, Sight, SightRuling,
};

pub(crate) struct DenyEverything;

impl Rules for DenyEverything {
    fn about(&self) -> BundleAbout {
        BundleAbout::default()
    }

    fn knows(&self, _: &Asking<'_>) -> bool {
        false
    }

    fn keys(&self, _: &Asking<'_>, _: KeyAction, _: &KeyRange) -> Ruling {
        Ruling::Deny
    }

    fn sight(&self, _: &Asking<'_>, _: &KeyRange) -> SightRuling {
        SightRuling { ruling: Ruling::Deny, sight: Sight::WHOLE }
    }

    fn admin(&self, _: &Asking<'_>, _: AdminVerb) -> Ruling {
        Ruling::Deny
    }

    fn beyond(&self, _: &Asking<'_>, _: &dyn Fn(&Access) -> bool, _: &Gift<'_>) -> Vec<String> {
        vec!["anything: the bundle in force cannot be used".to_owned()]
    }

    fn until(&self, _: &Asking<'_>, _: KeyAction) -> Option<i64> {
        None
    }
}
