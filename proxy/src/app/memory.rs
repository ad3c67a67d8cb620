//! How much memory there is, and who may have how much of it.
//!
//! `--memory-budget` says what current values may take. Where the process is in a control group that allows less than
//! three times that, the group's limit decides: a third for values, a sixth each for answers and for messages that
//! arrive, and the last third for the index, for what is written and for all else.

use std::path::{Path, PathBuf};

/// Bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Memory {
    /// Current values that stay in memory.
    pub(super) values: u64,
    /// Answers that are read or wait to be sent.
    pub(super) answers: u64,
    /// Messages that have begun to arrive.
    pub(super) messages: u64,
}

impl Memory {
    pub(super) fn of(budget: u64) -> Self {
        let limit = limit_of(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
        let memory = Self::within(budget, limit);
        if memory.values < budget {
            tracing::warn!(
                memory_budget = budget,
                limit,
                used = memory.values,
                "the control group allows less memory than three times the budget; a third of its limit is used"
            );
        }
        memory
    }

    fn within(budget: u64, limit: Option<u64>) -> Self {
        let values = limit.map_or(budget, |limit| budget.min(limit / 3));
        Self { values, answers: values / 2, messages: values / 2 }
    }
}

/// The least that the control group of the process and those around it allow. None: nothing is said.
fn limit_of(membership: &Path, root: &Path) -> Option<u64> {
    let membership = std::fs::read_to_string(membership).ok()?;
    membership.lines().filter_map(|line| hierarchy_limit(line, root)).min()
}

/// `0::/path` is of the unified hierarchy, `4:memory:/path` of the older one.
fn hierarchy_limit(line: &str, root: &Path) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (base, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let own: PathBuf = base.join(path.trim_start_matches('/'));
    let around = own.ancestors().take_while(|directory| directory.starts_with(&base));
    let limits = around.filter_map(|directory| {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        // `max`, or more than any machine has: none.
        text.trim().parse::<u64>().ok().filter(|limit| *limit < 1 << 60)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_around_the_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("own", "12:cpu,memory:/pod/box\n0::/unified/box\n3:pids:/x\n");
        write("cgroup/memory/pod/box/memory.limit_in_bytes", "9223372036854771712\n");
        write("cgroup/memory/pod/memory.limit_in_bytes", "600000000\n");
        write("cgroup/unified/box/memory.max", "max\n");
        let found = || limit_of(&root.path().join("own"), &root.path().join("cgroup"));
        assert_eq!(found(), Some(600_000_000));
        write("cgroup/unified/memory.max", "500000000\n");
        assert_eq!(found(), Some(500_000_000));
        assert_eq!(limit_of(Path::new("/nowhere"), root.path()), None);
    }

    #[test]
    fn a_tight_group_makes_all_shares_smaller() {
        let all = |values| Memory { values, answers: values / 2, messages: values / 2 };
        assert_eq!(Memory::within(1 << 30, None), all(1 << 30));
        assert_eq!(Memory::within(1 << 30, Some(8 << 30)), all(1 << 30));
        assert_eq!(Memory::within(1 << 30, Some(600_000_000)), all(200_000_000));
    }
}
