//! `--auth-token`: how a login is remembered.

use std::{path::PathBuf, time::Duration};

use super::Resolver;
use crate::config::{AuthToken, Jwt, JwtMethod, draft::Draft, problem::Problem, values};

impl Resolver<'_> {
    pub(super) fn auth_token(&mut self, draft: &Draft) -> AuthToken {
        let ttl = Duration::from_secs(u64::from(draft.auth_token_ttl));
        let mut parts = draft.auth_token.split(',');
        match (parts.next(), parts.next()) {
            (Some("simple"), None) => {
                if ttl.is_zero() {
                    self.problem("auth-token-ttl", "at least one second is needed");
                }
                AuthToken::Simple { ttl }
            }
            (Some("jwt"), _) => match jwt(draft.auth_token.split(',').skip(1)) {
                Ok(jwt) => AuthToken::Jwt(jwt),
                Err(why) => {
                    self.problems.push(Problem {
                        path: self.raw.path("auth-token"),
                        message: format!("auth: invalid auth options: {why}"),
                        accepted: None,
                    });
                    AuthToken::Simple { ttl }
                }
            },
            _ => {
                self.problems.push(Problem {
                    path: self.raw.path("auth-token"),
                    message: "auth: invalid auth options: unknown kind of token".to_owned(),
                    accepted: Some("simple, or jwt,pub-key=…,priv-key=…,sign-method=…,ttl=…".to_owned()),
                });
                AuthToken::Simple { ttl }
            }
        }
    }
}

/// `pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=5m`, as etcd takes it.
fn jwt<'a>(options: impl Iterator<Item = &'a str>) -> Result<Jwt, String> {
    let (mut public_key, mut private_key, mut method, mut ttl) = (None, None, None, None);
    for option in options {
        let (name, value) =
            option.split_once('=').ok_or_else(|| format!("`{option}` is not of the form name=value"))?;
        let slot = match name {
            "pub-key" => &mut public_key,
            "priv-key" => &mut private_key,
            "sign-method" => &mut method,
            "ttl" => &mut ttl,
            _ => {
                return Err(format!(
                    "unknown option `{name}`; known are pub-key, priv-key, sign-method, ttl"
                ));
            }
        };
        if slot.replace(value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    let method = match method.ok_or("sign-method is missing")? {
        "RS256" => JwtMethod::Rs256,
        "RS384" => JwtMethod::Rs384,
        "RS512" => JwtMethod::Rs512,
        "PS256" => JwtMethod::Ps256,
        "PS384" => JwtMethod::Ps384,
        "PS512" => JwtMethod::Ps512,
        "ES256" => JwtMethod::Es256,
        "ES384" => JwtMethod::Es384,
        "EdDSA" => JwtMethod::EdDsa,
        "HS256" => JwtMethod::Hs256,
        "HS384" => JwtMethod::Hs384,
        "HS512" => JwtMethod::Hs512,
        other => {
            return Err(format!(
                "unknown sign-method `{other}`; known are RS, PS and HS with 256, 384, 512, ES256, ES384, EdDSA"
            ));
        }
    };
    if method.is_symmetric() && private_key.is_none() {
        return Err("this sign-method needs its shared secret as priv-key".to_owned());
    }
    if public_key.is_none() && private_key.is_none() {
        return Err("pub-key or priv-key is missing".to_owned());
    }
    let ttl = match ttl {
        // etcd's default.
        None => Duration::from_secs(300),
        Some(text) => values::duration(text).map_err(|bad| bad.0)?,
    };
    if ttl.is_zero() {
        return Err("ttl must be longer than nothing".to_owned());
    }
    Ok(Jwt {
        method,
        public_key: public_key.map(PathBuf::from),
        private_key: private_key.map(PathBuf::from),
        ttl,
    })
}
