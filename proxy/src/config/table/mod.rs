//! The one list of settings. Each entry carries its flag name, its place in the file, the kind of its value, its
//! default, what Keygate does with it, and a line of documentation. Flags, `ETCD_*` and `KEYGATE_*` variables, file
//! keys, `--help`, shell completions and docs/configuration.md are all derived from it.

mod clustering;
mod keygate;
mod member;
mod operations;
mod security;

use super::{
    Mode,
    draft::Draft,
    problem::BadValue,
    url::Url,
    values::{self, Parsed},
};

/// One setting.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Where the file keeps it.
    pub(crate) section: Section,
    /// Its key there.
    pub(crate) key: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// The default of `keygate serve`, where it differs.
    pub(crate) keygate_default: Option<&'static str>,
    pub(crate) effect: Effect,
    pub(crate) group: Group,
    pub(crate) doc: &'static str,
    /// Never shown.
    pub(crate) secret: bool,
}

/// The part of the file in which a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Top,
    ClientTransport,
    PeerTransport,
    Discovery,
    /// Keygate's own; variables of it start with `KEYGATE_`.
    Keygate,
}

impl Section {
    pub(crate) const NESTED: [Self; 4] =
        [Self::ClientTransport, Self::PeerTransport, Self::Discovery, Self::Keygate];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Top => "",
            Self::ClientTransport => "client-transport-security",
            Self::PeerTransport => "peer-transport-security",
            Self::Discovery => "discovery-config",
            Self::Keygate => "keygate",
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Path,
    Bool,
    Unsigned,
    Milliseconds,
    Duration,
    /// Bytes, with or without a unit.
    Size,
    Urls,
    List,
    Choice(&'static [&'static str]),
}

impl Kind {
    /// Whether `text` is of this kind; what it then means is for the setter to say.
    pub(super) fn check(self, text: &str) -> Parsed<()> {
        match self {
            Self::Text | Self::Path | Self::List => Ok(()),
            Self::Bool => values::boolean(text).map(drop),
            Self::Unsigned => values::unsigned(text).map(drop),
            Self::Milliseconds => values::milliseconds(text).map(drop),
            Self::Duration => values::duration(text).map(drop),
            Self::Size => values::size(text).map(drop),
            Self::Urls => Url::list(text).map(drop),
            Self::Choice(choices) if choices.contains(&text) => Ok(()),
            Self::Choice(_) => Err(BadValue::new(format!("`{text}` is not one of the accepted values"))),
        }
    }

    /// The accepted values, when they can be said in a few words.
    pub(crate) fn accepted(self) -> Option<String> {
        match self {
            Self::Text | Self::Path | Self::List => None,
            Self::Bool => Some("true, false".to_owned()),
            Self::Unsigned => Some("a whole number from 0".to_owned()),
            Self::Milliseconds => Some("a whole number of milliseconds".to_owned()),
            Self::Duration => Some("a duration such as 300ms, 5s, 1h30m".to_owned()),
            Self::Size => Some("bytes, or a size such as 512MiB".to_owned()),
            Self::Urls => {
                Some("http://host:port or https://host:port, several separated by commas".to_owned())
            }
            Self::Choice(choices) => Some(choices.join(", ")),
        }
    }
}

pub(super) type Setter = fn(&mut Draft, &str) -> Parsed<()>;

