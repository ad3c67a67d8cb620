//! A client certificate that held when its connection began, and may cease to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identify::Lapse;
use crate::tls::{Certified, ReloadingTls};

/// A look costs a check of signatures, some 100 µs. More often than expiry asks for it only because a
/// clock may be set.
const LOOK: Duration = Duration::from_secs(3600);

/// What a client showed: its own certificate first.
pub(super) struct Presented {
    /// Of the host that the client asked for.
    tenant: Option<Arc<str>>,
    /// What it came to.
    certified: Certified,
    chain: Vec<CertificateDer<'static>>,
    /// When certificates of the chain expire, in seconds since 1970.
    ends: Vec<u64>,
    changes: watch::Receiver<u64>,
}

impl Presented {
    /// `changes` must be from before the chain was accepted.
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        tenant: Option<Arc<str>>,
        certified: Certified,
        changes: watch::Receiver<u64>,
    ) -> Self {
        let end = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            u64::try_from(parsed.validity().not_after.timestamp()).ok()
        };
        let ends = chain.iter().filter_map(end).collect();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Self { tenant, certified, chain, ends, changes }
    }

    pub(super) fn certified(&self) -> &Certified {
        &self.certified
    }

    /// Completes when the chain does not hold any more.
    pub(super) async fn lapse(mut self, tls: &ReloadingTls) -> Lapse {
        loop {
            let wait = self.next_look(SystemTime::now());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.changes.changed() => if changed.is_err() {
                    // Nobody is left who could change anything; certificates still expire.
                    tokio::time::sleep(wait).await;
                }
            }
            let trust = &tls.current().trust;
            match trust.certify_standing(&self.chain, self.tenant.as_deref(), SystemTime::now()) {
                Err(lapse) => return lapse,
                Ok(certified) if !certified.is_same_as(&self.certified) => return Lapse::Changed,
                Ok(_) => {}
            }
        }
    }

    fn next_look(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // A certificate is good for the whole of its last second.
        let ends = self.ends.iter().map(|end| Duration::from_secs(end.saturating_add(1)));
        ends.filter_map(|end| end.checked_sub(now)).filter(|left| !left.is_zero()).fold(LOOK, Duration::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_when_the_next_certificate_expires() {
        let shown = |ends: &[u64]| Presented {
            tenant: None,
            certified: Certified {
                authority: "".into(),
                whom: Err(crate::identify::rules::Unnamed::Unreadable),
            },
            chain: Vec::new(),
            ends: ends.to_vec(),
            changes: watch::Sender::new(0).subscribe(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (ends, expected) in [
            (&[][..], 3600),
            (&[1000][..], 1),
            (&[1200, 1100][..], 101),
            // One that expired already was not needed for the chain.
            (&[900, 1100][..], 101),
            (&[999][..], 3600),
            (&[1_000_000][..], 3600),
        ] {
            assert_eq!(shown(ends).next_look(now), Duration::from_secs(expected), "{ends:?}");
        }
    }
}
