//! Whether the values fit together: everything that needs more than one setting. Where etcd has a sentence for a problem, it is etcd's sentence, because scripts and people search for it.

mod addresses;
mod bounds;
mod tls;
mod token;

use std::{path::PathBuf, time::Duration};

use super::{
    Config, KeepAlive, LimitsSource, Mode, Setting, Warning,
    draft::Draft,
    limits,
    problem::Problems,
    raw::Raw,
    table::{self, Effect},
    url::Url,
};

use crate::limit::LimitRules;

struct Resolver<'a> {
    mode: Mode,
    raw: &'a Raw,
    warnings: &'a mut Vec<Warning>,
    problems: &'a mut Problems,
}

/// Always yields a `Config`; it may be used only if `problems` stayed empty.
pub(super) fn resolve(
    mode: Mode,
    raw: &Raw,
    draft: Draft,
    warnings: &mut Vec<Warning>,
    problems: &mut Problems,
) -> Config {
    Resolver { mode, raw, warnings, problems }.config(draft)
}

impl Resolver<'_> {
    fn config(&mut self, draft: Draft) -> Config {
        let listen_client = self.listeners("listen-client-urls", &draft.listen_client);
        let listen_client_http = self.listeners("listen-client-http-urls", &draft.listen_client_http);
        let listen_metrics = self.listeners("listen-metrics-urls", &draft.listen_metrics);
        self.listeners("listen-peer-urls", &draft.listen_peer);
        if draft.listen_client.is_empty() {
            self.problem("listen-client-urls", "at least one URL is needed");
        }
        if draft.name.is_empty() {
            self.problem("name", "a name is needed");
        }
        let tls = self.tls(&draft, &[&listen_client[..], &listen_client_http, &listen_metrics].concat());
        self.cluster(&draft);
        self.timing(&draft);
        let data_dir = match draft.data_dir.as_str() {
            "" | "${name}.etcd" => PathBuf::from(format!("{}.etcd", draft.name)),
            path => PathBuf::from(path),
        };
        let advertise_client = self.advertised(&draft, &listen_client);
        let (limit_rules, limits_source) = self.limit_rules(&draft);
        let mut config = Config {
            mode: self.mode,
            data_dir,
            listen_client,
            listen_client_http,
            listen_metrics,
            advertise_client,
            client_crl_file: self.client_crl_file(&draft, &tls),
            identity_rules_file: self.identity_rules_file(&draft, &tls),
            tls,
            tls_min: draft.tls_min,
            tls_max: draft.tls_max,
            auth_token: self.auth_token(&draft),
            bcrypt_cost: self.bcrypt_cost(draft.bcrypt_cost),
            limits: self.limits(&draft),
            keep_alive: KeepAlive {
                interval: some_time(draft.keepalive_interval),
                timeout: some_time(draft.keepalive_timeout),
            },
            timing: draft.timing,
            auto_compaction: self.auto_compaction(&draft),
            watch_progress_interval: draft.watch_progress_interval,
            metrics: draft.metrics,
            own: self.own(&draft),
            limit_rules,
            limits_source,
            log: self.log(draft.log_rotation, draft.rotation, draft.log),
            name: draft.name,
            cipher_suites: draft.cipher_suites,
            listen_peer: draft.listen_peer,
            advertise_peer: draft.advertise_peer,
            cluster_token: draft.cluster_token,
            cluster_state: draft.cluster_state,
            effective: Vec::new(),
        };
        config.effective = self.effective(&config);
        config.effective.extend(config.limit_rules.told.iter().map(|(path, value)| Setting {
            key: path.clone(),
            value: value.clone(),
            source: path.clone(),
        }));
        config
    }

    fn limit_rules(&mut self, draft: &Draft) -> (LimitRules, Option<LimitsSource>) {
        let mut problems = Problems::default();
        let rules = match &self.raw.limits {
            Some(section) => limits::section_rules(section, &mut problems),
            None => LimitRules::default(),
        };
        if let Some(file) = self.raw.file.as_deref().filter(|_| !problems.is_empty()) {
            // Gone since it was read: then without the line.
            problems = problems.within(file, &std::fs::read_to_string(file).unwrap_or_default());
        }
        self.problems.append(problems);
        let source = match (&draft.limits_file, &self.raw.file) {
            (Some(_), _) if self.raw.limits.is_some() => {
                self.problem("limits-file", "the section `limits` is given too; only one of them can hold");
                None
            }
            (Some(file), _) => Some(LimitsSource::File(file.clone())),
            // A section that is not there yet may be written while the server runs.
            (None, Some(file)) => Some(LimitsSource::Section(file.clone())),
            (None, None) => None,
        };
        (rules, source)
    }

    fn problem(&mut self, flag: &str, message: impl Into<String>) {
        self.problems.add(self.raw.path(flag), message);
    }

    fn warn(&mut self, flag: &str, message: impl Into<String>) {
        self.warnings.push(Warning { message: message.into(), path: self.raw.path(flag) });
    }

    fn effective(&self, config: &Config) -> Vec<Setting> {
        let shown = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",");
        table::all()
            .filter(|flag| !matches!(flag.effect, Effect::CommandLine))
            .map(|flag| {
                let given = self.raw.get(flag.name);
                let written =
                    given.map_or_else(|| flag.default_in(self.mode).to_owned(), |given| given.text.clone());
                let value = match flag.name {
                    _ if flag.secret && !written.is_empty() => "(not shown)".to_owned(),
                    "data-dir" => config.data_dir.display().to_string(),
                    "advertise-client-urls" => shown(&config.advertise_client),
                    "initial-cluster" if written.is_empty() => config
                        .advertise_peer
                        .iter()
                        .map(|url| format!("{}={url}", config.name))
                        .collect::<Vec<_>>()
                        .join(","),
                    "threads" => config.own.threads.to_string(),
                    "password-threads" => config.own.password_threads.to_string(),
                    _ => written,
                };
                let source = given.map_or_else(|| "default".to_owned(), |given| given.source.path());
                Setting { key: flag.path(), value, source }
            })
            .collect()
    }
}

fn some_time(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}
