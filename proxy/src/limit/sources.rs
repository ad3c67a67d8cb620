//! How many connections are open from each address.

use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::rules::Cap;
use crate::identify::Source;

#[derive(Default)]
pub(super) struct Sources(Arc<Mutex<AHashMap<Source, u64>>>);

/// A connection's place among those of its address. Becomes free when dropped.
pub struct SourceSeat {
    open: Arc<Mutex<AHashMap<Source, u64>>>,
    source: Source,
}

impl Sources {
    /// Counted whether there is a limit or not: there may be one tomorrow.
    pub(super) fn take(
        &self,
        source: Source,
        cap: Option<Cap>,
        met: &mut dyn FnMut(bool),
    ) -> Option<SourceSeat> {
        let mut open = self.0.lock();
        let count = open.get(&source).copied().unwrap_or(0);
        if let Some(cap) = cap.filter(|cap| count >= cap.max) {
            met(!cap.shadow);
            if !cap.shadow {
                return None;
            }
        }
        open.insert(source, count + 1);
        Some(SourceSeat { open: self.0.clone(), source })
    }
}

impl Drop for SourceSeat {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_number_of_connections() {
        let (sources, cap) = (Sources::default(), Some(Cap { max: 2, shadow: false }));
        let (one, other) = (Source::V4([10, 0, 0, 1]), Source::V4([10, 0, 0, 2]));
        let mut met = 0;
        let mut take = |source| sources.take(source, cap, &mut |_| met += 1);
        let held = [take(one), take(one), take(other)];
        assert!(held.iter().all(Option::is_some));
        assert!(take(one).is_none());
        drop(held);
        assert!(take(one).is_some());
        assert_eq!(met, 1);
        assert!(sources.0.lock().is_empty(), "an address without connections is forgotten");
    }
}
