//! Who asks? A connection gets its [`ConnectionIdentity`] once, each request its [`Caller`].
//!
//! Evidence is taken in etcd's order: metadata `token`, then `authorization` (with or without
//! `Bearer`), then what a verified client certificate names. A token that does not hold
//! refuses the request; it never falls back to weaker evidence. Nothing here decides what a caller
//! may do.

mod connection;
mod directory;
mod guard;
mod invalid;
pub mod issuers;
mod jwt;
mod lockout;
mod password;
mod refused_tokens;
pub mod rules;
mod simple_token;
mod source;

pub use connection::{ConnectionIdentity, Lapse, Proof, Shown};
pub use directory::{Directory, keyspace_of_login, user_of_login};
pub use invalid::Invalid;
pub use issuers::Issuers;
pub use jwt::{JwtKeyError, JwtKeys};
pub use lockout::{Lockout, LockoutRules};
pub use password::{MAX_COST, PasswordPool, cost_of};
pub use refused_tokens::RefusedTokens;
pub use rules::Named;
pub use simple_token::SimpleTokens;
pub use source::{Asker, Source};

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use keygate_core::{
    AuthTables, Caller, DEFAULT_TENANT, Evidence, Groups, KeyspaceId, PasswordHash, Refusal, Secret, Tenant,
    User,
};

use connection::Remembered;
use guard::{Guard, Who};
use issuers::Verified;
use jwt::Claims;
use lockout::{Attempt, Name};
use password::Expected;
use rules::TenantOf;
use simple_token::Holder;

/// What makes tokens and checks them. One for the process, shared by all threads.
pub enum Tokens {
    Simple(SimpleTokens),
    Jwt(JwtKeys),
}

/// Turns evidence into callers.
pub struct Identifier {
    tokens: Tokens,
    /// Whose tokens are taken besides; set once there are rules that could name some.
    issuers: OnceLock<Issuers>,
    refused: RefusedTokens,
    passwords: PasswordPool,
    /// None: in tests.
    lockout: Option<Arc<Lockout>>,
    /// Which user an unknown one is taken for; nobody outside can tell.
    stand_ins: ahash::RandomState,
}

impl Identifier {
    pub fn new(tokens: Tokens, passwords: PasswordPool) -> Self {
        let stand_ins = ahash::RandomState::new();
        let refused = RefusedTokens::default();
        Self { tokens, issuers: OnceLock::new(), refused, passwords, lockout: None, stand_ins }
    }

    /// After too many wrong passwords, refuses logins without comparing.
    pub fn locking_out(self, lockout: Arc<Lockout>) -> Self {
        Self { lockout: Some(lockout), ..self }
    }

    /// Takes tokens of these issuers, too. To be called once, before the first request.
    pub fn trust(&self, issuers: Issuers) {
        let _first = self.issuers.set(issuers);
    }

    /// None: no rules name any.
    pub fn issuers(&self) -> Option<&Issuers> {
        self.issuers.get()
    }

    /// Tokens that did not hold, each time that one was shown.
    pub fn refused(&self) -> &RefusedTokens {
        &self.refused
    }

    /// For hashing new passwords.
    pub fn passwords(&self) -> &PasswordPool {
        &self.passwords
    }

