//! What a person at a terminal sees: exit codes, output, and the habits of `etcd` under that name.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

fn keygate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keygate"));
    command.env_clear();
    command
}

/// The binary under the name `etcd`, in `directory`.
fn etcd(directory: &Path) -> Command {
    let link = directory.join("etcd");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_keygate"), &link).unwrap();
    }
    let mut command = Command::new(link);
    command.env_clear().current_dir(directory);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

#[test]
fn help_names_every_command_and_every_setting() {
    let output = keygate().arg("--help").output().unwrap();
    assert_eq!(code(&output), Some(0));
    for command in ["serve", "check-config", "version", "completion", "help"] {
        assert!(text(&output.stdout).contains(command), "{command}");
    }
    let output = keygate().args(["serve", "--help"]).output().unwrap();
    assert_eq!(code(&output), Some(0));
    let help = text(&output.stdout);
    for line in
        ["Member:", "Security:", "  --data-dir 'keygate.data'", "Keygate:", "  --memory-budget '1GiB'"]
    {
        assert!(help.contains(line), "{line} is missing");
    }
    assert_eq!(code(&keygate().output().unwrap()), Some(2));
}

#[test]
fn a_wrong_configuration_tells_all_and_exits_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keygate.yml");
    fs::write(&file, "nmae: x\nmax-txn-ops: 0\nlisten-client-urls: http://127.0.0.1:2379\n").unwrap();
    for arguments in [&["check-config"][..], &["serve", "--config-file"]] {
        let output = keygate().args(arguments).arg(&file).current_dir(directory.path()).output().unwrap();
        assert_eq!(code(&output), Some(2));
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        for problem in
            ["nmae: unknown key; did you mean `name`?", "max-txn-ops: ", "plain HTTP is never served"]
        {
            assert!(all.contains(problem), "{problem} is missing in {all}");
        }
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn a_good_file_is_ok_and_shows_what_every_setting_came_to() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keygate.yml");
    fs::write(&file, "name: n1\nkeygate:\n  memory-budget: 64MiB\n").unwrap();
    let output = keygate().arg("check-config").arg(&file).output().unwrap();
    assert_eq!(code(&output), Some(0));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("ok\n"), "{shown}");
    assert!(shown.contains("\nname: n1\n") && shown.contains("\nkeygate.memory-budget: 64MiB\n"), "{shown}");
    let output = keygate().args(["check-config", "--output", "json"]).arg(&file).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["settings"]["keygate.memory-budget"]["value"], "64MiB");
    // The same file means other defaults when it is for the compatible mode.
    let output = keygate().args(["check-config", "--mode", "etcd"]).arg(&file).output().unwrap();
    assert!(text(&output.stdout).contains("\ndata-dir: n1.etcd"));
}

#[test]
fn the_example_files_are_good() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let examples: Vec<_> = fs::read_dir(deploy)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        let mode = if example.file_name().unwrap().to_str().unwrap().starts_with("etcd") {
            "etcd"
        } else {
            "keygate"
        };
        let output = keygate().args(["check-config", "--mode", mode]).arg(&example).output().unwrap();
        assert_eq!(code(&output), Some(0), "{}: {}", example.display(), text(&output.stdout));
    }
}

#[test]
fn versions_are_for_people_and_for_scripts() {
    let output = keygate().args(["version", "--output", "json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(version["keygate"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["etcd"], "3.7.1");
    for shell in ["bash", "zsh", "fish"] {
        let output = keygate().args(["completion", shell]).output().unwrap();
        assert!(text(&output.stdout).contains("listen-client-urls"), "{shell}");
    }
}

#[test]
fn under_the_name_etcd_it_answers_as_etcd() {
    let directory = tempfile::tempdir().unwrap();
    for flag in ["--version", "-version"] {
        let output = etcd(directory.path()).arg(flag).output().unwrap();
        assert_eq!(code(&output), Some(0));
        let lines: Vec<&str> = text(&output.stdout).lines().collect();
        assert_eq!(lines[0], "etcd Version: 3.7.1");
        assert!(lines[1].starts_with("Git SHA: ") && lines[2].starts_with("Go Version: "), "{lines:?}");
        assert!(lines[3].starts_with("Go OS/Arch: "), "{lines:?}");
    }
    let output = etcd(directory.path()).arg("-h").output().unwrap();
    assert_eq!(code(&output), Some(0));
    assert!(text(&output.stdout).contains("  --data-dir '${name}.etcd'"));
}

#[test]
fn under_the_name_etcd_it_fails_as_etcd() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, variable, expected, message) in [
        (&["--foo"][..], None, 2, "flag provided but not defined"),
        (&["--quota-backend-bytes=abc"], None, 2, "--quota-backend-bytes: "),
        (&["stray"], None, 1, "\"stray\" is not a valid flag"),
        (&["--listen-client-urls=http://127.0.0.1:1"], None, 1, "--advertise-client-urls is required when"),
        (&["--name=a"], Some("b"), 1, "conflicting environment variable is shadowed by"),
        (&["gateway", "start"], None, 1, "gateway"),
    ] {
        let mut command = etcd(directory.path());
        if let Some(value) = variable {
            command.env("ETCD_NAME", value);
        }
        let output = command.args(arguments).output().unwrap();
        assert_eq!(code(&output), Some(expected), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(message), "{arguments:?}: {}", text(&output.stderr));
    }
}
