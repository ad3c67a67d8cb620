//! Users, roles and logins.

use keygate_core::{
    Credential, KeyRange, Operation, PasswordHash, Permission, PermissionKind, Plaintext, Refusal, RoleGrant,
    RoleRevoke, Secret, UserAdd,
};
use keygate_proto::{authpb, etcdserverpb as pb};

use super::Rejection;
use crate::identify::{MAX_COST, cost_of};

pub(super) fn authenticate(request: pb::AuthenticateRequest) -> Operation<Plaintext> {
    let pb::AuthenticateRequest { name, password } = request;
    Operation::Authenticate { name, password: Secret::new(password) }
}

pub(super) fn user_add(request: pb::AuthUserAddRequest) -> Result<UserAdd, Rejection> {
    let pb::AuthUserAddRequest { name, password, options, hashed_password } = request;
    let password = Secret::new(password);
    let authpb::UserAddOptions { no_password } = options.unwrap_or_default();
    let credential = if no_password {
        Credential::NoPassword
    } else if password.expose().is_empty() && !hashed_password.is_empty() {
        // etcd overwrites the hash with that of the empty password here, which nobody wants.
        Credential::Hashed(read_hash(hashed_password)?)
    } else {
        Credential::Password(password)
    };
    Ok(UserAdd { name, credential })
}

pub(super) fn user_change_password(
    request: pb::AuthUserChangePasswordRequest,
) -> Result<Operation<Plaintext>, Rejection> {
    let pb::AuthUserChangePasswordRequest { name, password, hashed_password } = request;
    let password = Secret::new(password);
    let credential = if password.expose().is_empty() && !hashed_password.is_empty() {
        Credential::Hashed(read_hash(hashed_password)?)
    } else {
        // Observed of etcd: nothing at all sets the empty password.
        Credential::Password(password)
    };
    Ok(Operation::UserChangePassword { name, credential })
}

/// A bcrypt hash in base64. What is no base64 is refused in etcd's words for it. What is no hash, or
/// one that takes for ever to check, etcd would keep.
fn read_hash(text: String) -> Result<PasswordHash, Rejection> {
    let bytes = base64::decode(&text).ok_or(Refusal::NoPasswordUser)?;
    let hash = String::from_utf8(bytes).map_err(|_| Rejection::Hash)?;
    match cost_of(&hash) {
        Some(cost) if cost <= MAX_COST => Ok(PasswordHash(hash)),
        Some(_) | None => Err(Rejection::Hash),
    }
}

pub(super) fn role_grant(request: pb::AuthRoleGrantPermissionRequest) -> Result<RoleGrant, Rejection> {
    let pb::AuthRoleGrantPermissionRequest { name, perm } = request;
    let authpb::Permission { perm_type, key, range_end } = perm.ok_or(Refusal::PermissionNotGiven)?;
    let kind = match authpb::permission::Type::try_from(perm_type) {
        Ok(authpb::permission::Type::Read) => PermissionKind::Read,
        Ok(authpb::permission::Type::Write) => PermissionKind::Write,
        Ok(authpb::permission::Type::Readwrite) => PermissionKind::ReadWrite,
        // etcd stores it and it permits nothing; better to say so at once.
        Err(_) => return Err(Rejection::UnknownNumber("Permission.permType")),
    };
    let permission = Permission { kind, range: KeyRange::from_wire(key, range_end) };
    Ok(RoleGrant { role: name, permission })
}

pub(super) fn role_revoke(request: pb::AuthRoleRevokePermissionRequest) -> RoleRevoke {
    let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request;
    RoleRevoke { role, range: KeyRange::from_wire(key, range_end) }
}

/// Standard base64 with padding, as Go's `base64.StdEncoding` reads it.
mod base64 {
    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let body = text.trim_end_matches('=');
        if text.len() - body.len() > 2 {
            return None;
        }
        let mut bytes = Vec::with_capacity(body.len() * 3 / 4);
        let (mut bits, mut held) = (0_u32, 0_u32);
        for letter in body.bytes() {
            bits = (bits << 6) | u32::from(digit(letter)?);
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
                bits &= (1 << held) - 1;
            }
        }
        Some(bytes)
    }

    fn digit(letter: u8) -> Option<u8> {
        Some(match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        })
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn what_go_writes_is_read_and_nothing_else() {
            let cases: [(&str, Option<&[u8]>); 9] = [
                ("", Some(b"")),
                ("Zg==", Some(b"f")),
                ("Zm8=", Some(b"fo")),
                ("Zm9v", Some(b"foo")),
                ("JDJhJDEw", Some(b"$2a$10")),
                ("Zg=", None),
                ("Zg", None),
                ("Z===", None),
                ("Zm9\u{e9}", None),
            ];
            for (text, bytes) in cases {
                assert_eq!(super::decode(text).as_deref(), bytes, "{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash of cost 31, given by whoever may add users, let one anonymous login compute for hours.
    #[test]
    fn only_hashes_that_can_be_checked_in_time_are_taken() {
        let hash = |text: &str| read_hash(text.to_owned());
        assert!(
            hash("JDJhJDE2JFhhampRdk5odnZSdDVHU2VGazF4RmV5cVJyc3hraEJrVWlRZWcwZHQud1UxcUQ0YUZEY2dh").is_ok()
        );
        assert_eq!(
            hash("JDJhJDMxJFhhampRdk5odnZSdDVHU2VGazF4RmV5cVJyc3hraEJrVWlRZWcwZHQud1UxcUQ0YUZEY2dh"),
            Err(Rejection::Hash)
        );
        assert_eq!(hash("bm9uc2Vuc2U="), Err(Rejection::Hash));
        assert_eq!(hash("no base64!"), Err(Rejection::Refused(Refusal::NoPasswordUser)));
    }
}