    /// `directory` must be of the snapshot that the request will be decided on.
    ///
    /// The tenant is that of the host name in the TLS handshake, else the token's or certificate's, else
    /// the default one; a token of another tenant than the host's does not hold, and a certificate of
    /// another names nobody there. While auth is off in the
    /// keyspace nobody is asked who they are, and simple tokens made earlier are forgotten: switching
    /// auth off revokes them.
    pub fn identify(
        &self,
        connection: &ConnectionIdentity,
        metadata: &HeaderMap,
        directory: &dyn Directory,
    ) -> Result<Caller, Refusal> {
        if connection.is_over() {
            return Err(Refusal::InvalidToken);
        }
        let host = connection.server_name().and_then(|host| directory.keyspace_of_host(host));
        let token = token_of(metadata);
        let certified = match (&token, connection.certificate().map(|named| &named.tenant)) {
            (Ok(None), Some(TenantOf::Default)) => Some(KeyspaceId::DEFAULT),
            // One of a tenant that is not there is nobody's.
            (Ok(None), Some(TenantOf::Named(tenant))) => {
                Some(directory.keyspace_of_tenant(tenant).ok_or(Refusal::PermissionDenied)?)
            }
            (Ok(Some(_)) | Err(_), _) | (Ok(None), None) => None,
        };
        let keyspace = host.or(certified).unwrap_or(KeyspaceId::DEFAULT);
        let auth = directory.auth(keyspace).ok_or(Refusal::PermissionDenied)?;
        let token = match token {
            Ok(token) => token,
            Err(_) if auth.enabled => return Err(self.refuse(connection, None, &Invalid::Malformed)),
            Err(_) => None,
        };
        let caller = match token.map(|token| (token, self.holder(connection, token, directory))) {
            Some((_, Ok(caller))) if host.is_none() && caller.keyspace() != keyspace => caller,
            _ if !auth.enabled && is_of_others(connection, keyspace, directory) => {
                return Err(Refusal::PermissionDenied);
            }
            _ if !auth.enabled => {
                if let Tokens::Simple(tokens) = &self.tokens {
                    tokens.forget_all(keyspace);
                }
                Caller::Anonymous { keyspace }
            }
            Some((_, Ok(caller))) if caller.keyspace() == keyspace => caller,
            Some((token, Ok(_))) => return Err(self.refuse(connection, Some(token), &Invalid::Tenant)),
            Some((token, Err(why))) => return Err(self.refuse(connection, Some(token), &why)),
            None => match connection.shown() {
                Shown::Name(named) if certified == Some(keyspace) => Caller::User {
                    keyspace,
                    name: named.user.clone(),
                    evidence: Evidence::Certificate,
                    groups: named.groups.clone(),
                    origin: connection.origin(),
                },
                Shown::Rejected => return Err(Refusal::PermissionDenied),
                // At a tenant's host a certificate of anybody else names nobody.
                Shown::Name(_) | Shown::Nameless | Shown::Nothing => {
                    return Ok(Caller::Anonymous { keyspace });
                }
            },
        };
        connection.proof().given();
        Ok(caller)
    }

    /// Says so to the operator, and to the client what etcd says.
    fn refuse(&self, connection: &ConnectionIdentity, token: Option<&str>, why: &Invalid) -> Refusal {
        let issuer = || token.and_then(|token| self.issuers.get()?.name_of(token));
        self.refused.note(connection.peer(), issuer, why);
        Refusal::InvalidToken
    }

