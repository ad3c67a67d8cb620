//! Makes each step on both sides and compares.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use keygate_proto::etcdserverpb::{PutRequest, WatchCreateRequest};
use tokio::task::JoinSet;

use super::{
    allowance,
    call::{Answer, Call, Caller, Reply},
    generate::{Generator, Step},
    normalise,
    report::Report,
    scenario,
    side::{Side, Tamper},
    watch::{self, Control, Item, Log, Stream},
};
use crate::harness::Program;

/// Every stream watches this key too: its event is the last that a barrier waits for.
const SENTINEL: &[u8] = b"~sentinel";
const SENTINEL_WATCH: i64 = 1_000_000;

/// Two at once keep both servers and this process busy on two cores.
const SEGMENTS_AT_ONCE: usize = 2;

/// What to run.
#[derive(Clone, Debug)]
pub struct Contest {
    pub oracle: Program,
    pub subject: Program,
    /// The first segment's; the next ones count on.
    pub seed: u64,
    /// In all segments together, at least.
    pub operations: usize,
    /// Of one pair of servers.
    pub segment: usize,
    /// Lies that the subject's answers are given.
    pub tamper: Option<Tamper>,
    /// Tags of the differences that may occur.
    pub documented: BTreeSet<String>,
}

/// Runs the contest to its end or until the differences are hopeless.
pub async fn run(contest: Contest) -> Result<Report> {
    let length = Length { seed: contest.seed, operations: contest.operations, segment: contest.segment };
    let contest = Arc::new(contest);
    in_segments(length, |seed| {
        let contest = Arc::clone(&contest);
        async move { segment(&contest, seed).await }
    })
    .await
}

/// How much of a contest there is, see [`Contest`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    pub(super) seed: u64,
    pub(super) operations: usize,
    pub(super) segment: usize,
}

/// Runs segments, each of the next seed, until there are enough operations or the differences are hopeless.
pub(super) async fn in_segments<F>(length: Length, segment: impl Fn(u64) -> F) -> Result<Report>
where
    F: Future<Output = Result<Report>> + Send + 'static,
{
    let mut report = Report::default();
    let mut running = JoinSet::new();
    let mut seed = length.seed;
    loop {
        // A segment in which a documented difference changed the state ends early; more follow.
        let promised = report.operations + running.len() * length.segment;
        if promised < length.operations && running.len() < SEGMENTS_AT_ONCE && !report.is_hopeless() {
            let (this, segment) = (seed, segment(seed));
            running.spawn(Box::pin(async move { segment.await.with_context(|| format!("seed {this}")) }));
            seed += 1;
        } else if let Some(segment) = running.join_next().await {
            report.merge(segment??);
        } else {
            break;
        }
    }
    Ok(report)
}

async fn segment(contest: &Contest, seed: u64) -> Result<Report> {
    let oracle = Side::start(contest.oracle, None).await?;
    let subject = Side::start(contest.subject, contest.tamper).await?;
    Arena::new(oracle, subject, seed, &contest.documented).play(contest.segment).await
}

/// Two servers and what is known about them.
pub(super) struct Arena<'a> {
    pub(super) oracle: Side,
    pub(super) subject: Side,
    pub(super) generator: Generator,
    pub(super) report: Report,
    pub(super) listed: &'a BTreeSet<String>,
    seed: u64,
    /// The two states are no longer the same: whatever follows would be noise.
    diverged: bool,
    /// Of the oracle.
    last_refusal: String,
}

