//! Who asks? A connection gets its [`ConnectionIdentity`] once, each request its [`Caller`].
//!
//! Evidence is taken in etcd's order: metadata `token`, then `authorization` (with or without
//! `Bearer`), then the common name of a verified client certificate. A token that does not hold
//! refuses the request; it never falls back to weaker evidence. Nothing here decides what a caller
//! may do.

mod connection;
mod jwt;
mod password;
mod simple_token;
mod source;

pub use connection::{CertificateName, ConnectionIdentity, Proof};
pub use jwt::{JwtKeyError, JwtKeys};
pub use password::{MAX_COST, PasswordPool, cost_of};
pub use simple_token::SimpleTokens;
pub use source::{Asker, Source};

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use keygate_core::{AuthTables, Caller, Evidence, KeyspaceId, PasswordHash, Refusal, Secret, User};

use connection::Remembered;
use password::Expected;

/// What makes tokens and checks them. One for the process, shared by all threads.
pub enum Tokens {
    Simple(SimpleTokens),
    Jwt(JwtKeys),
}

/// Turns evidence into callers.
pub struct Identifier {
    tokens: Tokens,
    passwords: PasswordPool,
    /// Which user an unknown one is taken for; nobody outside can tell.
    stand_ins: ahash::RandomState,
}

impl Identifier {
    pub fn new(tokens: Tokens, passwords: PasswordPool) -> Self {
        Self { tokens, passwords, stand_ins: ahash::RandomState::new() }
    }

    /// For hashing new passwords.
    pub fn passwords(&self) -> &PasswordPool {
        &self.passwords
    }

    /// `auth` must be of the snapshot that the request will be decided on.
    ///
    /// While auth is off nobody is asked who they are, and simple tokens made earlier are forgotten:
    /// switching auth off revokes them.
    pub fn identify(
        &self,
        connection: &ConnectionIdentity,
        metadata: &HeaderMap,
        auth: &AuthTables,
    ) -> Result<Caller, Refusal> {
        let keyspace = KeyspaceId::DEFAULT;
        if !auth.enabled {
            if let Tokens::Simple(tokens) = &self.tokens {
                tokens.forget_all();
            }
            connection.proof().given();
            return Ok(Caller::Anonymous { keyspace });
        }
        let caller = match token_of(metadata)? {
            Some(token) => self.holder(connection, token, auth)?,
            None => match connection.certificate() {
                Some(certificate) => Caller::User {
                    keyspace,
                    name: certificate.common_name.clone(),
                    evidence: Evidence::Certificate,
                },
                None => return Ok(Caller::Anonymous { keyspace }),
            },
        };
        connection.proof().given();
        Ok(caller)
    }

    fn holder(
        &self,
        connection: &ConnectionIdentity,
        token: &str,
        auth: &AuthTables,
    ) -> Result<Caller, Refusal> {
        let keyspace = KeyspaceId::DEFAULT;
        match &self.tokens {
            Tokens::Simple(tokens) => {
                let found = match connection.recall(token) {
                    Some(Remembered::Simple(found)) => found,
                    Some(Remembered::Jwt(_)) | None => {
                        let found = tokens.find(token).ok_or(Refusal::InvalidToken)?;
                        connection.remember(token, Remembered::Simple(found.clone()));
                        found
                    }
                };
                let current = auth.users.get(found.user()).map(|user| user.credential_revision);
                let is_current = current == Some(found.credential_revision());
                if !is_current || !found.touch(Instant::now(), tokens.ttl()) {
                    return Err(Refusal::InvalidToken);
                }
                Ok(Caller::User { keyspace, name: found.user_shared(), evidence: Evidence::SimpleToken })
            }
            Tokens::Jwt(keys) => {
                let claims = match connection.recall(token) {
                    Some(Remembered::Jwt(claims)) => claims,
                    Some(Remembered::Simple(_)) | None => {
                        let claims = keys.verify(token)?;
                        connection.remember(token, Remembered::Jwt(claims.clone()));
                        claims
                    }
                };
                if claims.is_expired() {
                    return Err(Refusal::InvalidToken);
                }
                Ok(Caller::User {
                    keyspace,
                    name: claims.username.clone(),
                    evidence: Evidence::Jwt { auth_revision: claims.revision },
                })
            }
        }
    }

    /// etcd's `Authenticate`. Takes as long for a user who does not exist as for a wrong password.
    pub async fn authenticate(
        &self,
        asker: Asker,
        auth: &AuthTables,
        name: &str,
        password: Secret,
    ) -> Result<Secret, Refusal> {
        if !auth.enabled {
            return Err(Refusal::AuthNotEnabled);
        }
        let user: Option<Arc<User>> = auth.users.get(name).cloned();
        let expected = match &user {
            Some(user) => match &user.password {
                Some(hash) => Expected::Of(hash.clone()),
                None => return Err(Refusal::NoPasswordUser),
            },
            None => Expected::Nothing { like: self.stand_in(auth, name) },
        };
        let right = self.passwords.verify(asker, expected, password).await?;
        let user = match user {
            Some(user) if right => user,
            Some(_) | None => return Err(Refusal::AuthFailed),
        };
        match &self.tokens {
            Tokens::Simple(tokens) => Ok(tokens.issue(&user.name, user.credential_revision)?),
            Tokens::Jwt(keys) => keys.sign(&user.name, auth.revision),
        }
    }
}

impl Identifier {
    /// The hash of a user whose login takes as long as that of one called `name` would, if there were
    /// one: hashes can be of several costs. The same for each try.
    fn stand_in(&self, auth: &AuthTables, name: &str) -> Option<PasswordHash> {
        let count = u64::try_from(auth.users.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.stand_ins.hash_one(name) % count).ok()?;
        auth.users.values().skip(index).chain(auth.users.values()).find_map(|user| user.password.clone())
    }
}

/// The first of `token` and `authorization`. Bytes that are not visible ASCII are no token of ours.
fn token_of(metadata: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = metadata.get("token").or_else(|| metadata.get(http::header::AUTHORIZATION)) else {
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
