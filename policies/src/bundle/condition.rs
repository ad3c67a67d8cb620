//! Under which circumstances a row applies.

use super::instant::{Instant, MINUTES_OF_WEEK};
use super::spans::Spans;
pub use keygate_core::ConnectionKind as Connection;
use std::net::IpAddr;

/// A set of kinds of connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connections(u8);

impl Connections {
    pub const ALL: Self = Self(0b111);
    pub const NONE: Self = Self(0);

    pub fn with(self, kind: Connection) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn contains(self, kind: Connection) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    pub fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The circumstances of a request. `None` is "not told": a server tells all, a tool may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Context {
    pub source: Option<IpAddr>,
    pub now: Option<Instant>,
    pub connection: Option<Connection>,
}

/// All of them must hold. Canonical: conditions that always mean the same are equal values, but for a
/// time that no moment is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Conditions {
    /// Addresses as [`address`] numbers them; `None`: any.
    pub source: Option<Spans>,
    /// Minutes of the week in UTC; `None`: any.
    pub week: Option<Spans>,
    /// Applies from this second on.
    pub from: Instant,
    /// Applies before this second.
    pub until: Instant,
    pub connections: Connections,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            source: None,
            week: None,
            from: Instant::EARLIEST,
            until: Instant::LATEST,
            connections: Connections::ALL,
        }
    }
}

impl Conditions {
    pub fn is_unconditional(&self) -> bool {
        *self == Self::default()
    }

    /// Do they hold? `untold` is the answer where the context does not say what is asked about.
    pub fn hold(&self, context: &Context, untold: bool) -> bool {
        let source = self.source.as_ref().is_none_or(|networks| {
            context.source.map_or(untold, |source| networks.contains(address(source)))
        });
        let time = (self.from == Instant::EARLIEST && self.until == Instant::LATEST && self.week.is_none())
            || context.now.map_or(untold, |now| {
                self.from <= now
                    && (now < self.until || self.until == Instant::LATEST)
                    && self.week.as_ref().is_none_or(|week| week.contains(now.minute_of_week().into()))
            });
        let connection = self.connections == Connections::ALL
            || context.connection.map_or(untold, |kind| self.connections.contains(kind));
        source && time && connection
    }

    /// When, after `now`, their answer may change because time passes.
    pub fn next_edge(&self, now: Instant) -> Option<Instant> {
        let ends = [self.from, self.until].into_iter();
        let ends = ends.filter(|edge| *edge > now && *edge != Instant::LATEST);
        let minute = u128::from(now.minute_of_week());
        let waits = self.week.iter().flat_map(Spans::boundaries).map(|edge| {
            let week = u128::from(MINUTES_OF_WEEK);
            // The boundary that is now is the next one in a week.
            let minutes = (edge + week - minute - 1) % week + 1;
            let begun = now.0.saturating_sub(now.0.rem_euclid(60));
            Instant(begun.saturating_add(i64::try_from(minutes).unwrap_or(0) * 60))
        });
        ends.chain(waits).min()
    }

    /// Do these hold wherever `other` do?
    pub fn include(&self, other: &Self) -> bool {
        fn wider(own: Option<&Spans>, other: Option<&Spans>) -> bool {
            match (own, other) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(own), Some(other)) => own.includes(other),
            }
        }
        wider(self.source.as_ref(), other.source.as_ref())
            && wider(self.week.as_ref(), other.week.as_ref())
            && self.from <= other.from
            && other.until <= self.until
            && self.connections.includes(other.connections)
    }
}

/// The first IPv4 address as a number: IPv4 lies among IPv6 as ::ffff:0:0/96.
pub(crate) const FIRST_V4: u128 = 0xffff_0000_0000;
pub(crate) const LAST_V4: u128 = 0xffff_ffff_ffff;

/// An address as a number; an IPv4 client that a socket shows as IPv6 is the IPv4 client that it is.
pub(crate) fn address(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => FIRST_V4 + u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}
