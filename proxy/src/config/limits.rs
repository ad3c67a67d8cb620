//! The section `limits:`, or a file of its own that holds it: texts to rules, every problem with its path.
//!
//! What is named lower down inherits what is not written there: a tenant from `tenant`, a user from its tenant's
//! `user`. `none` takes an inherited rule away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_norway::{Mapping, Value};

use super::problem::{Problem, Problems, did_you_mean};
use super::values::{self, Parsed};
use super::{BadValue, table::Kind};
use crate::limit::{
    Cap, CapRule, Gcra, LimitRules, MAX_RATE, Rate, RateRule, Rules, Scope, TenantRules, Unit,
};

/// The name of the section.
pub(super) const SECTION: &str = "limits";

const RATES_ACCEPTED: &str =
    "none, a number for each second, `N/s`, `N/m` or `N/h`, or a section with `rate`, `burst` and `shadow`";

/// The text of a file that holds nothing but the section.
pub(super) fn parse_file(text: &str) -> Result<LimitRules, Problems> {
    let mut problems = Problems::default();
    // An editor empties a file before it writes it: nothing is not a wish for no limits.
    let Some(section) = root(text, &mut problems).and_then(|root| alone(&root, &mut problems)) else {
        return Err(problems);
    };
    finish(&section, problems)
}

/// The section of a whole configuration file's text; none is no limits.
pub(super) fn parse_section_of(text: &str) -> Result<LimitRules, Problems> {
    let mut problems = Problems::default();
    match root(text, &mut problems) {
        Some(root) => finish(root.get(SECTION).unwrap_or(&Value::Null), problems),
        None => Err(problems),
    }
}

fn root(text: &str, problems: &mut Problems) -> Option<Mapping> {
    match serde_norway::from_str::<Value>(text) {
        Ok(Value::Mapping(root)) => return Some(root),
        Ok(Value::Null) => problems.add(SECTION, "the file is empty"),
        Ok(_) => problems.add(SECTION, "the file is not a list of `key: value` lines"),
        Err(error) => problems.add(SECTION, format!("not YAML: {error}")),
    }
    None
}

fn alone(root: &Mapping, problems: &mut Problems) -> Option<Value> {
    for (key, _) in root {
        if key.as_str() != Some(SECTION) {
            let key = key.as_str().unwrap_or("?");
            problems.add(key, "a file of limits holds the section `limits` and nothing else");
        }
    }
    match root.get(SECTION) {
        Some(section) if problems.is_empty() => Some(section.clone()),
        _ => None,
    }
}

fn finish(section: &Value, mut problems: Problems) -> Result<LimitRules, Problems> {
    let rules = section_rules(section, &mut problems);
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

/// What the section comes to; it may be used only if `problems` stayed empty.
pub(super) fn section_rules(section: &Value, problems: &mut Problems) -> LimitRules {
    let mut reader = Reader { problems, told: Vec::new(), shadow: false };
    let mut rules = reader.all(section);
    rules.told = reader.told;
    rules
}

struct Reader<'a> {
    problems: &'a mut Problems,
    told: Vec<(String, String)>,
    /// Nothing is refused, whatever a rule says of itself.
    shadow: bool,
}

