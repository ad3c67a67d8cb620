//! Who this member and its cluster are: etcd's ids, made from the same facts by the same digest.

use aws_lc_rs::digest;

/// Sent in every response header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
}

impl Identity {
    /// The ids of a cluster of one. etcd hashes the sorted peer URLs and the cluster token to a
    /// member id, and the member ids to a cluster id; SHA-1 here is a name, not a protection.
    pub fn of_single_member(peer_urls: &[String], cluster_token: &str) -> Self {
        let mut urls = peer_urls.to_vec();
        urls.sort();
        let member_id = first_eight(urls.concat().as_bytes(), cluster_token.as_bytes());
        let cluster_id = first_eight(&member_id.to_be_bytes(), b"");
        Self { cluster_id, member_id }
    }
}

fn first_eight(first: &[u8], second: &[u8]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(first);
    context.update(second);
    let digest = context.finish();
    let mut head = [0; 8];
    head.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_gives_its_default_member() {
        let identity = Identity::of_single_member(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{:x}", identity.member_id), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", identity.cluster_id), "cdf818194e3a8c32");
    }
}
