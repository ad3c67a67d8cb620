//! Users whom a bundle gives something for the first time, and whether they are there already.
//!
//! A bundle says `user:NAME` of whoever logs in by that name. Whoever may add users in a tenant can take a name that has
//! no rights yet, and has them when the bundle comes. No server can tell whose a record is: its operator is asked to look.

use keygate_policies::{Newcomers as Named, bundle::Bundle, newcomers};
use keygate_proto::admin as pb;
use serde_json::{Value, json};

use super::live::{Client, refused};
use super::{Output, Unusable};

/// As many as one request takes.
const AT_ONCE: usize = 1000;
/// Users that are told in a warning.
const TOLD: usize = 10;
const DEFAULT: &str = "default";

pub(super) struct Newcomers(Vec<Newcomer>);

struct Newcomer {
    user: String,
    /// None: every other tenant.
    tenant: Option<String>,
    /// None: no server was asked.
    is_there: Option<bool>,
}

/// Of the new bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InForce {
    NotYet,
    Already,
}

impl Newcomers {
    /// Without a server that could tell which of them are there.
    pub(super) fn unasked(old: &Bundle, new: &Bundle) -> Self {
        let Named { named, elsewhere } = newcomers(old, new);
        let named = named.into_iter().flat_map(|(tenant, users)| {
            users.into_iter().map(move |user| Newcomer { user, tenant: Some(tenant.clone()), is_there: None })
        });
        let elsewhere = elsewhere.into_iter().map(|user| Newcomer { user, tenant: None, is_there: None });
        Self(named.chain(elsewhere).collect())
    }

    pub(super) async fn of(
        client: &mut Client,
        old: &Bundle,
        new: &Bundle,
        output: Output,
    ) -> Result<Self, Unusable> {
        let Named { named, elsewhere } = newcomers(old, new);
        let mut found = Vec::new();
        for (tenant, users) in &named {
            for some in users.chunks(AT_ONCE) {
                let there = look_up(client, tenant, some, output).await?.users;
                found.extend(some.iter().map(|user| Newcomer {
                    user: user.clone(),
                    tenant: Some(tenant.clone()),
                    is_there: Some(there.contains(user)),
                }));
            }
        }
        if !elsewhere.is_empty() {
            let mut tenants = look_up(client, DEFAULT, &[], output).await?.tenants;
            tenants.push(DEFAULT.to_owned());
            for tenant in tenants.into_iter().filter(|tenant| !named.contains_key(tenant)) {
                for some in elsewhere.chunks(AT_ONCE) {
                    let there = look_up(client, &tenant, some, output).await?.users;
                    found.extend(there.into_iter().map(|user| Newcomer {
                        user,
                        tenant: Some(tenant.clone()),
                        is_there: Some(true),
                    }));
                }
            }
            let missing = |user| Newcomer { user, tenant: None, is_there: Some(false) };
            found.extend(elsewhere.into_iter().map(missing));
        }
        Ok(Self(found))
    }

    pub(super) fn json(&self) -> Value {
        let told = |own: &Newcomer| json!({ "user": own.user, "tenant": own.tenant, "exists": own.is_there });
        self.0.iter().map(told).collect()
    }

    /// Beside what the command prints: who only wants that is not in the way.
    pub(super) fn warn(&self, output: Output, in_force: InForce) {
        if output == Output::Json {
            return;
        }
        const OUT: &str = "if rights are not meant for whoever logs in by such a name, give them to a group of an identity rule: \
             no login with a password is in one";
        if let Some(who) = self.told(Some(true)) {
            eprintln!(
                "warning: rights for the first time, and there is a user of this name already: {who}. Whoever knows its \
                 password, or sets it, has them: see who added it, or delete it; {OUT}"
            );
        }
        if let Some(who) = self.told(Some(false)) {
            let adds = match in_force {
                InForce::NotYet => {
                    "Whoever may add users there can do so before the bundle is in force, and has them then"
                }
                InForce::Already => {
                    "Whoever may add users there and hand on these rights can do so, and has them"
                }
            };
            eprintln!(
                "note: rights for the first time, and no user of this name is there: {who}. {adds}; {OUT}"
            );
        }
        if let Some(who) = self.told(None) {
            eprintln!(
                "note: rights for the first time: {who}. Which of these users are there already tells `keygate policy \
                 diff NEW`, which asks a server; {OUT}"
            );
        }
    }

    fn told(&self, is_there: Option<bool>) -> Option<String> {
        let all: Vec<&Newcomer> = self.0.iter().filter(|own| own.is_there == is_there).collect();
        let place = |own: &Newcomer| match &own.tenant {
            Some(tenant) => format!("`{}` of `{tenant}`", own.user),
            None => format!("`{}` of every other tenant", own.user),
        };
        let mut text = all.iter().take(TOLD).map(|own| place(own)).collect::<Vec<_>>().join(", ");
        if all.len() > TOLD {
            text.push_str(&format!(" and {} more", all.len() - TOLD));
        }
        (!all.is_empty()).then_some(text)
    }
}

async fn look_up(
    client: &mut Client,
    tenant: &str,
    users: &[String],
    output: Output,
) -> Result<pb::PolicyUsersResponse, Unusable> {
    let request = pb::PolicyUsersRequest { tenant: tenant.to_owned(), users: users.to_vec() };
    match client.users(request).await {
        Ok(told) => Ok(told.into_inner()),
        // A bundle may name tenants that are yet to be made.
        Err(status) if status.code() == tonic::Code::NotFound => Ok(pb::PolicyUsersResponse::default()),
        Err(status) => Err(refused(output, status)),
    }
}
