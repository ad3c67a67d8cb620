//! Draws the next step from a seed and from what the oracle has answered so far.
//!
//! Keys, users and roles come from small sets, so that steps meet: overwrites, deletes of what
//! exists, duplicate keys in one transaction, leases with many keys, users that lose a role.
//! Wrong input is as frequent as a careless client would make it.

mod auth;
mod kv;
mod model;

use std::collections::VecDeque;

use keygate_proto::etcdserverpb::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    call::{Answer, Call, Caller},
    normalise::SELF,
};
pub(super) use auth::USERS;
pub(super) use model::Model;

/// Watch streams that are open at most.
const STREAMS: usize = 3;
/// Open watchers on a stream at most.
const WATCHERS: usize = 12;

/// What the driver does next, on both sides.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Call {
        caller: Caller,
        call: Box<Call>,
    },
    /// Opens a watch stream with the sentinel watcher.
    OpenStream {
        caller: Caller,
    },
    CreateWatch {
        stream: usize,
        request: WatchCreateRequest,
    },
    CancelWatch {
        stream: usize,
        watch_id: i64,
    },
    /// A watch on a stream of its own, closed after its first answer.
    TryWatch {
        caller: Caller,
        request: WatchCreateRequest,
    },
    /// Waits until every watcher has seen everything, and compares what they saw.
    Barrier,
    CloseStreams,
}

