//! Disks of a size that the test chooses, mounted where nobody else sees them.
//!
//! A test that needs one runs itself again in a mount namespace of its own, see [`enter`]. As root or
//! with user namespaces that works in most containers too; where it does not, the test is skipped
//! aloud, also with `KEYGATE_REQUIRE_PEERS=1`: no installation gives a machine the right to mount.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::peers;

/// Set in the process that runs within the namespace.
const INSIDE: &str = "KEYGATE_TEST_MOUNTS";

/// Where a test finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Mounts are private: go on.
    Inside,
    /// It ran inside, or was skipped: return.
    Outside,
}

/// Runs the test called `test` of this very program again in a mount namespace of its own.
///
/// # Panics
/// When the test fails there.
pub fn enter(test: &str) -> Place {
    if env::var_os(INSIDE).is_some() {
        return Place::Inside;
    }
    // The second works without being root.
    let ways: [&[&str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    let mounts = |way: &&&[&str]| {
        let probe =
            "d=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs \"$d\" && umount \"$d\" && rmdir \"$d\"";
        let probe = Command::new("unshare").args(**way).args(["sh", "-c", probe]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(mounts) else {
        peers::say_skipped(test, "the right to mount a tmpfs in a namespace of its own (unshare --mount)");
        return Place::Outside;
    };
    let this = env::current_exe().expect("the path of this test");
    let status = Command::new("unshare")
        .args(*way)
        .arg(this)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare has just worked");
    assert!(status.success(), "{test} failed in its namespace: see above");
    Place::Outside
}

/// A disk in memory that holds `megabytes`.
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    pub fn new(megabytes: usize) -> Result<SmallDisk> {
        let directory = TempDir::with_prefix("keygate-disk-")?;
        let size = format!("size={megabytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path()))?;
        Ok(SmallDisk { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn resize(&self, megabytes: usize) -> Result<()> {
        let options = format!("remount,size={megabytes}m");
        run(Command::new("mount").args(["-o", &options]).arg(self.path())).map(drop)
    }

    /// Takes all room that is left, to the last page.
    pub fn fill(&self) -> Result<Ballast> {
        let path = self.path().join("ballast");
        let mut file = fs::File::create(&path)?;
        for size in [1 << 20, 4 << 10] {
            while std::io::Write::write_all(&mut file, &vec![7; size]).is_ok() {}
        }
        Ok(Ballast(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path())).ok();
    }
}

/// What fills a disk; dropping it makes room.
pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// A file system that promises more than the disk below it has: writes succeed, the sync that has to
/// bring them to the disk fails.
pub struct LyingDisk {
    /// Dropped after its content is unmounted.
    below: SmallDisk,
    device: String,
}

impl LyingDisk {
    /// `None` after saying that `test` is skipped: loop devices are root's.
    pub fn new(test: &str, promised: usize, real: usize) -> Result<Option<LyingDisk>> {
        let below = SmallDisk::new(real)?;
        let image = below.path().join("image");
        fs::File::create(&image)?.set_len((promised as u64) << 20)?;
        fs::create_dir(below.path().join("mounted"))?;
        match Self::attach(&image).and_then(|device| {
            let disk = LyingDisk { below, device };
            // Without a journal, which would fail before a sync of ours does.
            let options = ["-q", "-F", "-b", "4096", "-O", "^has_journal"];
            run(Command::new("mkfs.ext4").args(options).arg(&disk.device))?;
            disk.mount()?;
            Ok(disk)
        }) {
            Ok(disk) => Ok(Some(disk)),
            Err(error) => {
                peers::say_skipped(test, &format!("ext4 on a loop device ({error:#})"));
                Ok(None)
            }
        }
    }

    fn attach(image: &Path) -> Result<String> {
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        // A loop device takes a write that its file took the first half of for a whole one. A page
        // has no half.
        let name = device.trim_start_matches("/dev/");
        let limit = format!("/sys/block/{name}/queue/max_sectors_kb");
        if let Err(error) = fs::write(&limit, "4") {
            run(Command::new("losetup").args(["--detach", &device])).ok();
            return Err(error).with_context(|| format!("write `{limit}`"));
        }
        Ok(device)
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").arg(&self.device).arg(self.path())).map(drop)
    }

    pub fn path(&self) -> PathBuf {
        self.below.path().join("mounted")
    }

    /// Takes what the disk below has left, so that it cannot keep its promise any more.
    pub fn fill_below(&self) -> Result<Ballast> {
        self.below.fill()
    }

    /// Forgets what only memory holds, as a power cut does. Nobody may use it meanwhile.
    pub fn replug(&self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        // Its status is not 0 when it repaired something, which may be.
        Command::new("e2fsck").args(["-f", "-y", &self.device]).output().context("start e2fsck")?;
        self.mount()
    }
}

impl Drop for LyingDisk {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.path())).ok();
        run(Command::new("losetup").args(["--detach", &self.device])).ok();
    }
}

/// What it said.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
