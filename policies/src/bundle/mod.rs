//! Policy bundles: files in, checked rows out. `docs/formats/bundle.md` is the format.
//!
//! [`Draft::read`] takes a bundle apart and keeps what could be read beside every [`Finding`]; a [`Bundle`] is a
//! draft without errors, and the only thing that is ever compiled. Nothing here panics, whatever the bytes.

mod condition;
mod condition_text;
mod csv;
mod draft;
mod escape;
mod files;
mod finding;
mod instant;
mod manifest;
mod pattern;
mod request;
mod roles;
mod row;
mod row_text;
mod signature;
mod spans;
mod test_case;

pub use condition::{Conditions, Connection, Connections, Context};
pub use draft::{Bundle, Draft};
pub use escape::escape;
pub use files::{Files, FilesError};
pub use finding::{Finding, Rule, Severity};
pub use instant::Instant;
pub use manifest::Manifest;
pub(crate) use pattern::is_prefix;
pub use pattern::{RangeText, key_range};
pub use request::{Request, RequestError};
pub use row::{Action, Effect, Link, OnPartial, Row, RowAction, Subject, Tenant, Verb};
pub use signature::{SignatureError, SigningKey, VerifyingKey, verify};
pub use spans::Spans;
pub use test_case::{Filtered, TestCase};
