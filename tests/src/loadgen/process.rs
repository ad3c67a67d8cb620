//! CPU time and memory of processes, from `/proc`.

use anyhow::{Context, Result};
use std::time::Duration;

/// CPU time of several processes together, user and system, threads that ended included.
pub(crate) struct CpuClock {
    pids: Vec<u32>,
    ticks_per_second: u64,
}

impl CpuClock {
    pub(crate) fn of(pids: Vec<u32>) -> Self {
        CpuClock { pids, ticks_per_second: rustix::param::clock_ticks_per_second() }
    }

    /// Since each process began. Its resolution is one clock tick, usually 10 ms.
    pub(crate) fn total(&self) -> Result<Duration> {
        let mut ticks = 0;
        for pid in &self.pids {
            let path = format!("/proc/{pid}/stat");
            let line = std::fs::read_to_string(&path).with_context(|| format!("read `{path}`"))?;
            ticks += cpu_ticks(&line).with_context(|| format!("understand `{path}`"))?;
        }
        Ok(Duration::from_secs_f64(ticks as f64 / self.ticks_per_second as f64))
    }
}

/// utime and stime are the 14th and 15th fields; the second, the name, may itself hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_name, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Resident memory of several processes together, mapped files included.
pub(crate) fn resident_mib(pids: &[u32]) -> Result<f64> {
    let mut kib = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("read `{path}`"))?;
        kib += resident_kib(&status).with_context(|| format!("no `VmRSS` in `{path}`"))?;
    }
    Ok(kib as f64 / 1024.0)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("12 (cut) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_clock() {
        let me = std::process::id();
        assert!(resident_mib(&[me]).unwrap() > 0.0);
        CpuClock::of(vec![me]).total().unwrap();
    }
}