impl Reader<'_> {
    fn all(&mut self, section: &Value) -> LimitRules {
        let mut rules = LimitRules::default();
        let Some(keys) = self.mapping(SECTION, section) else { return rules };
        if let Some(value) = keys.get("shadow") {
            self.shadow = self.boolean("limits.shadow", value);
        }
        let part = |name: &str| keys.get(name).cloned().unwrap_or(Value::Null);
        rules.server =
            Arc::new(self.rules("limits.server", &part("server"), Scope::Server, &[], &Rules::default()));
        if let Some(value) = keys.get("connections-per-source") {
            let path = "limits.connections-per-source";
            rules.connections_per_source = self.cap(path, value, Unit::Number);
            self.tell(path, rules.connections_per_source.map(|cap| told_cap(cap, Unit::Number)));
        }
        rules.any_tenant = self.tenant("limits.tenant", &part("tenant"), None);
        if let Some(tenants) = keys.get("tenants").and_then(|value| self.mapping("limits.tenants", value)) {
            for (name, value) in &tenants {
                let Some(name) = name.as_str() else {
                    self.problems.add("limits.tenants", "a tenant's name must be a text");
                    continue;
                };
                let path = format!("limits.tenants.{name}");
                if name != keygate_core::DEFAULT_TENANT && keygate_core::TenantName::parse(name).is_none() {
                    self.problems.add(path, "not a tenant's name: a-z, 0-9 and `-`, at most 63");
                    continue;
                }
                let tenant = self.tenant(&path, value, Some(&rules.any_tenant));
                rules.tenants.insert(name.to_owned(), tenant);
            }
        }
        let known = ["shadow", "server", "connections-per-source", "tenant", "tenants"];
        self.unknown(SECTION, &keys, |key| known.contains(&key), known.into_iter());
        rules
    }

    fn tenant(&mut self, path: &str, value: &Value, any: Option<&TenantRules>) -> TenantRules {
        let nothing = TenantRules::default();
        let any = any.unwrap_or(&nothing);
        let mut found = any.clone();
        let Some(keys) = self.mapping(path, value) else { return found };
        let sections = ["user", "users", "prefixes"];
        found.tenant = Arc::new(self.rules(path, value, Scope::Tenant, &sections, &any.tenant));
        if let Some(value) = keys.get("user") {
            found.user = Arc::new(self.rules(&format!("{path}.user"), value, Scope::User, &[], &any.user));
        }
        let users = self.named(path, "users", &keys);
        found.users.extend(users.into_iter().map(|(name, value)| {
            let at = format!("{path}.users.{name}");
            let rules = self.rules(&at, &value, Scope::User, &[], &found.user);
            (name, Arc::new(rules))
        }));
        let prefixes = self.named(path, "prefixes", &keys);
        found.prefixes.extend(prefixes.into_iter().map(|(prefix, value)| {
            let at = format!("{path}.prefixes.{prefix}");
            if prefix.is_empty() {
                self.problems.add(&at, "a prefix has at least one byte; limits of all keys are the tenant's");
            }
            let rules = self.rules(&at, &value, Scope::Prefix, &[], &Rules::default());
            (prefix.into_bytes(), Arc::new(rules))
        }));
        found
    }

    fn named(&mut self, path: &str, section: &str, keys: &Mapping) -> BTreeMap<String, Value> {
        let path = format!("{path}.{section}");
        let Some(named) = keys.get(section).and_then(|value| self.mapping(&path, value)) else {
            return BTreeMap::new();
        };
        let mut found = BTreeMap::new();
        for (name, value) in named {
            match name.as_str() {
                Some(name) => drop(found.insert(name.to_owned(), value)),
                None => self.problems.add(&path, "a name must be a text"),
            }
        }
        found
    }

    fn rules(
        &mut self,
        path: &str,
        value: &Value,
        scope: Scope,
        sections: &[&'static str],
        inherited: &Rules,
    ) -> Rules {
        let mut rules = inherited.clone();
        let Some(keys) = self.mapping(path, value) else { return rules };
        for rule in RateRule::ALL.into_iter().filter(|rule| rule.is_for(scope)) {
            let Some(value) = keys.get(rule.name()) else { continue };
            let at = format!("{path}.{}", rule.name());
            let rate = self.rate(&at, value, rule.unit());
            if rate.is_none() {
                self.tell(&at, None);
            }
            rules.rates[rule as usize] = rate;
        }
        for rule in CapRule::ALL.into_iter().filter(|rule| rule.is_for(scope)) {
            let Some(value) = keys.get(rule.name()) else { continue };
            let at = format!("{path}.{}", rule.name());
            let cap = self.cap(&at, value, rule.unit());
            self.tell(&at, cap.map(|cap| told_cap(cap, rule.unit())));
            rules.caps[rule as usize] = cap;
        }
        if let (Some(min), Some(max)) = (rules.cap(CapRule::LeaseTtlMin), rules.cap(CapRule::LeaseTtlMax))
            && min.max > max.max
        {
            self.problems.add(format!("{path}.lease-ttl-min"), "is longer than `lease-ttl-max`");
        }
        let rates = RateRule::ALL.into_iter().filter(|rule| rule.is_for(scope)).map(RateRule::name);
        let caps = CapRule::ALL.into_iter().filter(|rule| rule.is_for(scope)).map(CapRule::name);
        let names: Vec<&'static str> = rates.chain(caps).chain(sections.iter().copied()).collect();
        self.unknown(path, &keys, |key| names.contains(&key), names.iter().copied());
        rules
    }

    fn rate(&mut self, path: &str, value: &Value, unit: Unit) -> Option<Rate> {
        let (text, keys) = self.value_and_keys(path, value, "rate", &["burst"])?;
        let shadow = self.shadow_of(path, keys.as_ref());
        let (units, period) = self.parsed(path, per_time(&text, unit), RATES_ACCEPTED)?;
        let burst = match keys.as_ref().and_then(|keys| keys.get("burst")) {
            // What comes in a second: a client that asks evenly is never refused for being a little early.
            None => (units / period.as_secs()).max(1),
            Some(value) => {
                let path = format!("{path}.burst");
                let text = self.scalar(&path, value)?;
                self.parsed(&path, number(&text, unit).and_then(at_least_one), "a number from 1")?
            }
        };
        let per_second = if text.contains('/') { "" } else { "/s" };
        let told = format!("{text}{per_second}, burst {burst}{}", if shadow { ", shadow" } else { "" });
        self.tell(path, Some(told));
        Some(Rate { gcra: Gcra::new(units, period, burst), shadow })
    }

    fn cap(&mut self, path: &str, value: &Value, unit: Unit) -> Option<Cap> {
        let (text, keys) = self.value_and_keys(path, value, "max", &[])?;
        let shadow = self.shadow_of(path, keys.as_ref());
        let accepted = match unit {
            Unit::Number => "none, or a whole number",
            Unit::Bytes => "none, bytes, or a size such as 512KiB",
            Unit::Seconds => "none, seconds, or a duration such as 1h",
        };
        let max = self.parsed(path, number(&text, unit), accepted)?;
        Some(Cap { max, shadow })
    }

    /// A bare value, or a section whose key `main` has it. None: no rule, or a problem that was told.
    fn value_and_keys(
        &mut self,
        path: &str,
        value: &Value,
        main: &str,
        others: &[&str],
    ) -> Option<(String, Option<Mapping>)> {
        let Value::Mapping(keys) = value else {
            let text = self.scalar(path, value)?;
            return (text != "none").then_some((text, None));
        };
        let known = |key: &str| key == main || key == "shadow" || others.contains(&key);
        let names = [main, "shadow"].into_iter().chain(others.iter().copied());
        self.unknown(path, keys, known, names);
        let Some(value) = keys.get(main) else {
            self.problems.add(path, format!("`{main}` is missing"));
            return None;
        };
        let text = self.scalar(&format!("{path}.{main}"), value)?;
        Some((text, Some(keys.clone())))
    }

    fn shadow_of(&mut self, path: &str, keys: Option<&Mapping>) -> bool {
        let own = keys.and_then(|keys| keys.get("shadow").cloned());
        let own = own.is_some_and(|value| self.boolean(&format!("{path}.shadow"), &value));
        own || self.shadow
    }

    fn boolean(&mut self, path: &str, value: &Value) -> bool {
        if let Value::Bool(on) = value {
            return *on;
        }
        let accepted = Kind::Bool.accepted();
        self.problems.push(Problem { path: path.to_owned(), message: "not a boolean".to_owned(), accepted });
        false
    }

    fn scalar(&mut self, path: &str, value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                self.problems.add(path, "a number or a text is expected");
                None
            }
        }
    }

    fn parsed<T>(&mut self, path: &str, parsed: Parsed<T>, accepted: &str) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(BadValue(message)) => {
                let accepted = Some(accepted.to_owned());
                self.problems.push(Problem { path: path.to_owned(), message, accepted });
                None
            }
        }
    }

    /// None for a section that is not there.
    fn mapping(&mut self, path: &str, value: &Value) -> Option<Mapping> {
        match value {
            Value::Mapping(keys) => Some(keys.clone()),
            Value::Null => None,
            _ => {
                self.problems.add(path, "a section of keys is expected");
                None
            }
        }
    }

    fn unknown<'n>(
        &mut self,
        path: &str,
        keys: &Mapping,
        known: impl Fn(&str) -> bool,
        names: impl Iterator<Item = &'n str> + Clone,
    ) {
        for (key, _) in keys {
            match key.as_str() {
                Some(key) if known(key) => {}
                Some(key) => {
                    let near = did_you_mean(key, names.clone());
                    let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                    self.problems.add(format!("{path}.{key}"), format!("unknown key{hint}"));
                }
                None => self.problems.add(path, "a key must be a text"),
            }
        }
    }

    fn tell(&mut self, path: &str, value: Option<String>) {
        self.told.push((path.to_owned(), value.unwrap_or_else(|| "none".to_owned())));
    }
}