/// What Keygate does with a setting.
pub(crate) enum Effect {
    Honoured(Setter),
    /// Accepted so that the command lines and manifests of etcd keep working; a value other than the default is
    /// answered with one warning that gives the reason.
    Inert(&'static str),
    /// To go on without it would be unsafe, so a value other than the default is an error that gives the reason.
    Refused(&'static str),
    /// Read before all others, by the command line itself; it cannot stand in a file.
    CommandLine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Keygate,
}

impl Group {
    pub(crate) const ALL: [Self; 10] = [
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Monitoring,
        Self::Logging,
        Self::Tracing,
        Self::Features,
        Self::Unsafe,
        Self::Keygate,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Monitoring => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Keygate => "Keygate",
        }
    }
}

/// Why an accepted setting changes nothing.
const ONE_MEMBER: &str = "accepted, has no effect with one member";
const OTHER_ENGINE: &str = "accepted, has no effect: it tunes a part of etcd that Keygate does not have";
const NOT_SERVED: &str = "accepted, has no effect: Keygate does not serve this yet";

impl Flag {
    const fn new(
        group: Group,
        name: &'static str,
        kind: Kind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            section: Section::Top,
            key: name,
            kind,
            default,
            keygate_default: None,
            effect: Effect::Inert(OTHER_ENGINE),
            group,
            doc,
            secret: false,
        }
    }

    const fn sets(mut self, setter: Setter) -> Self {
        self.effect = Effect::Honoured(setter);
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.effect = Effect::Inert(why);
        self
    }

    const fn refused(mut self, why: &'static str) -> Self {
        self.effect = Effect::Refused(why);
        self
    }

    const fn in_section(mut self, section: Section, key: &'static str) -> Self {
        self.section = section;
        self.key = key;
        self
    }

    const fn keygate_default(mut self, default: &'static str) -> Self {
        self.keygate_default = Some(default);
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) fn default_in(&self, mode: Mode) -> &'static str {
        match (mode, self.keygate_default) {
            (Mode::Keygate, Some(default)) => default,
            _ => self.default,
        }
    }

    /// The variable of the environment that sets it.
    pub(crate) fn variable(&self) -> String {
        let prefix = if self.section == Section::Keygate { "KEYGATE" } else { "ETCD" };
        format!("{prefix}_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// Its place in the file, `section.key`.
    pub(crate) fn path(&self) -> String {
        match self.section {
            Section::Top => self.key.to_owned(),
            section => format!("{}.{}", section.name(), self.key),
        }
    }
}

/// Every setting, in the order in which help and documentation show them.
pub(crate) fn all() -> impl Iterator<Item = &'static Flag> {
    [member::FLAGS, clustering::FLAGS, security::FLAGS, operations::FLAGS, keygate::FLAGS]
        .into_iter()
        .flatten()
}

pub(crate) fn by_name(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

pub(super) fn by_key(section: Section, key: &str) -> Option<&'static Flag> {
    all().find(|flag| {
        flag.section == section && flag.key == key && !matches!(flag.effect, Effect::CommandLine)
    })
}

/// Flags of etcd 2 that etcd itself still accepts and ignores.
const LEGACY: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
];

pub(super) fn is_legacy(name: &str) -> bool {
    LEGACY.contains(&name) || name.starts_with("test.")
}

/// What became of a flag of etcd 3.6 and before that started with `experimental-`.
pub(super) enum Renamed {
    To(&'static Flag),
    /// It is now a feature gate.
    Gate(&'static str),
}

/// `name` without its prefix `experimental-`, or `None` if there never was such a flag.
pub(super) fn renamed(name: &str) -> Option<Renamed> {
    let rest = name.strip_prefix("experimental-")?;
    let gate = match rest {
        "initial-corrupt-check" => "InitialCorruptCheck",
        "compact-hash-check-enabled" => "CompactHashCheck",
        "txn-mode-write-with-shared-buffer" => "TxnModeWriteWithSharedBuffer",
        "enable-lease-checkpoint" => "LeaseCheckpoint",
        "enable-lease-checkpoint-persist" => "LeaseCheckpointPersist",
        "stop-grpc-service-on-defrag" => "StopGRPCServiceOnDefrag",
        "set-member-localaddr" => "SetMemberLocalAddr",
        _ => return by_name(rest).filter(|flag| flag.section != Section::Keygate).map(Renamed::To),
    };
    Some(Renamed::Gate(gate))
}

/// The names that `--feature-gates` takes.
pub(super) const FEATURE_GATES: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "CompactHashCheck",
    "FastLeaseKeepAlive",
    "InitialCorruptCheck",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "PriorityRequest",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];
