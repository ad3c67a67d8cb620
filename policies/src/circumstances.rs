//! All circumstances, cut into boxes within which no condition of a given few changes its answer.
//!
//! A box is written as [`Conditions`]: the product of addresses, times and kinds of connection. Boxes that no
//! moment is in (a window of the week that an interval does not reach) are left out.

use crate::bundle::{Conditions, Connection, Connections, Context, Instant, Spans};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const WEEK: u128 = 7 * 24 * 60;
const FIRST_V4: u128 = 0xffff_0000_0000;

/// A box, and one circumstance in it.
#[derive(Clone, Debug)]
pub(crate) struct Circumstance {
    pub(crate) within: Conditions,
    pub(crate) example: Context,
}

/// More boxes than a server looks at, where rows come from whom it does not trust. Each kind of condition multiplies them.
const MANY: usize = 10_000;
/// Different conditions of one kind, likewise.
const MANY_CONDITIONS: usize = 500;

/// The boxes of all circumstances, with respect to these conditions, unless there are too many to look at.
pub(crate) fn few_boxes<'a>(
    conditions: impl Iterator<Item = &'a Conditions> + Clone,
) -> Option<Vec<Circumstance>> {
    let different: BTreeSet<&Conditions> = conditions.take(MANY_CONDITIONS * MANY_CONDITIONS).collect();
    if different.len() > MANY_CONDITIONS {
        return None;
    }
    let kinds = Kinds::of(different.iter().copied());
    (kinds.boxes() <= MANY).then(|| kinds.product())
}

/// The same where the caller says whether so many looks at conditions, and so many boxes, are too many.
pub(crate) fn boxes_if<'a>(
    conditions: impl Iterator<Item = &'a Conditions> + Clone,
    mut affords: impl FnMut(usize, usize) -> Option<()>,
) -> Option<Vec<Circumstance>> {
    let places = |spans: &Option<Spans>| spans.as_ref().map_or(0, |spans| 2 * spans.spans().len());
    let places = conditions.clone().map(|own| 4 + places(&own.source) + places(&own.week)).sum::<usize>();
    affords(places.saturating_mul(conditions.clone().count()), 0)?;
    let kinds = Kinds::of(conditions);
    affords(0, kinds.boxes())?;
    Some(kinds.product())
}

/// The boxes of all circumstances, with respect to these conditions.
pub(crate) fn boxes<'a>(conditions: impl Iterator<Item = &'a Conditions> + Clone) -> Vec<Circumstance> {
    Kinds::of(conditions).product()
}

/// What boxes are the product of.
struct Kinds {
    sources: Vec<Option<Spans>>,
    weeks: Vec<Option<Spans>>,
    times: Vec<(Instant, Instant)>,
    connections: Vec<Connections>,
}

impl Kinds {
    fn of<'a>(conditions: impl Iterator<Item = &'a Conditions> + Clone) -> Self {
        Self {
            sources: parts(conditions.clone().filter_map(|own| own.source.as_ref()), u128::MAX),
            weeks: parts(conditions.clone().filter_map(|own| own.week.as_ref()), WEEK - 1),
            times: intervals(conditions.clone()),
            connections: kinds(conditions),
        }
    }

    fn boxes(&self) -> usize {
        let lengths = [self.weeks.len(), self.times.len(), self.connections.len()];
        lengths.into_iter().fold(self.sources.len(), usize::saturating_mul)
    }

    fn product(&self) -> Vec<Circumstance> {
        let Self { sources, weeks, times, connections: kinds } = self;
        let mut boxes = Vec::new();
        for source in sources {
            for week in weeks {
                for (from, until) in times {
                    let Some(now) = moment_in(*from, *until, week.as_ref()) else { continue };
                    for connections in kinds {
                        let kind = Connection::ALL.into_iter().find(|kind| connections.contains(*kind));
                        boxes.push(Circumstance {
                            within: Conditions {
                                source: source.clone(),
                                week: week.clone(),
                                from: *from,
                                until: *until,
                                connections: *connections,
                            },
                            example: Context {
                                source: Some(address_in(source.as_ref())),
                                now: Some(now),
                                connection: kind,
                            },
                        });
                    }
                }
            }
        }
        boxes
    }
}