    fn holder(
        &self,
        connection: &ConnectionIdentity,
        token: &str,
        directory: &dyn Directory,
    ) -> Result<Caller, Invalid> {
        if let Some(issued) = self.issued(connection, token) {
            let issued = issued?;
            let Named { tenant, user, groups } = &issued.matched.named;
            let keyspace = match tenant {
                TenantOf::Default => KeyspaceId::DEFAULT,
                TenantOf::Named(tenant) => directory.keyspace_of_tenant(tenant).ok_or(Invalid::Tenant)?,
            };
            return Ok(Caller::User {
                keyspace,
                name: user.clone(),
                evidence: Evidence::Jwt { auth_revision: None },
                groups: groups.clone(),
                origin: connection.origin(),
            });
        }
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let found = match connection.recall(token) {
                    Some(Remembered::Simple(found)) => found,
                    Some(Remembered::Jwt(_) | Remembered::Issued(_)) | None => {
                        let found = tokens.find(token).ok_or_else(|| self.of_nobody(token))?;
                        connection.remember(token, Remembered::Simple(found.clone()));
                        found
                    }
                };
                let Holder { keyspace, user } = found.holder();
                let auth = directory.auth(*keyspace).ok_or(Invalid::Tenant)?;
                let current = auth.users.get(user.as_ref()).map(|user| user.credential_revision);
                let is_current = current == Some(found.credential_revision());
                if !is_current {
                    return Err(Invalid::Outdated);
                }
                if !found.touch(Instant::now(), tokens.ttl()) {
                    return Err(Invalid::Unknown);
                }
                Ok(Caller::User {
                    keyspace: *keyspace,
                    name: user.clone(),
                    evidence: Evidence::SimpleToken,
                    groups: Groups::NONE,
                    origin: connection.origin(),
                })
            }
            Tokens::Jwt(keys) => {
                let claims = match connection.recall(token) {
                    Some(Remembered::Jwt(claims)) => claims,
                    Some(Remembered::Simple(_) | Remembered::Issued(_)) | None => {
                        let claims = keys.verify(token).map_err(|why| self.others(token, why))?;
                        connection.remember(token, Remembered::Jwt(claims.clone()));
                        claims
                    }
                };
                if claims.is_expired() {
                    return Err(Invalid::expired(claims.expires()));
                }
                Ok(Caller::User {
                    keyspace: keyspace_of_claims(&claims, directory)?,
                    name: claims.username.clone(),
                    evidence: Evidence::Jwt { auth_revision: claims.revision },
                    groups: Groups::NONE,
                    origin: connection.origin(),
                })
            }
        }
    }

    /// What a token of an issuer in the rules says; None: it is of nobody there.
    fn issued(&self, connection: &ConnectionIdentity, token: &str) -> Option<Result<Arc<Verified>, Invalid>> {
        let issuers = self.issuers.get()?;
        let verified = match connection.recall(token) {
            Some(Remembered::Issued(verified)) if issuers.still_holds(&verified) => verified,
            // What we made ourselves was found to be ours.
            Some(Remembered::Simple(_) | Remembered::Jwt(_)) => return None,
            Some(Remembered::Issued(_)) | None => match issuers.verify(token)? {
                Ok(verified) => {
                    let verified = Arc::new(verified);
                    connection.remember(token, Remembered::Issued(verified.clone()));
                    verified
                }
                Err(why) => return Some(Err(why)),
            },
        };
        let is_over = verified.is_expired(issuers::now());
        Some(if is_over { Err(Invalid::expired(verified.expires())) } else { Ok(verified) })
    }

    /// Why a token is none of ours that is of no issuer in the rules.
    fn of_nobody(&self, token: &str) -> Invalid {
        self.others(token, Invalid::Unknown)
    }

    /// What is wrong with a token of somebody else is that it is not of somebody whose tokens are taken.
    fn others(&self, token: &str, why: Invalid) -> Invalid {
        issuers::iss_of(token).map_or(why, Invalid::Issuer)
    }

    /// After what time to look again whether a token that a stream began with still holds; None: it does
    /// not. To ask does not keep a token alive.
    pub fn token_lasts(&self, token: &str, directory: &dyn Directory) -> Option<Duration> {
        /// A token of a user whose password has changed is dead at once.
        const LOOK_AT_TABLE: Duration = Duration::from_secs(5);
        /// Costs a check of a signature.
        const LOOK_AT_SIGNATURE: Duration = Duration::from_secs(30);
        let left = |expires: u64| {
            let left = expires.checked_sub(issuers::now()).filter(|left| *left > 0);
            left.map(|left| Duration::from_secs(left).min(LOOK_AT_SIGNATURE))
        };
        if let Some(issued) = self.issuers.get().and_then(|issuers| issuers.verify(token)) {
            return left(issued.ok()?.expires());
        }
        match &self.tokens {
            Tokens::Jwt(keys) => left(keys.verify(token).ok()?.expires()),
            Tokens::Simple(tokens) => {
                let found = tokens.find(token)?;
                let Holder { keyspace, user } = found.holder();
                let user = directory.auth(*keyspace)?.users.get(user.as_ref())?;
                let is_current = user.credential_revision == found.credential_revision();
                let left = found.left(Instant::now()).filter(|_| is_current)?;
                Some(left.min(LOOK_AT_TABLE))
            }
        }
    }

    /// etcd's `Authenticate`. Takes as long for a user who does not exist, or who is locked out, as for a wrong
    /// password.
    pub async fn authenticate(
        &self,
        asker: Asker,
        home: Home<'_>,
        name: &str,
        password: Secret,
    ) -> Result<Secret, Refusal> {
        let Home { keyspace, tenant, auth } = home;
        if !auth.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let name = user_of_login(tenant.map(|tenant| tenant.name.as_str()), name);
        let user: Option<Arc<User>> = auth.users.get(name).cloned();
        let expected = match &user {
            Some(user) => match &user.password {
                Some(hash) => Expected::Of(hash.clone()),
                None => return Err(Refusal::NoPasswordUser),
            },
            None => Expected::Nothing { like: self.stand_in(auth, name) },
        };
        let who = Name {
            keyspace,
            user: name,
            credential_revision: user.as_ref().map(|user| user.credential_revision),
        };
        let guard = match self.attempt(who, asker) {
            Some((lockout, attempt)) if lockout.refuses(attempt, Instant::now()) => {
                self.passwords.pretend(&expected).await;
                return Err(Refusal::AuthFailed);
            }
            Some((lockout, attempt)) => {
                let tenant = tenant.map_or(DEFAULT_TENANT, |tenant| tenant.name.as_str()).into();
                let user = user.as_ref().map(|user| user.name.as_str().into());
                Guard::new(lockout.clone(), attempt, Who { tenant, user, peer: asker.connection })
            }
            None => Guard::none(),
        };
        let right = self.passwords.verify(asker, expected, password, guard).await?;
        let user = match user {
            Some(user) if right => user,
            Some(_) | None => return Err(Refusal::AuthFailed),
        };
        match &self.tokens {
            Tokens::Simple(tokens) => Ok(tokens.issue(keyspace, &user.name, user.credential_revision)?),
            Tokens::Jwt(keys) => keys.sign(&user.name, tenant, auth.revision),
        }
    }
}

