//! Disjoint stretches of keys, each with the first row that holds it.
//!
//! Unlike in [`crate::interval`], stretches of different rows stay apart, so that a decision can name its
//! row; a stretch knows where the run that it touches ends, so that one search still answers.

use bytes::Bytes;
use keygate_core::KeyRange;
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Position of a row in its bundle.
pub type RowId = u32;

/// The end of a stretch. `Open` lies behind every key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum End {
    Before(Bytes),
    Open,
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Before(a), Self::Before(b)) => a.cmp(b),
            (Self::Before(_), Self::Open) => Ordering::Less,
            (Self::Open, Self::Before(_)) => Ordering::Greater,
            (Self::Open, Self::Open) => Ordering::Equal,
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl End {
    /// The end of a range that holds a key; that of one that holds none is the end of its start alone,
    /// because such a range is decided as the key that it starts with.
    pub(crate) fn of(range: &KeyRange) -> Self {
        match range {
            KeyRange::Span { end, .. } if !range.is_empty() => Self::Before(end.clone()),
            KeyRange::Single(key) | KeyRange::Span { start: key, .. } => Self::Before(successor(key)),
            KeyRange::From(_) => Self::Open,
        }
    }

    pub(crate) fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}

/// The next byte string after a key.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}

/// The interval from a key to an end, in the form that says it shortest.
pub(crate) fn range_of(start: Bytes, end: &End) -> KeyRange {
    match end {
        End::Open => KeyRange::From(start),
        End::Before(end) if *end == successor(&start) => KeyRange::Single(start),
        End::Before(end) => KeyRange::Span { start, end: end.clone() },
    }
}

#[derive(Clone, Debug)]
struct Segment {
    start: Bytes,
    end: End,
    row: RowId,
    /// Index of the last segment of those that touch one another from here on.
    run: u32,
}

/// A set of keys that remembers rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments(Box<[Segment]>);

impl Segments {
    /// Where several rows hold a key, the first of the bundle counts.
    pub(crate) fn new(rows: &mut [(RowId, &KeyRange)]) -> Self {
        rows.sort_by(|a, b| a.1.start().cmp(b.1.start()).then(a.0.cmp(&b.0)));
        let mut segments: Vec<Segment> = Vec::with_capacity(rows.len());
        // Rows that are open at the sweep's place, the first of the bundle in front.
        let mut open: BTreeSet<(RowId, End)> = BTreeSet::new();
        let mut at = Bytes::new();
        let mut next = rows.iter().peekable();
        loop {
            // Rows that are over behind the first one wait until they are the first.
            while open.first().is_some_and(|(_, end)| !end.is_behind(&at)) {
                open.pop_first();
            }
            let upcoming = next.peek().map(|row| row.1.start().clone());
            match (open.first(), upcoming) {
                (None, None) => break,
                (None, Some(start)) => at = start,
                (Some((row, end)), upcoming) => {
                    let stop = match upcoming {
                        Some(start) if end.is_behind(&start) => End::Before(start),
                        _ => end.clone(),
                    };
                    push(&mut segments, at, stop.clone(), *row);
                    match stop {
                        End::Open => break,
                        End::Before(stop) => at = stop,
                    }
                }
            }
            while let Some((row, range)) = next.next_if(|row| *row.1.start() == at) {
                open.insert((*row, End::of(range)));
            }
        }
        let mut run = segments.len();
        for index in (0..segments.len()).rev() {
            let touches = segments
                .get(index + 1)
                .is_some_and(|after| segments[index].end == End::Before(after.start.clone()));
            if !touches {
                run = index;
            }
            segments[index].run = u32::try_from(run).unwrap_or(u32::MAX);
        }
        Self(segments.into_boxed_slice())
    }

    /// The row that holds `key`, and where the keys that the set holds from there on end.
    pub(crate) fn holding(&self, key: &[u8]) -> Option<(RowId, &End)> {
        let behind = self.0.partition_point(|own| own.start.as_ref() <= key);
        let own = self.0.get(behind.checked_sub(1)?)?;
        if !own.end.is_behind(key) {
            return None;
        }
        Some((own.row, &self.0.get(own.run as usize)?.end))
    }

    /// The first row that holds a key of `[start, end)`.
    pub(crate) fn first_in(&self, start: &[u8], end: &End) -> Option<RowId> {
        let behind = self.0.partition_point(|own| own.start.as_ref() <= start);
        if let Some(own) = behind.checked_sub(1).and_then(|at| self.0.get(at))
            && own.end.is_behind(start)
        {
            return Some(own.row);
        }
        self.0.get(behind).filter(|own| end.is_behind(&own.start)).map(|own| own.row)
    }

    /// Everything that the set holds, ascending; neighbours may touch.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Bytes, End)> {
        self.0.iter().map(|own| (own.start.clone(), own.end.clone()))
    }

    /// Stretches of `[start, end)` that the set holds, with their rows.
    pub(crate) fn within<'a>(
        &'a self,
        start: &'a [u8],
        end: &'a End,
    ) -> impl Iterator<Item = (&'a [u8], &'a End, RowId)> {
        let first = self.0.partition_point(|own| !own.end.is_behind(start));
        self.0[first..]
            .iter()
            .take_while(move |own| end.is_behind(&own.start))
            .map(move |own| (own.start.as_ref().max(start), (&own.end).min(end), own.row))
    }
}

fn push(segments: &mut Vec<Segment>, start: Bytes, end: End, row: RowId) {
    if let Some(last) = segments.last_mut()
        && last.row == row
        && last.end == End::Before(start.clone())
    {
        last.end = end;
        return;
    }
    segments.push(Segment { start, end, row, run: 0 });
}