/// Numbers up to `last`, grouped by which sets hold them. Without sets there is one part, everything.
fn parts<'a>(sets: impl Iterator<Item = &'a Spans>, last: u128) -> Vec<Option<Spans>> {
    let sets: BTreeSet<&Spans> = sets.collect();
    if sets.is_empty() {
        return vec![None];
    }
    let mut starts: BTreeSet<u128> =
        sets.iter().flat_map(|set| set.boundaries()).filter(|at| *at <= last).collect();
    starts.insert(0);
    let starts: Vec<u128> = starts.into_iter().collect();
    let mut grouped: BTreeMap<Vec<bool>, Vec<(u128, u128)>> = BTreeMap::new();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(last, |next| next - 1);
        let held = sets.iter().map(|set| set.contains(*start)).collect();
        grouped.entry(held).or_default().push((*start, end));
    }
    grouped.into_values().map(|spans| whole(Spans::new(spans), last)).collect()
}

fn whole(spans: Spans, last: u128) -> Option<Spans> {
    (spans.spans() != [(0, last)]).then_some(spans)
}

fn intervals<'a>(conditions: impl Iterator<Item = &'a Conditions>) -> Vec<(Instant, Instant)> {
    let mut edges: BTreeSet<Instant> = conditions.flat_map(|own| [own.from, own.until]).collect();
    edges.extend([Instant::EARLIEST, Instant::LATEST]);
    let edges: Vec<Instant> = edges.into_iter().collect();
    edges.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect()
}

fn kinds<'a>(conditions: impl Iterator<Item = &'a Conditions>) -> Vec<Connections> {
    let sets: BTreeSet<Connections> = conditions.map(|own| own.connections).collect();
    let mut grouped: BTreeMap<Vec<bool>, Connections> = BTreeMap::new();
    for kind in Connection::ALL {
        let held = sets.iter().map(|set| set.contains(kind)).collect();
        let group = grouped.entry(held).or_insert(Connections::NONE);
        *group = group.with(kind);
    }
    grouped.into_values().collect()
}

fn address_in(source: Option<&Spans>) -> IpAddr {
    let number = source.and_then(|spans| spans.spans().first()).map_or(FIRST_V4, |(first, _)| *first);
    match u32::try_from(number.wrapping_sub(FIRST_V4)) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(number).into(),
    }
}

/// A moment of `[from, until)` within these minutes of the week.
fn moment_in(from: Instant, until: Instant, week: Option<&Spans>) -> Option<Instant> {
    let week_seconds = WEEK as i64 * 60;
    let start = match (from, until) {
        (Instant::EARLIEST, Instant::LATEST) => Instant(0),
        // Two weeks have every minute of the week in them.
        (Instant::EARLIEST, Instant(until)) => Instant(until.saturating_sub(2 * week_seconds)),
        (from, _) => from,
    };
    let Some(week) = week else { return (start < until).then_some(start) };
    if week.contains(start.minute_of_week().into()) {
        return (start < until).then_some(start);
    }
    let minute = i64::from(start.minute_of_week());
    let waits = week.spans().iter().filter_map(|(low, _)| {
        let ahead = (i64::try_from(*low).ok()? - minute).rem_euclid(WEEK as i64);
        // From the beginning of the minute that `start` is in.
        start.0.checked_sub(start.0.rem_euclid(60))?.checked_add(ahead * 60)
    });
    waits.min().map(Instant).filter(|found| *found < until)
}

/// The same circumstances in fewer boxes: those that differ in one thing only become one, thing by thing,
/// until nothing joins any more.
pub(crate) fn joined(mut boxes: Vec<Conditions>) -> Vec<Conditions> {
    loop {
        let before = boxes.len();
        // What is left out reads worst for addresses and best for connections, so these come last.
        boxes = joined_by(
            boxes,
            |own| own.source = None,
            |into, other| {
                into.source = union(into.source.as_ref(), other.source.as_ref(), u128::MAX);
            },
        );
        boxes = joined_by(
            boxes,
            |own| own.week = None,
            |into, other| {
                into.week = union(into.week.as_ref(), other.week.as_ref(), WEEK - 1);
            },
        );
        boxes = joined_times(boxes);
        boxes = joined_by(
            boxes,
            |own| own.connections = Connections::NONE,
            |into, other| {
                into.connections = into.connections.union(other.connections);
            },
        );
        if boxes.len() == before {
            boxes.sort();
            return boxes;
        }
    }
}