impl Identifier {
    fn attempt(&self, name: Name<'_>, asker: Asker) -> Option<(&Arc<Lockout>, Attempt)> {
        let lockout = self.lockout.as_ref()?;
        Some((lockout, lockout.attempt(name, asker.source)))
    }

    /// The hash of a user whose login takes as long as that of one called `name` would, if there were
    /// one: hashes can be of several costs. The same for each try.
    fn stand_in(&self, auth: &AuthTables, name: &str) -> Option<PasswordHash> {
        let count = u64::try_from(auth.users.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.stand_ins.hash_one(name) % count).ok()?;
        auth.users.values().skip(index).chain(auth.users.values()).find_map(|user| user.password.clone())
    }
}

/// Where somebody logs in.
#[derive(Clone, Copy)]
pub struct Home<'a> {
    pub keyspace: KeyspaceId,
    /// None: the default keyspace.
    pub tenant: Option<&'a Tenant>,
    pub auth: &'a AuthTables,
}

/// Whether a certificate was shown that rules reject, or that is of another keyspace. Its holder is not
/// taken for anybody where nobody is asked who they are.
fn is_of_others(connection: &ConnectionIdentity, keyspace: KeyspaceId, directory: &dyn Directory) -> bool {
    match connection.shown() {
        Shown::Nothing | Shown::Nameless => false,
        Shown::Rejected => true,
        Shown::Name(named) => match &named.tenant {
            TenantOf::Default => keyspace != KeyspaceId::DEFAULT,
            TenantOf::Named(tenant) => directory.keyspace_of_tenant(tenant) != Some(keyspace),
        },
    }
}

fn keyspace_of_claims(claims: &Claims, directory: &dyn Directory) -> Result<KeyspaceId, Invalid> {
    let Some(tenant) = &claims.tenant else { return Ok(KeyspaceId::DEFAULT) };
    let keyspace = directory.keyspace_of_tenant(&tenant.name).ok_or(Invalid::Tenant)?;
    match tenant.keyspace {
        Some(number) if number != u64::from(keyspace.0) => Err(Invalid::Tenant),
        Some(_) | None => Ok(keyspace),
    }
}

/// The first of `token` and `authorization`. Bytes that are not visible ASCII are no token of ours.
pub fn token_of(metadata: &HeaderMap) -> Result<Option<&str>, Refusal> {
    static TOKEN: HeaderName = HeaderName::from_static("token");
    let Some(value) = metadata.get(&TOKEN).or_else(|| metadata.get(http::header::AUTHORIZATION)) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Refusal::InvalidToken)?;
    Ok(Some(match text.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token,
        _ => text,
    }))
}

#[cfg(test)]
mod tests;
