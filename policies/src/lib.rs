//! Who may do what: casbin's model defines it, a compiled form answers it.
//!
//! `model/model.conf` is the definition. casbin loads and validates it when the server starts and
//! answers for it in tests; [`CompiledPolicy`] implements the same decisions over interval sets of
//! byte keys and is all that requests meet. A differential test holds the two equal.
//!
//! Policy bundles are the second form: [`bundle`] reads and refuses them, [`BundlePolicy`] decides by them (again
//! without casbin, again held equal to it), [`lint()`], [`run_tests`], [`diff()`], [`who_can`] and
//! [`BundlePolicy::explain`] are the operator's tools over them.
//!
//! This is the only crate that names casbin, and only `model` does. Nothing looks at a clock; only
//! `bundle::Files` reads files.

pub mod bundle;
mod circumstances;
mod compiled;
mod compiler;
mod decision;
mod diff;
mod explain;
mod group;
mod interval;
mod lint;
mod membership;
mod recovering;

mod model;
mod rows;
mod segments;
mod serving;
mod sights;
mod tables;
mod testing;
mod who;

pub use compiled::CompiledPolicy;
pub use compiler::Compiler;
pub use decision::{Asker, BundlePolicy, Decision, Outcome};
pub use diff::{Delta, Newcomers, diff, gains, newcomers};
pub use explain::{Explanation, Missing, Nearest};
pub use lint::lint;
pub use model::{BUNDLE_MODEL, BundleModelError, BundleOracle, OracleAnswer, OracleCaller};
pub use model::{Model, ModelError, Oracle, validate};
pub use rows::{RowError, rows};
pub use segments::RowId;
pub use serving::{Trust, digest_of_tar};
pub use tables::rows_of_tables;
pub use testing::{Failure, Report, run_tests};
pub use who::{Holder, who_can};

/// The model that this server implements.
pub const MODEL: &str = include_str!("../model/model.conf");
