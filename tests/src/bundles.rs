//! Bundles that tests make of rows, put in force by the calls that `keygate policy apply` makes.

use anyhow::Result;
use bytes::Bytes;
use keygate_core::BUNDLE_STEP;
use keygate_policies::bundle::{Files, Manifest};
use keygate_policies::{BUNDLE_MODEL, digest_of_tar};
use keygate_proto::admin::{PolicyApplyRequest, PolicyRevisionResponse, PolicyStageRequest};

use crate::harness::Client;

/// A bundle as it is sent.
#[derive(Clone)]
pub struct Bundle {
    digest: Bytes,
    parts: Vec<Bytes>,
}

impl Bundle {
    /// Of these rows. `revision` is what its author counts.
    pub fn of(rows: &str, revision: u64) -> Result<Self> {
        let mut files = Files::default();
        files.insert("model.conf", BUNDLE_MODEL.as_bytes().to_vec());
        files.insert("policy.csv", rows.as_bytes().to_vec());
        files.insert("roles.csv", Vec::new());
        files.insert("manifest.json", Manifest::of(&files, revision).to_bytes());
        let tar = Bytes::from(files.to_packed_tar()?);
        let digest = Bytes::copy_from_slice(&digest_of_tar(std::slice::from_ref(&tar)).0);
        let parts = (0..tar.len())
            .step_by(BUNDLE_STEP)
            .map(|from| tar.slice(from..tar.len().min(from + BUNDLE_STEP)));
        Ok(Self { digest, parts: parts.collect() })
    }

    pub async fn apply(&self, root: &Client) -> Result<PolicyRevisionResponse> {
        for (index, content) in self.parts.iter().enumerate() {
            let (digest, content) = (self.digest.clone(), content.clone());
            root.policies().stage(PolicyStageRequest { digest, index: index as u32, content }).await?;
        }
        let (digest, parts) = (self.digest.clone(), self.parts.len() as u32);
        let apply = PolicyApplyRequest { digest, parts, expected: None };
        Ok(root.policies().apply(apply).await?.into_inner())
    }
}
