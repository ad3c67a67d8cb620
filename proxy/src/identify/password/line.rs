//! Who waits for a password thread, and whose turn it is.
//!
//! Sources take turns, and within a source its connections: whoever asks for one thing waits for one
//! of each of the others, however much they ask for. A connection has a few in line. When the line is
//! full the largest crowd gives way to a smaller one, and among equals the newcomer is refused.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::identify::{Asker, Source};

/// A client that logs in for each of its calls has one or two.
pub(super) const OF_CONNECTION: usize = 8;

pub(super) struct Line<J> {
    limit: usize,
    waiting: usize,
    crowds: HashMap<Source, Crowd<J>, ahash::RandomState>,
    turns: VecDeque<Source>,
    /// Nobody waits for its answer any more.
    is_gone: fn(&J) -> bool,
}

struct Crowd<J> {
    waiting: usize,
    queues: HashMap<SocketAddr, VecDeque<J>, ahash::RandomState>,
    turns: VecDeque<SocketAddr>,
}

impl<J> Default for Crowd<J> {
    fn default() -> Self {
        Self { waiting: 0, queues: HashMap::default(), turns: VecDeque::new() }
    }
}

/// There is no place for the newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

impl<J> Line<J> {
    pub(super) fn new(limit: usize, is_gone: fn(&J) -> bool) -> Self {
        Self { limit, waiting: 0, crowds: HashMap::default(), turns: VecDeque::new(), is_gone }
    }

    pub(super) fn push(&mut self, asker: Asker, job: J) -> Result<(), Full> {
        if self.of(asker).connection >= OF_CONNECTION || self.waiting >= self.limit {
            self.drop_gone();
        }
        let own = self.of(asker);
        if own.connection >= OF_CONNECTION || (self.waiting >= self.limit && !self.make_room(own, asker)) {
            return Err(Full);
        }
        let crowd = self.crowds.entry(asker.source).or_default();
        if crowd.waiting == 0 {
            self.turns.push_back(asker.source);
        }
        let queue = crowd.queues.entry(asker.connection).or_default();
        if queue.is_empty() {
            crowd.turns.push_back(asker.connection);
        }
        queue.push_back(job);
        crowd.waiting += 1;
        self.waiting += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<J> {
        let source = self.turns.pop_front()?;
        let crowd = self.crowds.get_mut(&source)?;
        let connection = crowd.turns.pop_front()?;
        let queue = crowd.queues.get_mut(&connection)?;
        let job = queue.pop_front()?;
        crowd.waiting -= 1;
        self.waiting -= 1;
        if queue.is_empty() {
            crowd.queues.remove(&connection);
        } else {
            crowd.turns.push_back(connection);
        }
        if crowd.waiting == 0 {
            self.crowds.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some(job)
    }

    fn of(&self, asker: Asker) -> Own {
        let Some(crowd) = self.crowds.get(&asker.source) else { return Own::default() };
        let connection = crowd.queues.get(&asker.connection).map_or(0, VecDeque::len);
        Own { source: crowd.waiting, connection }
    }

    /// Takes the last place of the largest crowd's largest queue, where that is fairer than none for
    /// the newcomer.
    fn make_room(&mut self, own: Own, asker: Asker) -> bool {
        let Some((source, crowd)) = self.crowds.iter().max_by_key(|(_, crowd)| crowd.waiting) else {
            return false;
        };
        let Some((connection, queue)) = crowd.queues.iter().max_by_key(|(_, queue)| queue.len()) else {
            return false;
        };
        let fairer = if *source == asker.source {
            queue.len() > own.connection + 1
        } else {
            crowd.waiting > own.source + 1
        };
        if !fairer {
            return false;
        }
        let (source, connection) = (*source, *connection);
        let last =
            self.crowds.get_mut(&source).and_then(|crowd| crowd.queues.get_mut(&connection)?.pop_back());
        drop(last);
        self.settle();
        true
    }

    fn drop_gone(&mut self) {
        let is_gone = self.is_gone;
        for crowd in self.crowds.values_mut() {
            for queue in crowd.queues.values_mut() {
                queue.retain(|job| !is_gone(job));
            }
        }
        self.settle();
    }

    /// Counts anew after something was taken from the middle.
    fn settle(&mut self) {
        for crowd in self.crowds.values_mut() {
            crowd.queues.retain(|_, queue| !queue.is_empty());
            crowd.turns.retain(|connection| crowd.queues.contains_key(connection));
            crowd.waiting = crowd.queues.values().map(VecDeque::len).sum();
        }
        self.crowds.retain(|_, crowd| crowd.waiting > 0);
        self.turns.retain(|source| self.crowds.contains_key(source));
        self.waiting = self.crowds.values().map(|crowd| crowd.waiting).sum();
    }
}

/// How much of the line is the newcomer's already.
#[derive(Clone, Copy, Default)]
struct Own {
    source: usize,
    connection: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(host: u8, port: u16) -> Asker {
        Asker::at(SocketAddr::from(([10, 0, 0, host], port)))
    }

    fn line(limit: usize) -> Line<(u8, u16)> {
        Line::new(limit, |_| false)
    }

    fn push(line: &mut Line<(u8, u16)>, host: u8, port: u16) -> Result<(), Full> {
        line.push(asker(host, port), (host, port))
    }

    fn rest(line: &mut Line<(u8, u16)>) -> Vec<(u8, u16)> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn who_asks_once_waits_for_one_of_each_of_the_others() {
        let mut line = line(100);
        for port in [1, 2] {
            for _ in 0..OF_CONNECTION {
                push(&mut line, 1, port).unwrap();
            }
            assert_eq!(push(&mut line, 1, port), Err(Full));
        }
        push(&mut line, 2, 1).unwrap();
        push(&mut line, 1, 3).unwrap();
        let order = rest(&mut line);
        assert_eq!(order.len(), 2 * OF_CONNECTION + 2);
        assert!(order[..2].contains(&(2, 1)), "{order:?}");
        assert!(order[..4].contains(&(1, 3)), "{order:?}");
    }

    #[test]
    fn the_largest_crowd_gives_way_when_the_line_is_full() {
        let mut line = line(8);
        for port in 1..=4 {
            push(&mut line, 1, port).unwrap();
            push(&mut line, 1, port).unwrap();
        }
        push(&mut line, 2, 1).unwrap();
        push(&mut line, 1, 5).unwrap();
        let order = rest(&mut line);
        assert_eq!(order.len(), 8);
        assert!(order.contains(&(2, 1)) && order.contains(&(1, 5)), "{order:?}");
        // All have one: nobody gives way.
        for host in 1..=8 {
            push(&mut line, host, 1).unwrap();
        }
        assert_eq!(push(&mut line, 9, 1), Err(Full));
        assert_eq!(push(&mut line, 1, 2), Err(Full));
        assert_eq!(rest(&mut line).len(), 8);
    }

    #[test]
    fn who_went_away_takes_no_place() {
        let mut line = Line::new(4, |gone: &bool| *gone);
        for port in 1..=4 {
            line.push(asker(1, port), true).unwrap();
        }
        line.push(asker(1, 9), false).unwrap();
        assert_eq!((line.pop(), line.pop()), (Some(false), None));
    }
}
