//! What the headers of a request ask of the server itself, whoever sends them. Read in one pass:
//! a request carries few headers, and each look-up by name costs as much as the pass.

use http::{HeaderMap, HeaderValue};
use keygate_core::Refusal;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Asked<'a> {
    /// What the client says its library's version is.
    pub(super) client_version: Option<&'a HeaderValue>,
    /// Refuse rather than serve without a leader.
    pub(super) leader: bool,
    /// gRPC's deadline, as it was written.
    pub(super) timeout: Option<&'a HeaderValue>,
}

impl<'a> Asked<'a> {
    /// Of several headers of one name, the one counts that counts in etcd: the last deadline, the
    /// first of the others.
    pub(super) fn read(headers: &'a HeaderMap) -> Self {
        let mut asked = Self::default();
        let mut leader = None;
        for (name, value) in headers {
            match name.as_str() {
                "grpc-timeout" => asked.timeout = Some(value),
                "client-api-version" => {
                    asked.client_version.get_or_insert(value);
                }
                "hasleader" => {
                    leader.get_or_insert(value == "true");
                }
                _ => {}
            }
        }
        Self { leader: leader.unwrap_or(false), ..asked }
    }

    /// etcd counts clients by their version, and refuses those whose word no label can hold.
    /// `leader` says which member leads now, 0 for none; asked only if it matters.
    pub(super) fn check(&self, leader: impl FnOnce() -> u64) -> Result<(), Refusal> {
        if self.client_version.is_some_and(|version| std::str::from_utf8(version.as_bytes()).is_err()) {
            return Err(Refusal::InvalidClientApiVersion);
        }
        if self.leader && leader() == 0 {
            return Err(Refusal::NoLeader);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn who_wants_a_leader_is_refused_without_one_and_nobody_else() {
        for (value, without) in
            [(&b"true"[..], Err(Refusal::NoLeader)), (b"false", Ok(())), (b"TRUE", Ok(())), (b"", Ok(()))]
        {
            let headers = headers(&[("hasleader", value)]);
            let asked = Asked::read(&headers);
            assert_eq!(asked.check(|| 0), without, "{value:?}");
            assert_eq!(asked.check(|| 7), Ok(()));
        }
        assert_eq!(Asked::read(&HeaderMap::new()).check(|| 0), Ok(()));
    }

    #[test]
    fn of_several_the_same_counts_as_in_etcd() {
        let headers = headers(&[
            ("hasleader", b"true"),
            ("hasleader", b"false"),
            ("grpc-timeout", b"1S"),
            ("client-api-version", b"3.7"),
            ("client-api-version", b"\xff"),
            ("grpc-timeout", b"2S"),
        ]);
        let asked = Asked::read(&headers);
        assert!(asked.leader);
        assert_eq!(asked.timeout.unwrap(), "2S");
        assert_eq!(asked.client_version.unwrap(), "3.7");
        assert_eq!(asked.check(|| 7), Ok(()));
    }

    #[test]
    fn a_version_that_is_no_text_is_refused() {
        let headers = headers(&[("client-api-version", b"\xff")]);
        assert_eq!(Asked::read(&headers).check(|| 7), Err(Refusal::InvalidClientApiVersion));
    }
}