/// `100`, `100/s`, `5/m`, `1MiB/s`.
fn per_time(text: &str, unit: Unit) -> Parsed<(u64, Duration)> {
    let (amount, period) = text.split_once('/').unwrap_or((text, "s"));
    let period = match period.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err(BadValue::new(format!("`{text}` is not a rate"))),
    };
    let amount = number(amount.trim(), unit).map_err(|_| BadValue::new(format!("`{text}` is not a rate")))?;
    let amount = at_least_one(amount)?;
    if amount / period.as_secs() > MAX_RATE {
        return Err(BadValue::new(format!("`{text}` is more than {MAX_RATE} in a second")));
    }
    Ok((amount, period))
}

fn number(text: &str, unit: Unit) -> Parsed<u64> {
    match unit {
        Unit::Number => values::unsigned(text),
        Unit::Bytes => values::size_unsigned(text),
        Unit::Seconds => values::unsigned(text).or_else(|_| values::duration(text).map(|it| it.as_secs())),
    }
}

fn at_least_one(number: u64) -> Parsed<u64> {
    if number == 0 {
        Err(BadValue::new("0 would refuse everything; `none` lifts the limit"))
    } else {
        Ok(number)
    }
}

fn told_cap(cap: Cap, unit: Unit) -> String {
    let unit = match unit {
        Unit::Number => "",
        Unit::Bytes => " bytes",
        Unit::Seconds => " s",
    };
    format!("{}{unit}{}", cap.max, if cap.shadow { ", shadow" } else { "" })
}