pub(super) struct Generator {
    rng: StdRng,
    pub(super) model: Model,
    queue: VecDeque<Step>,
    since_barrier: usize,
    /// Ids that servers pick are in every hash of the store: half of the segments go without, so
    /// that hashes can be compared.
    servers_pick_leases: bool,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        let mut generator = Generator {
            rng: StdRng::seed_from_u64(seed),
            model: Model::default(),
            queue: VecDeque::new(),
            since_barrier: 0,
            servers_pick_leases: seed.is_multiple_of(2),
        };
        generator.populate();
        generator
    }

    /// Tells the generator what the oracle answered.
    pub(super) fn learn(&mut self, call: &Call, answer: &Answer) {
        let enabled = self.model.auth_on;
        self.model.learn(call, answer);
        if !enabled && self.model.auth_on {
            self.log_everyone_in();
        }
    }

    /// A step that must come before anything new.
    pub(super) fn queued(&mut self) -> Option<Step> {
        self.queue.pop_front()
    }

    pub(super) fn opened(&mut self, number: usize) {
        self.model.streams.push(model::OpenStream { number, watchers: Vec::new() });
    }

    pub(super) fn open_streams(&self) -> Vec<usize> {
        self.model.streams.iter().map(|stream| stream.number).collect()
    }

    pub(super) fn close_streams(&mut self) -> Vec<usize> {
        self.model.streams.drain(..).map(|stream| stream.number).collect()
    }

    pub(super) fn watching(&mut self, number: usize, watch_id: i64) {
        if let Some(stream) = self.model.streams.iter_mut().find(|stream| stream.number == number) {
            stream.watchers.push(watch_id);
        }
    }

    /// Whether there was such a watcher.
    pub(super) fn forget_watch(&mut self, number: usize, watch_id: i64) -> bool {
        let Some(stream) = self.model.streams.iter_mut().find(|stream| stream.number == number) else {
            return false;
        };
        let before = stream.watchers.len();
        stream.watchers.retain(|id| *id != watch_id);
        stream.watchers.len() < before
    }

    pub(super) fn next(&mut self) -> Step {
        if let Some(step) = self.queue.pop_front() {
            return step;
        }
        self.since_barrier += 1;
        if self.since_barrier > 200 {
            self.since_barrier = 0;
            return Step::Barrier;
        }
        match self.rng.random_range(0..1000) {
            0..300 => self.by_anyone(|g| Call::Range(g.range())),
            300..320 => self.by_anyone(|g| Call::RangeStream(g.range_for_stream())),
            320..560 => self.by_anyone(|g| Call::Put(g.put())),
            560..640 => self.by_anyone(|g| Call::Delete(g.delete())),
            640..790 => self.by_anyone(|g| Call::Txn(g.txn())),
            790..870 => self.lease_step(),
            870..875 => self.compaction(),
            875..890 => self.watch_step(),
            890..897 => self.maintenance(),
            _ => self.auth_step(),
        }
    }

    fn by_anyone(&mut self, call: impl FnOnce(&mut Generator) -> Call) -> Step {
        let caller = self.caller();
        Step::Call { caller, call: Box::new(call(self)) }
    }

    fn by(caller: Caller, call: Call) -> Step {
        Step::Call { caller, call: Box::new(call) }
    }

    /// Whoever may do everything at the moment.
    pub(super) fn superuser(&self) -> Caller {
        if self.model.auth_on { Caller::User(0) } else { Caller::Nobody }
    }

    fn caller(&mut self) -> Caller {
        let rare = self.chance(3);
        match (self.model.auth_on, rare) {
            (false, false) => Caller::Nobody,
            (true, false) if self.chance(65) => Caller::User(0),
            (true, false) => Caller::User(self.rng.random_range(1..USERS.len())),
            (_, true) => match self.chance(50) {
                true => Caller::Nobody,
                false => Caller::Forged,
            },
        }
    }

    /// True in `percent` of a hundred draws.
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_ratio(percent, 100)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn lease_step(&mut self) -> Step {
        let id = self.some_lease();
        match self.rng.random_range(0..100) {
            0..35 => {
                let id = match self.rng.random_range(0..100) {
                    0..20 if self.servers_pick_leases => 0,
                    20..23 => -5,
                    _ => self.rng.random_range(1..40),
                };
                if self.chance(5) {
                    return self.short_lease();
                }
                let ttl = self.pick(&[1000, 2000, 5000, 100_000, 9_000_000_000, 9_000_000_001, i64::MAX]);
                self.by_anyone(|_| Call::Grant(LeaseGrantRequest { ttl, id }))
            }
            35..55 => self.by_anyone(|_| Call::Revoke(LeaseRevokeRequest { id })),
            55..75 => {
                let keys = self.chance(60);
                self.by_anyone(|_| Call::TimeToLive(LeaseTimeToLiveRequest { id, keys }))
            }
            75..92 => self.by_anyone(|_| Call::KeepAlive(LeaseKeepAliveRequest { id })),
            _ => self.by_anyone(|_| Call::Leases(LeaseLeasesRequest {})),
        }
    }

    /// A TTL below the minimum: granted, looked at and revoked before it can run out.
    fn short_lease(&mut self) -> Step {
        let caller = self.superuser();
        // With auth on the revoke may be refused, and then the lease's end would be a matter of time.
        let ttl = if self.model.auth_on { 1000 } else { self.pick(&[0, -1, i64::MIN, 1]) };
        let id = 77;
        self.queue.push_back(Generator::by(caller, Call::Revoke(LeaseRevokeRequest { id })));
        Generator::by(caller, Call::Grant(LeaseGrantRequest { ttl, id }))
    }

    /// One that exists, mostly.
    fn some_lease(&mut self) -> i64 {
        match self.model.leases.is_empty() || self.chance(10) {
            true => self.pick(&[0, 39, 4000, -1, i64::MAX, i64::MIN]),
            false => self.model.leases[self.rng.random_range(0..self.model.leases.len())],
        }
    }

    fn compaction(&mut self) -> Step {
        let Model { revision, compacted, .. } = self.model;
        let wrong = self.chance(40);
        let target = match wrong {
            true => self.pick(&[
                revision + 1,
                revision + 100,
                compacted,
                compacted - 1,
                0,
                -1,
                i64::MAX,
                i64::MIN,
            ]),
            false => self.rng.random_range(compacted.max(revision - 300) + 1..=revision.max(compacted + 1)),
        };
        let caller = if self.chance(80) { self.superuser() } else { self.caller() };
        let call = Call::Compact(CompactionRequest { revision: target, physical: self.chance(20) });
        // A watcher that lags behind would see a compaction on one side only.
        self.queue.push_back(Generator::by(caller, call));
        Step::Barrier
    }

    fn maintenance(&mut self) -> Step {
        let revision = self.model.revision;
        match self.rng.random_range(0..100) {
            0..25 => self.by_anyone(|_| Call::Status(StatusRequest {})),
            25..40 => {
                let linearizable = self.chance(50);
                self.by_anyone(|_| Call::MemberList(MemberListRequest { linearizable }))
            }
            40..45 => self.by_anyone(|_| Call::Hash(HashRequest {})),
            45..70 => {
                let at = match self.chance(50) {
                    true => 0,
                    false => self.pick(&[
                        revision,
                        revision - 1,
                        revision - 20,
                        revision + 1,
                        1,
                        -1,
                        self.model.compacted,
                    ]),
                };
                self.by_anyone(|_| Call::HashKv(HashKvRequest { revision: at }))
            }
            70..73 => self.by_anyone(|_| Call::Defragment(DefragmentRequest {})),
            73..80 => self.by_anyone(|_| Call::Alarm(AlarmRequest::default())),
            _ => self.alarm(),
        }
    }

    /// Raises an alarm, makes a few calls under it and lifts it.
    fn alarm(&mut self) -> Step {
        let alarm =
            self.pick(&[AlarmType::Nospace, AlarmType::Nospace, AlarmType::Corrupt, AlarmType::None]) as i32;
        let member_id = self.pick(&[SELF, SELF, SELF, 0, 99]);
        let lift_all = self.chance(30);
        let caller = if self.chance(80) { self.superuser() } else { self.caller() };
        let set = |action: alarm_request::AlarmAction, member_id| {
            Call::Alarm(AlarmRequest { action: action as i32, member_id, alarm })
        };
        for _ in 0..6 {
            let place = self.queue.len();
            let step = match self.rng.random_range(0..6) {
                0 => self.by_anyone(|g| Call::Put(g.put())),
                1 => self.by_anyone(|g| Call::Txn(g.txn())),
                2 => self.by_anyone(|g| Call::Delete(g.delete())),
                3 => self.by_anyone(|g| Call::Range(g.range())),
                4 => self.by_anyone(|_| Call::Alarm(AlarmRequest::default())),
                _ => self.lease_step(),
            };
            // Before what it queued itself: a short lease is revoked after its grant.
            self.queue.insert(place, step);
        }
        let superuser = self.superuser();
        if lift_all {
            self.queue.push_back(Generator::by(superuser, set(alarm_request::AlarmAction::Deactivate, 0)));
        }
        self.queue
            .push_back(Generator::by(superuser, set(alarm_request::AlarmAction::Deactivate, member_id)));
        Generator::by(caller, set(alarm_request::AlarmAction::Activate, member_id))
    }

    fn watch_step(&mut self) -> Step {
        if self.model.streams.len() < STREAMS {
            let caller = self.superuser();
            return Step::OpenStream { caller };
        }
        let stream = self.rng.random_range(0..self.model.streams.len());
        let open = self.model.streams[stream].watchers.clone();
        let crowded = open.len() >= WATCHERS;
        if crowded || self.chance(20) {
            let watch_id = match open.is_empty() || self.rng.random_ratio(1, 20) {
                true => self.pick(&[7777, -1, -9]),
                false => open[self.rng.random_range(0..open.len())],
            };
            let stream = self.model.streams[stream].number;
            self.queue.push_back(Step::CancelWatch { stream, watch_id });
            return Step::Barrier;
        }
        let stream = self.model.streams[stream].number;
        let request = self.watch();
        // In etcd a watcher that was refused as compacted keeps its stream from ever reporting
        // progress again, and progress is what a barrier waits for.
        let is_compacted = (1..self.model.compacted).contains(&request.start_revision);
        if is_compacted || self.chance(25) {
            let caller = self.caller();
            return Step::TryWatch { caller, request };
        }
        self.queue.push_back(Step::CreateWatch { stream, request });
        Step::Barrier
    }

    fn watch(&mut self) -> WatchCreateRequest {
        let Model { revision, compacted, .. } = self.model;
        let key = self.key();
        let range_end = self.range_end(&key);
        let start_revision = match self.rng.random_range(0..100) {
            0..50 => 0,
            // Behind the horizon: what etcd shows of a deletion at the horizon itself depends on how
            // far its compaction has come.
            50..84 => self.rng.random_range((compacted + 1).max(1).min(revision)..=revision),
            84..90 => compacted - 1,
            90..95 => revision + 1,
            95..97 => 1,
            _ => self.pick(&[-1, i64::MIN, revision]),
        };
        let mut filters = Vec::new();
        if self.chance(15) {
            filters.push(self.pick(&[0, 1]));
        }
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            filters,
            progress_notify: self.chance(20),
            prev_kv: self.chance(40),
            watch_id: if self.chance(70) { 0 } else { self.rng.random_range(1..9) },
            fragment: self.chance(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease that the seconds end would end at another operation on each server.
    #[test]
    fn a_short_lease_is_revoked_at_once() {
        let mut granted = 0;
        for seed in 0..40 {
            let mut generator = Generator::new(seed);
            let mut drawn: Vec<Step> = Vec::new();
            while drawn.len() < 3_000 {
                drawn.push(generator.next());
            }
            for pair in drawn.windows(2) {
                let [Step::Call { call: grant, .. }, then] = pair else { continue };
                let Call::Grant(LeaseGrantRequest { ttl: ..=999, id }) = &**grant else { continue };
                granted += 1;
                let revoke = Call::Revoke(LeaseRevokeRequest { id: *id });
                assert!(
                    matches!(then, Step::Call { call, .. } if **call == revoke),
                    "seed {seed}: lease {id} is left to time"
                );
            }
        }
        assert!(granted > 100, "only {granted} short leases were drawn");
    }
}