impl<'a> Arena<'a> {
    pub(super) fn new(oracle: Side, subject: Side, seed: u64, listed: &'a BTreeSet<String>) -> Arena<'a> {
        Arena {
            oracle,
            subject,
            generator: Generator::new(seed),
            report: Report::default(),
            listed,
            seed,
            diverged: false,
            last_refusal: String::new(),
        }
    }

    /// At least so many operations, then what is still to be seen, then the short stories.
    pub(super) async fn play(mut self, operations: usize) -> Result<Report> {
        while self.report.operations < operations && !self.diverged {
            let step = self.generator.next();
            self.step(step).await?;
        }
        while let (false, Some(step)) = (self.diverged, self.generator.queued()) {
            self.step(step).await?;
        }
        if !self.diverged {
            self.step(Step::Barrier).await?;
            self.step(Step::CloseStreams).await?;
            scenario::leases_expire(&mut self).await?;
            scenario::permission_is_revoked_under_a_watch(&mut self).await?;
        }
        Ok(self.report)
    }

    pub(super) async fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Call { caller, call } => self.call(caller, *call).await.map(drop),
            Step::OpenStream { caller } => {
                let number = self.open(caller, sentinel()).await?;
                self.generator.opened(number);
                Ok(())
            }
            Step::CreateWatch { stream, request } => self.create(stream, request).await,
            Step::CancelWatch { stream, watch_id } => self.cancel(stream, watch_id).await,
            Step::TryWatch { caller, request } => self.try_watch(caller, request).await,
            Step::Barrier => self.barrier().await,
            Step::CloseStreams => {
                for number in self.generator.close_streams() {
                    self.oracle.streams.close(number);
                    self.subject.streams.close(number);
                }
                Ok(())
            }
        }
    }

    /// Makes one call on both sides; the oracle's answer, when it was no refusal.
    pub(super) async fn call(&mut self, caller: Caller, call: Call) -> Result<Option<Reply>> {
        self.report.operations += 1;
        *self.report.calls.entry(call.name()).or_default() += 1;
        let (mut oracle, mut subject) =
            tokio::join!(self.oracle.call(call.clone(), caller), self.subject.call(call.clone(), caller));
        if let (Call::Grant(request), Some(Reply::Grant(theirs)), Some(Reply::Grant(ours))) =
            (&call, oracle.ok(), subject.ok())
            && request.id == 0
        {
            self.oracle.same_lease(theirs.id, theirs.id);
            self.subject.same_lease(theirs.id, ours.id);
        }
        normalise::answer(&mut oracle, &self.oracle);
        normalise::answer(&mut subject, &self.subject);
        self.generator.learn(&call, &oracle);
        if oracle != subject {
            normalise::settle_ties(&call, &mut oracle);
            normalise::settle_ties(&call, &mut subject);
            let tag = match oracle == subject {
                true => self.listed.get(allowance::SORT_TIES).map(|_| allowance::SORT_TIES),
                false => allowance::covers(self.listed, &call, &oracle, &subject),
            };
            self.diverged |= revision(&mut oracle) != revision(&mut subject);
            match tag {
                Some(tag) => *self.report.documented.entry(tag).or_default() += 1,
                None => self.differ(&format!("{caller:?} {call:?}"), &oracle, &subject),
            }
        }
        Ok(match oracle {
            Answer::Ok(reply) => Some(*reply),
            Answer::Refused { message, .. } => {
                *self.report.refusals.entry(message.clone()).or_default() += 1;
                self.last_refusal = message;
                None
            }
        })
    }

    pub(super) fn differ(
        &mut self,
        what: &str,
        oracle: &(dyn std::fmt::Debug + Sync),
        subject: &(dyn std::fmt::Debug + Sync),
    ) {
        let (seed, number) = (self.seed, self.report.operations);
        let clip = |text: String| text.chars().take(2000).collect::<String>();
        let (what, oracle, subject) =
            (clip(what.to_owned()), clip(format!("{oracle:?}")), clip(format!("{subject:?}")));
        self.report.differ(format!(
            "seed {seed}, operation {number}: {what}\n    oracle:  {oracle}\n    subject: {subject}"
        ));
    }

    pub(super) async fn open(&mut self, caller: Caller, first: WatchCreateRequest) -> Result<usize> {
        let (theirs, ours) = (self.oracle.client(caller), self.subject.client(caller));
        let number = self.oracle.streams.open(&theirs, watch::create(first.clone())).await?;
        let same = self.subject.streams.open(&ours, watch::create(first)).await?;
        anyhow::ensure!(number == same, "streams are numbered alike");
        self.both_until(number, |log| !log.control.is_empty()).await?;
        Ok(number)
    }

    fn streams(&self, number: usize) -> Result<(&Stream, &Stream)> {
        let oracle = self.oracle.streams.get(number).context("the oracle's stream is open")?;
        Ok((oracle, self.subject.streams.get(number).context("the subject's stream is open")?))
    }

    /// Waits for the same condition on both sides; silence of the subject alone is a difference.
    pub(super) async fn both_until(
        &mut self,
        number: usize,
        done: impl Fn(&Log) -> bool + Copy + Send + Sync,
    ) -> Result<()> {
        let (oracle, subject) = self.streams(number)?;
        let (theirs, ours) = tokio::join!(oracle.until(done), subject.until(done));
        let logs = (oracle.log(), subject.log());
        theirs.context("the oracle")?;
        if ours.is_err() {
            self.diverged = true;
            self.differ(&format!("stream {number}: the subject stays silent"), &logs.0, &logs.1);
        }
        Ok(())
    }

    async fn create(&mut self, number: usize, request: WatchCreateRequest) -> Result<()> {
        self.report.operations += 1;
        *self.report.calls.entry("CreateWatch").or_default() += 1;
        let (oracle, subject) = self.streams(number)?;
        let answers = oracle.log().control.len() + 1;
        oracle.send(watch::create(request.clone()));
        subject.send(watch::create(request.clone()));
        self.both_until(number, |log| log.control.len() >= answers).await?;
        let Some(Control::Created { watch_id, .. }) = self.streams(number)?.0.log().control.last().cloned()
        else {
            return Ok(());
        };
        self.generator.watching(number, watch_id);
        Ok(())
    }

    async fn cancel(&mut self, number: usize, watch_id: i64) -> Result<()> {
        self.report.operations += 1;
        *self.report.calls.entry("CancelWatch").or_default() += 1;
        let (oracle, subject) = self.streams(number)?;
        let answers = oracle.log().control.len() + 1;
        oracle.send(watch::cancel(watch_id));
        subject.send(watch::cancel(watch_id));
        // An unknown id is answered with silence.
        if self.generator.forget_watch(number, watch_id) {
            self.both_until(number, |log| log.control.len() >= answers).await?;
        }
        Ok(())
    }

    async fn try_watch(&mut self, caller: Caller, request: WatchCreateRequest) -> Result<()> {
        self.report.operations += 1;
        *self.report.calls.entry("TryWatch").or_default() += 1;
        let number = self.open(caller, request.clone()).await?;
        let is_compacted = (1..self.generator.model.compacted).contains(&request.start_revision);
        let first = self.streams(number)?.0.log().control.first().cloned();
        if let (true, Some(Control::Created { watch_id, .. })) = (is_compacted, &first) {
            let told = |log: &Log| log.watchers.get(watch_id).is_some_and(|items| !items.is_empty());
            self.both_until(number, told).await?;
        }
        let (oracle, subject) = self.streams(number)?;
        let (mut theirs, mut ours) = (oracle.log(), subject.log());
        if !is_compacted {
            // Events are on their way or not; who may watch is the question here.
            theirs.watchers.clear();
            ours.watchers.clear();
        }
        if (&theirs.control, &theirs.watchers, &theirs.ended) != (&ours.control, &ours.watchers, &ours.ended)
        {
            self.differ(&format!("{caller:?} {request:?}"), &theirs, &ours);
        }
        self.oracle.streams.close(number);
        self.subject.streams.close(number);
        Ok(())
    }

    /// Lets every watcher see everything and compares what they saw since the last barrier.
    async fn barrier(&mut self) -> Result<()> {
        for number in self.generator.open_streams() {
            let put = PutRequest { key: Bytes::from_static(SENTINEL), ..Default::default() };
            let superuser = self.generator.superuser();
            let Some(Reply::Put(put)) = self.call(superuser, Call::Put(put)).await? else {
                bail!(
                    "the generator is at fault, the superuser was refused: {}\n{}",
                    self.last_refusal,
                    self.oracle.server.log_tail()
                );
            };
            let revision = put.header.map_or(0, |header| header.revision);
            let (oracle, subject) = self.streams(number)?;
            let (theirs, ours) = tokio::join!(oracle.caught_up(revision), subject.caught_up(revision));
            theirs.context("the oracle")?;
            if let Err(error) = ours {
                self.diverged = true;
                self.differ(&format!("stream {number} never catches up"), &"it does", &error);
                continue;
            }
            self.compare_logs(number)?;
        }
        Ok(())
    }

    pub(super) fn compare_logs(&mut self, number: usize) -> Result<()> {
        let (oracle, subject) = self.streams(number)?;
        let (mut theirs, mut ours) = (oracle.take(), subject.take());
        self.same_ids(&mut theirs, &mut ours);
        let events: usize = theirs.watchers.values().map(Vec::len).sum();
        self.report.events += events;
        if theirs == ours {
            return Ok(());
        }
        self.diverged = true;
        let parts = [
            (
                format!("stream {number}: answers"),
                format!("{:?}", theirs.control),
                format!("{:?}", ours.control),
            ),
            (format!("stream {number}: end"), format!("{:?}", theirs.ended), format!("{:?}", ours.ended)),
            (
                format!("stream {number}: broken promises"),
                format!("{:?}", theirs.broken),
                format!("{:?}", ours.broken),
            ),
            (format!("stream {number}: progress"), theirs.progress.to_string(), ours.progress.to_string()),
        ];
        for (what, theirs, ours) in parts {
            if theirs != ours {
                self.differ(&what, &theirs, &ours);
            }
        }
        let ids: BTreeSet<i64> = theirs.watchers.keys().chain(ours.watchers.keys()).copied().collect();
        for id in ids {
            let (theirs, ours) = (theirs.watchers.get(&id), ours.watchers.get(&id));
            if theirs == ours {
                continue;
            }
            let count = |items: Option<&Vec<Item>>| items.map_or(0, Vec::len);
            let first = (0..)
                .find(|&at| theirs.and_then(|items| items.get(at)) != ours.and_then(|items| items.get(at)));
            let at = first.unwrap_or(0);
            let what =
                format!("stream {number}, watch {id}: item {at} of {} and {}", count(theirs), count(ours));
            let (theirs, ours) =
                (theirs.and_then(|items| items.get(at)), ours.and_then(|items| items.get(at)));
            self.differ(&what, &theirs, &ours);
        }
        Ok(())
    }

    fn same_ids(&self, theirs: &mut Log, ours: &mut Log) {
        for (log, side) in [(theirs, &self.oracle), (ours, &self.subject)] {
            let back = normalise::Back::of(side);
            for item in log.watchers.values_mut().flatten() {
                if let Item::Event(event) = item {
                    back.pairs(event.kv.iter_mut().chain(&mut event.prev_kv));
                }
            }
        }
    }
}

/// Of the header; a refusal changes nothing and has none.
fn revision(answer: &mut Answer) -> Option<i64> {
    match answer {
        Answer::Ok(reply) => reply.header().as_ref().map(|header| header.revision),
        Answer::Refused { .. } => None,
    }
}

fn sentinel() -> WatchCreateRequest {
    WatchCreateRequest { key: Bytes::from_static(SENTINEL), watch_id: SENTINEL_WATCH, ..Default::default() }
}
