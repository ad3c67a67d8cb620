//! The table of settings as people read it: `--help`, and the page docs/configuration.md.

use std::fmt::Write as _;

use super::{
    Mode,
    table::{self, Effect, Flag, Group},
};

/// All settings in their groups, as etcd lays them out.
pub fn help(mode: Mode) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let _ = writeln!(text, "\n{}:", group.title());
        for flag in table::all().filter(|flag| flag.group == group) {
            let _ =
                writeln!(text, "  --{} '{}'\n    {}", flag.name, flag.default_in(mode), help_text_of(flag));
        }
    }
    text
}

/// Its line of documentation, with a word about settings that change nothing.
pub(crate) fn help_text_of(flag: &Flag) -> String {
    match flag.effect {
        Effect::Honoured(_) | Effect::CommandLine => flag.doc.to_owned(),
        Effect::Inert(_) => format!("{} [no effect]", flag.doc),
        Effect::Refused(_) => format!("{} [refused]", flag.doc),
    }
}

/// The whole page docs/configuration.md.
#[cfg(test)]
pub(super) fn documentation() -> String {
    let mut page = String::from(INTRODUCTION);
    for group in Group::ALL {
        let _ = write!(
            page,
            "\n## {}\n\n| Flag | In the file | Default | What it does |\n|---|---|---|---|\n",
            group.title()
        );
        for flag in table::all().filter(|flag| flag.group == group) {
            let in_file = match flag.effect {
                Effect::CommandLine => "not in the file".to_owned(),
                _ => format!("`{}`", flag.path()),
            };
            let default = match flag.keygate_default {
                Some(keygate) => format!("{}; as `etcd`: {}", code(keygate), code(flag.default)),
                None => code(flag.default),
            };
            let _ = writeln!(page, "| `--{}` | {in_file} | {default} | {} |", flag.name, description(flag));
        }
    }
    page.push_str(CONCLUSION);
    page
}

#[cfg(test)]
fn code(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { format!("`{text}`") }
}

#[cfg(test)]
fn description(flag: &Flag) -> String {
    let mut text = flag.doc.replace('|', "\\|");
    if let table::Kind::Choice(choices) = flag.kind {
        let choices: Vec<String> = choices
            .iter()
            .map(|choice| if choice.is_empty() { "empty".to_owned() } else { format!("`{choice}`") })
            .collect();
        let _ = write!(text, " One of {}.", choices.join(", "));
    }
    match flag.effect {
        Effect::Honoured(_) | Effect::CommandLine => {}
        Effect::Inert(why) => {
            let _ = write!(text, " *{}{}.*", why[..1].to_uppercase(), &why[1..]);
        }
        Effect::Refused(why) => {
            let _ = write!(text, " **Refused**: {why}.");
        }
    }
    text
}

#[cfg(test)]
const INTRODUCTION: &str = "\
# Configuration

<!-- Written by `UPDATE_DOCS=1 cargo test -p keygate`, from the table in proxy/src/config/table. A test fails when it is out of date. -->

Settings come from the command line and the environment, or from one file. All problems are reported at once, each with
the place where it was written and the values that would do; then the exit code is 2.

- **Flags** are written as etcd's: `-flag value`, `--flag value`, `--flag=value`; a boolean is `--flag` or `--flag=false`.
- **Variables** are `ETCD_` and the flag in capitals with `_` for `-` (`ETCD_DATA_DIR`); those of the group Keygate start
  with `KEYGATE_`. A setting that is given both ways is an error. An empty variable counts as not set; an unknown one is
  reported and ignored.
- **The file** (`--config-file FILE`, or `ETCD_CONFIG_FILE`) is etcd's YAML. When it is given, flags and variables are
  ignored, with a warning. Settings of TLS stand in the sections `client-transport-security` and
  `peer-transport-security`, our own in `keygate`. Durations are texts such as `5s`, or integers of nanoseconds as in
  etcd's own files. A key that is not known is an error with `keygate`, and a warning when called as `etcd`.
- `keygate check-config FILE` says `ok` and what every setting came to, or what is wrong. `--output json` is for scripts,
  `--mode etcd` applies the rules of the compatible mode.

`keygate serve` speaks TLS and asks every caller who they are; nothing here switches that off. Called as `etcd` (a link
to the binary with that name) the flags decide, as they do for etcd, and a warning says so. Flags that begin with
`--experimental-`, as etcd took them before 3.7, are translated with a warning.
";

#[cfg(test)]
const CONCLUSION: &str = "
## Exit codes

| Code | When |
|---|---|
| 0 | The server was told to stop, and did |
| 1 | It could not start or go on; called as `etcd`, also a configuration that cannot be used |
| 2 | The configuration cannot be used; called as `etcd`, only a malformed command line |
";