/// Joins boxes that are equal but for what `forget` takes away.
fn joined_by(
    boxes: Vec<Conditions>,
    forget: impl Fn(&mut Conditions),
    join: impl Fn(&mut Conditions, &Conditions),
) -> Vec<Conditions> {
    let mut grouped: BTreeMap<Conditions, Conditions> = BTreeMap::new();
    for own in boxes {
        let mut rest = own.clone();
        forget(&mut rest);
        match grouped.entry(rest) {
            Entry::Vacant(place) => drop(place.insert(own)),
            Entry::Occupied(mut place) => join(place.get_mut(), &own),
        }
    }
    grouped.into_values().collect()
}

fn union(a: Option<&Spans>, b: Option<&Spans>, last: u128) -> Option<Spans> {
    whole(a?.union(b?), last)
}

/// Joins intervals that follow each other in boxes that are equal else.
fn joined_times(mut boxes: Vec<Conditions>) -> Vec<Conditions> {
    let others = |own: &Conditions| (own.source.clone(), own.week.clone(), own.connections);
    boxes.sort_by_cached_key(|own| (others(own), own.from));
    let mut joined: Vec<Conditions> = Vec::with_capacity(boxes.len());
    for own in boxes {
        match joined.last_mut() {
            Some(last) if others(last) == others(&own) && last.until == own.from => last.until = own.until,
            _ => joined.push(own),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Conditions {
        let row = format!("p, user:u, t, *, read, allow, {text}\n");
        let mut files = crate::bundle::Files::default();
        files.insert("policy.csv", row.into_bytes());
        (*crate::bundle::Draft::read(&files).rows[0].conditions).clone()
    }

    #[test]
    fn boxes_cover_everything_and_join_to_it_again() {
        let conditions = [
            read("source=10.0.0.0/8;until=2026-01-01T00:00:00Z"),
            read("time=Mon-Fri@08:00-18:00;connection=mtls"),
            read("source=10.1.0.0/16"),
        ];
        let boxes = boxes(conditions.iter());
        // Three kinds of address, two of minutes, two times, two kinds of connection.
        assert_eq!(boxes.len(), 24);
        for own in &boxes {
            assert!(own.within.hold(&own.example, false), "{own:?}");
            for conditions in &conditions {
                assert_eq!(conditions.hold(&own.example, false), conditions.include(&own.within), "{own:?}");
            }
        }
        let all = joined(boxes.into_iter().map(|own| own.within).collect());
        assert_eq!(all, [Conditions::default()]);
    }

    #[test]
    fn a_product_that_nobody_can_look_at_is_not_made() {
        let some: Vec<Conditions> = (0..30)
            .map(|at| {
                let (address, minute) = (format!("10.0.{at}.0/24"), format!("08:{at:02}-09:00"));
                read(&format!("source={address};time=Mon@{minute};from=2026-03-{:02}T00:00:00Z", at + 1))
            })
            .collect();
        assert!(few_boxes(some.iter()).is_none());
        let few = few_boxes(some.iter().take(4)).unwrap();
        assert_eq!(few.len(), boxes(some.iter().take(4)).len());
    }

    #[test]
    fn windows_that_an_interval_does_not_reach_are_left_out() {
        // A Monday from eight to nine; the window is on Tuesdays.
        let conditions =
            [read("from=2026-03-02T08:00:00Z;until=2026-03-02T09:00:00Z"), read("time=Tue@08:00-09:00")];
        let boxes = boxes(conditions.iter());
        assert_eq!(boxes.len(), 5);
        assert!(
            boxes
                .iter()
                .all(|own| !(conditions[0].include(&own.within) && conditions[1].include(&own.within)))
        );
    }
}
