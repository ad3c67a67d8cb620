//! Which version this is, of Keygate and of the etcd whose behaviour it has.

use super::Output;

/// The release of etcd that is reported to clients and whose behaviour is kept.
pub const ETCD_VERSION: &str = "3.7.1";
/// What a cluster of that version agrees on.
pub const ETCD_CLUSTER_VERSION: &str = "3.7.0";

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Set by release builds.
const COMMIT: Option<&str> = option_env!("KEYGATE_COMMIT");

pub(super) fn version(output: Output) -> String {
    match output {
        Output::Text => format!("keygate {VERSION} (etcd {ETCD_VERSION})\n"),
        Output::Json => {
            let version = serde_json::json!({
                "keygate": VERSION,
                "etcd": ETCD_VERSION,
                "commit": COMMIT,
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
            });
            format!("{version}\n")
        }
    }
}

/// The lines of `etcd --version`; scripts read the number out of the first.
pub(super) fn etcd_version() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "etcd Version: {ETCD_VERSION}\nGit SHA: {}\nGo Version: none (Keygate {VERSION}, Rust)\nGo OS/Arch: {}/{arch}\n",
        COMMIT.unwrap_or("not provided"),
        std::env::consts::OS,
    )
}
