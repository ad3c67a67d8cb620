//! What a bcrypt hash costs to check: it says so itself.

/// Three seconds of a core. Whoever writes a larger one does it to keep threads busy.
pub const MAX_COST: u32 = 16;

/// None: `hash` is not one of bcrypt's, as Go and everybody else write them.
pub fn cost_of(hash: &str) -> Option<u32> {
    let rest = hash.strip_prefix("$2")?;
    let rest = rest.strip_prefix(['a', 'b', 'x', 'y'])?.strip_prefix('$')?;
    let (cost, rest) = rest.split_once('$')?;
    let digits = cost.len() == 2 && cost.bytes().all(|digit| digit.is_ascii_digit());
    let is_text = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    // 22 of salt, 31 of hash.
    if !digits || rest.len() != 53 || !rest.bytes().all(is_text) {
        return None;
    }
    cost.parse().ok().filter(|cost| (4..=31).contains(cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";

    #[test]
    fn only_a_whole_hash_has_a_cost() {
        for (prefix, cost) in [
            ("$2a$10$", Some(10)),
            ("$2b$04$", Some(4)),
            ("$2y$31$", Some(31)),
            ("$2a$32$", None),
            ("$2a$03$", None),
            ("$2a$1$", None),
            ("$2a$+9$", None),
            ("$2z$10$", None),
            ("$1$10$", None),
            ("", None),
        ] {
            assert_eq!(cost_of(&format!("{prefix}{TEXT}")), cost, "{prefix}");
            assert_eq!(cost_of(&format!("{prefix}{}", &TEXT[1..])), None);
            assert_eq!(cost_of(&format!("{prefix}{TEXT}a")), None);
            assert_eq!(cost_of(&format!("{prefix}{}=", &TEXT[1..])), None);
        }
    }
}
