//! casbin's part: it reads `model.conf`, holds rows against it and says what a decision must be.
//!
//! Nothing that serves requests comes here. At start the model is loaded and compared with what the
//! compiled form implements; rows are validated when an operator asks; [`Oracle`] answers tests.

mod bundle;

use crate::rows;
use casbin::rhai::Dynamic;
use casbin::{CoreApi, DefaultModel, Enforcer, Model as _};
use keygate_core::{Access, AuthTables, KeyAction, KeyRange, KeyspaceId};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use thiserror::Error;

pub(crate) use bundle::check_bundle_model;
pub use bundle::{BUNDLE_MODEL, BundleModelError, BundleOracle, OracleAnswer, OracleCaller};

/// The model is not the one that compiled policies implement.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ModelError {
    #[error("model cannot be loaded: {cause}")]
    Unreadable { cause: String },
    #[error("model has no `{section}`")]
    Missing { section: &'static str },
    #[error("model's `{section}` is `{found}`, which is not supported: it must be `{expected}`")]
    Unsupported { section: &'static str, found: String, expected: &'static str },
    #[error("model has a `{section}` section, which is not supported")]
    Surplus { section: String },
    #[error("rows do not fit the model: {cause}")]
    Rows { cause: String },
    #[error("model answers the question `{question}` wrongly")]
    SelfTest { question: &'static str },
}

/// Lines of a model, as casbin holds them after loading, with blanks squeezed.
const SUPPORTED: [(&str, &str); 5] = [
    ("r", "sub, dom, obj, act"),
    ("p", "sub, dom, start, end, act"),
    ("g", "_, _, _"),
    ("e", "some(where (p_eft == allow))"),
    (
        "m",
        "g(r_sub, \"role:root\", r_dom) \
         || g(r_sub, p_sub, r_dom) && r_dom == p_dom && includes(p_act, r_act) && covers(p_start, p_end, r_obj) \
         || g(r_sub, \"users\", r_dom) && r_act == \"user-record\" && r_obj == r_sub \
         || g(r_sub, r_obj, r_dom) && r_act == \"role-record\"",
    ),
];

/// A loaded model that is known to be supported.
#[derive(Clone)]
pub struct Model(DefaultModel);

impl Model {
    pub fn load(text: &str) -> Result<Self, ModelError> {
        let model = at_once(DefaultModel::from_str(text))
            .map_err(|cause| ModelError::Unreadable { cause: cause.to_string() })?;
        let sections = model.get_model();
        for (section, expected) in SUPPORTED {
            let definition = sections
                .get(section)
                .and_then(|definitions| definitions.get(section))
                .ok_or(ModelError::Missing { section })?;
            // casbin joins continued lines without a blank.
            let spaced = definition.value.replace("||", " || ");
            let found = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
            if found != expected {
                return Err(ModelError::Unsupported { section, found, expected });
            }
        }
        // A second request or policy definition would change nothing here, yet mean something to its author.
        let known = |name: &str| SUPPORTED.iter().any(|(section, _)| *section == name);
        match sections.values().flat_map(|definitions| definitions.keys()).find(|name| !known(name)) {
            Some(section) => Err(ModelError::Surplus { section: section.clone() }),
            None => Ok(Self(model)),
        }
    }

    /// Asks casbin a few questions whose answers are certain.
    pub(crate) fn self_test(&self) -> Result<(), ModelError> {
        let rows = [
            ["p", "role:r", "keyspace:1", "62", "64", "read"].map(str::to_owned).to_vec(),
            ["g", "user:u", "role:r", "keyspace:1"].map(str::to_owned).to_vec(),
        ];
        let enforcer = self.enforcer(&rows)?;
        let questions = [
            ("a key inside a granted range", ["user:u", "keyspace:1", "63", "read"], true),
            ("the key behind a granted range", ["user:u", "keyspace:1", "64", "read"], false),
            ("another action", ["user:u", "keyspace:1", "63", "write"], false),
            ("another keyspace", ["user:u", "keyspace:2", "63", "read"], false),
            ("another user", ["user:r", "keyspace:1", "63", "read"], false),
        ];
        for (question, request, expected) in questions {
            let found = enforcer.enforce(request.map(str::to_owned).to_vec());
            if !found.is_ok_and(|found| found == expected) {
                return Err(ModelError::SelfTest { question });
            }
        }
        Ok(())
    }

    fn enforcer(&self, rows: &[Vec<String>]) -> Result<Enforcer, ModelError> {
        let broken = |cause: casbin::Error| ModelError::Rows { cause: cause.to_string() };
        let mut model = self.0.clone();
        for row in rows {
            let Some((kind, columns)) = row.split_first() else {
                return Err(ModelError::Rows { cause: "a row is empty".to_owned() });
            };
            let width = match kind.as_str() {
                "p" => 5,
                "g" => 3,
                // casbin drops such rows without a word.
                _ => return Err(ModelError::Rows { cause: format!("unknown kind of row `{kind}`") }),
            };
            if columns.len() != width {
                let cause = format!("a `{kind}` row has {} columns instead of {width}", columns.len());
                return Err(ModelError::Rows { cause });
            }
            model.add_policy(kind, kind, columns.to_vec());
        }
        // Without an adapter nothing is loaded afterwards, so the rows above stay.
        let mut enforcer = at_once(Enforcer::new_raw(model, ())).map_err(broken)?;
        enforcer.add_function("covers", casbin::function_map::OperatorFunction::Arg3(covers));
        enforcer.add_function("includes", casbin::function_map::OperatorFunction::Arg2(includes));
        enforcer.build_role_links().map_err(broken)?;
        Ok(enforcer)
    }
}

/// Do casbin and the model accept these tables, and do the rows say what the tables say?
pub fn validate(keyspace: KeyspaceId, tables: &AuthTables) -> Result<(), rows::RowError> {
    rows::check(tables)?;
    Model::load(crate::MODEL)?.enforcer(&rows::rows(keyspace, tables))?;
    Ok(())
}

/// Asks casbin what a decision must be. Slow, and for tests and operators only.
pub struct Oracle {
    keyspace: KeyspaceId,
    enforcer: Enforcer,
    /// Every byte string at which the answer may change, ascending.
    boundaries: BTreeSet<Vec<u8>>,
}

impl Oracle {
    pub fn new(keyspace: KeyspaceId, tables: &AuthTables) -> Result<Self, ModelError> {
        let enforcer = Model::load(crate::MODEL)?.enforcer(&rows::rows(keyspace, tables))?;
        let ranges = tables.roles.values().flat_map(|role| &role.permissions).map(|row| &row.range);
        Ok(Self { keyspace, enforcer, boundaries: ranges.flat_map(boundaries).collect() })
    }

    /// Cuts `range` at every boundary, asks about the first key of each piece, and wants all allowed.
    pub fn allows_keys(&self, user: &str, action: KeyAction, range: &KeyRange) -> Result<bool, ModelError> {
        let first: &[u8] = range.start();
        let inside = |key: &&[u8]| first < *key && range.contains(key);
        let pieces = self.boundaries.iter().map(Vec::as_slice).filter(inside);
        for key in std::iter::once(first).chain(pieces) {
            if !self.ask(user, rows::hex(key), rows::action(action))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub fn allows_other(&self, user: &str, access: &Access) -> Result<bool, ModelError> {
        let (object, action) = match access {
            Access::Open => return Ok(true),
            Access::Authenticated => (rows::user_name(user), "user-record"),
            Access::Keys { action, range } => return self.allows_keys(user, *action, range),
            Access::Admin(verb) if verb.is_of_every_user() => (rows::user_name(user), "user-record"),
            Access::KeysOfLease { .. }
            | Access::KeysOfAllLeases { .. }
            | Access::Grant(_)
            | Access::Admin(_) => (String::new(), "admin"),
            Access::UserRecord(name) => (rows::user_name(name), "user-record"),
            Access::RoleRecord(name) => (rows::role_name(name), "role-record"),
        };
        self.ask(user, object, action)
    }

    fn ask(&self, user: &str, object: String, action: &str) -> Result<bool, ModelError> {
        let request = vec![rows::user_name(user), rows::domain(self.keyspace), object, action.to_owned()];
        self.enforcer.enforce(request).map_err(|cause| ModelError::Rows { cause: cause.to_string() })
    }
}

fn boundaries(range: &KeyRange) -> Vec<Vec<u8>> {
    let start = range.start().to_vec();
    match range {
        KeyRange::Single(key) => vec![start, [key.as_ref(), b"\0"].concat()],
        KeyRange::Span { end, .. } => vec![start, end.to_vec()],
        KeyRange::From(_) => vec![start],
    }
}

/// The model's `covers(p.start, p.end, r.obj)`. Hex texts are compared as texts; their order is that
/// of the bytes.
fn covers(start: Dynamic, end: Dynamic, key: Dynamic) -> Dynamic {
    let (start, end, key) = (text(&start), text(&end), text(&key));
    match end.as_ref() {
        "" => key == start,
        "00" => start <= key,
        end => start <= key && key.as_ref() < end,
    }
    .into()
}

/// The model's `includes(p.act, r.act)`.
fn includes(row: Dynamic, action: Dynamic) -> Dynamic {
    let (row, action) = (text(&row), text(&action));
    matches!(
        (row.as_ref(), action.as_ref()),
        ("read" | "readwrite", "read") | ("write" | "readwrite", "write")
    )
    .into()
}

/// The same for bundles, whose rows also name administrative actions.
fn includes_verbs(row: Dynamic, action: Dynamic) -> Dynamic {
    let same = text(&row) == text(&action);
    if same { same.into() } else { includes(row, action) }
}

fn text(value: &Dynamic) -> Cow<'_, str> {
    casbin::function_map::dynamic_to_str(value)
}

/// Runs a future of casbin's to its end. Without files and adapters none of them waits, so no runtime
/// is needed and this may be called inside of one.
fn at_once<T>(future: impl Future<Output = casbin::Result<T>>) -> casbin::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(casbin::error::ModelError::Other("loading waited for I/O".to_owned()).into()),
    }
}
