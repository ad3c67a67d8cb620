//! Logins that were locked out. No names: the page is for anybody.

use super::exposition::{Exposition, Kind};
use crate::identify::Lockout;

pub(super) fn write(page: &mut Exposition, lockout: &Lockout) {
    let tally = lockout.tally();
    let name = "keygate_login_lockouts_total";
    page.family(
        name,
        Kind::Counter,
        "Users that wrong passwords have locked out, for one address or for all.",
    );
    page.labelled(name, &[("for", "address")], tally.of_sources);
    page.labelled(name, &[("for", "everybody")], tally.of_users);
    let help = "Logins that were refused without comparing the password, because the user is locked out.";
    page.single("keygate_login_lockout_refusals_total", Kind::Counter, help, tally.refused);
}
