//! What the suites stand on: real servers to run against, and scenarios that run on etcd and on
//! Keygate alike. Nothing here is part of the product.

pub mod bereft;
pub mod beside;
pub mod bundles;
pub mod crash;
pub mod differential;
pub mod harness;
