//! When certificates expire, and whether the files that replace them can be used. No names: the page is public.

use std::time::SystemTime;

use super::exposition::{Exposition, Kind};
use crate::tls::{ReloadingTls, What};

pub(super) fn write(page: &mut Exposition, tls: &ReloadingTls) {
    const ENDS: &str = "keygate_certificate_expiry_timestamp_seconds";
    page.family(ENDS, Kind::Gauge, "When the first certificate or revocation list of a kind expires.");
    let loaded = tls.current();
    let dates: Vec<_> = loaded.dates().filter_map(|dated| Some((dated.what, dated.ends?))).collect();
    for what in [What::Authority, What::RevocationList, What::Server] {
        let first = dates.iter().filter(|(of, _)| *of == what).map(|(_, ends)| *ends).min();
        if let Some(since) = first.and_then(|ends| ends.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            page.labelled(ENDS, &[("kind", what.name())], since.as_secs());
        }
    }
    page.single(
        "keygate_tls_files_unusable",
        Kind::Gauge,
        "1 while changed TLS files or identity rules cannot be used and the previous ones stay in use.",
        u8::from(tls.is_behind()),
    );
}
