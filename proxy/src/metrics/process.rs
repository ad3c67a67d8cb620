//! The process as the system sees it, read from `/proc`. What cannot be read is left out.

use std::fs;

use super::exposition::{Exposition, Kind};

/// Linux shows times in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn write(page: &mut Exposition) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // The directory itself is open while it is counted.
    let used = fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1)).ok();
    for (names, help, value) in [
        (["os_fd_used", "process_open_fds"], "File descriptors in use.", used.map(|used| used as u64)),
        (["os_fd_limit", "process_max_fds"], "File descriptors that may be in use.", limit),
    ] {
        for name in names {
            if let Some(value) = value {
                page.single(name, Kind::Gauge, help, value);
            }
        }
    }
    if let Some(status) = fs::read_to_string("/proc/self/status").ok().as_deref() {
        for (name, field, help) in [
            ("process_resident_memory_bytes", "VmRSS:", "Bytes of memory in use."),
            ("process_virtual_memory_bytes", "VmSize:", "Bytes of address space in use."),
        ] {
            if let Some(kib) = kib_of(status, field) {
                page.single(name, Kind::Gauge, help, kib * 1024);
            }
        }
    }
    // No limit: the largest number there is, as Go's library has it.
    let addresses = rustix::process::getrlimit(rustix::process::Resource::As).current.unwrap_or(u64::MAX);
    page.single(
        "process_virtual_memory_max_bytes",
        Kind::Gauge,
        "Bytes of address space that may be in use.",
        addresses,
    );
    times(page);
    network(page);
}

fn kib_of(status: &str, field: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

fn times(page: &mut Exposition) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    // The second field is a name in parentheses that may hold anything.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return };
    let field = |number: usize| fields.split(' ').nth(number - 3).and_then(|text| text.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let seconds = (user + system) / TICKS_PER_SECOND;
        page.single("process_cpu_seconds_total", Kind::Counter, "Seconds of processor time used.", seconds);
    }
    let booted = fs::read_to_string("/proc/stat").ok().and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()
    });
    if let (Some(booted), Some(started)) = (booted, field(22)) {
        let started = booted + started / TICKS_PER_SECOND;
        page.single(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, since 1970.",
            started,
        );
    }
}

/// Of the process's network namespace, as etcd's.
fn network(page: &mut Exposition) {
    let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") else { return };
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return };
    for (name, field, help) in [
        ("process_network_receive_bytes_total", "InOctets", "Bytes received over the network."),
        ("process_network_transmit_bytes_total", "OutOctets", "Bytes sent over the network."),
    ] {
        let pair = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == field);
        if let Some(value) = pair.and_then(|(_, value)| value.parse::<u64>().ok()) {
            page.single(name, Kind::Counter, help, value);
        }
    }
}
