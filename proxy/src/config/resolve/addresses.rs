//! Where a server listens, what it tells clients and members to dial, and who its members are.

use super::Resolver;
use crate::config::{
    Mode,
    draft::Draft,
    problem::Problem,
    url::{ListenUrl, Scheme, Url},
    values,
};

impl Resolver<'_> {
    pub(super) fn listeners(&mut self, flag: &str, urls: &[Url]) -> Vec<ListenUrl> {
        let mut listeners = Vec::new();
        for url in urls {
            match ListenUrl::from_url(url) {
                Ok(listener) => listeners.push(listener),
                Err(bad) => self.problem(flag, bad.0),
            }
            if self.mode == Mode::Keygate && url.scheme == Scheme::Http && flag != "listen-peer-urls" {
                self.problems.push(Problem {
                    path: self.raw.path(flag),
                    message: format!("plain HTTP is never served: {url}"),
                    accepted: Some(format!("{}", Url { scheme: Scheme::Https, ..url.clone() })),
                });
            }
        }
        listeners
    }

    pub(super) fn advertised(&mut self, draft: &Draft, listeners: &[ListenUrl]) -> Vec<Url> {
        if self.raw.get("advertise-client-urls").is_some() || self.raw.get("listen-client-urls").is_none() {
            if draft.advertise_client.is_empty() {
                self.problem("advertise-client-urls", "at least one URL is needed");
            }
            return draft.advertise_client.clone();
        }
        // An address that can be dialled is its own advertisement; etcd wants it said twice.
        let dialled =
            listeners.iter().all(|url| !url.address.ip().is_unspecified() && url.address.port() != 0);
        if self.mode == Mode::Keygate && dialled {
            return draft.listen_client.clone();
        }
        self.problem(
            "advertise-client-urls",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
        Vec::new()
    }

    pub(super) fn cluster(&mut self, draft: &Draft) {
        if draft.advertise_peer.is_empty() {
            self.problem("initial-advertise-peer-urls", "at least one URL is needed");
        }
        if draft.initial_cluster.is_empty() {
            return;
        }
        let mut members: Vec<(String, Vec<Url>)> = Vec::new();
        for item in values::list(&draft.initial_cluster) {
            let parsed = item.split_once('=').map(|(name, url)| (name, Url::parse(url)));
            let (name, url) = match parsed {
                Some((name, Ok(url))) if !name.is_empty() => (name.to_owned(), url),
                Some((_, Err(bad))) => {
                    self.problem("initial-cluster", bad.0);
                    return;
                }
                Some((_, Ok(_))) | None => {
                    self.problem("initial-cluster", format!("`{item}` is not of the form name=URL"));
                    return;
                }
            };
            match members.iter_mut().find(|(known, _)| *known == name) {
                Some((_, urls)) => urls.push(url),
                None => members.push((name, vec![url])),
            }
        }
        if members.len() > 1 {
            let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
            self.problem(
                "initial-cluster",
                format!(
                    "{} members are named ({}), but clusters of several members are not supported yet: name this one alone, or remove the setting",
                    names.len(),
                    names.join(", ")
                ),
            );
            return;
        }
        let Some((_, urls)) = members.iter().find(|(name, _)| *name == draft.name) else {
            self.problem(
                "initial-cluster",
                format!("couldn't find local name \"{}\" in the initial cluster configuration", draft.name),
            );
            return;
        };
        let missing = |from: &[Url], of: &[Url]| -> Option<String> {
            let urls: Vec<String> = of
                .iter()
                .filter(|url| !from.iter().any(|known| known.same_place(url)))
                .map(Url::to_string)
                .collect();
            (!urls.is_empty()).then(|| urls.join(","))
        };
        if let Some(urls) = missing(&draft.advertise_peer, urls) {
            self.problem(
                "initial-cluster",
                format!("--initial-cluster has {urls} but missing from --initial-advertise-peer-urls"),
            );
        }
        if let Some(missing) = missing(urls, &draft.advertise_peer) {
            self.problem(
                "initial-advertise-peer-urls",
                format!("--initial-advertise-peer-urls has {missing} but missing from --initial-cluster"),
            );
        }
    }
}
