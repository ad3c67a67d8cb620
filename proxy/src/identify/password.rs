//! bcrypt on threads of its own, so that a flood of logins cannot hold up those who are logged in.
//!
//! The line is bounded and fair (see [`line`]): a login beyond it is refused at once instead of waiting
//! longer than its client would, and who floods it waits for himself. Work whose client has gone away
//! is skipped.

mod cost;
mod line;

pub use cost::{MAX_COST, cost_of};

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bcrypt::Version;
use keygate_core::{PasswordHash, Refusal, Secret};
use keygate_engine::background::{self, Niceness};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Asker;
use super::guard::Guard;
use line::{Full, Line, OF_CONNECTION};

/// In line for each thread, of work of bcrypt's default cost, 10: that takes 50 ms, so the last waits
/// 2 s. `etcdctl` gives up after 5 s.
const LINE_PER_THREAD: usize = 40;

/// bcrypt looks at no more. The library counts its closing zero byte among them, Go does not.
const MAX_PASSWORD_BYTES: usize = 72;

/// Hands work to the threads. They end when the pool is dropped.
pub struct PasswordPool {
    work: Arc<Work>,
    cost: u32,
}

struct Work {
    state: Mutex<State>,
    changed: Condvar,
    /// What the last comparison took in microseconds, by its cost.
    took: [AtomicU32; 32],
}

struct State {
    line: Line<Job>,
    ended: bool,
}

enum Job {
    Verify { expected: Expected, password: Secret, guard: Guard, answer: oneshot::Sender<bool> },
    Hash { password: Secret, cost: u32, answer: oneshot::Sender<Result<PasswordHash, Refusal>> },
}

/// What a password should belong to.
pub(super) enum Expected {
    Of(PasswordHash),
    /// No such user: nothing is right, and takes as long as it takes with this hash.
    Nothing {
        like: Option<PasswordHash>,
    },
}

impl Job {
    fn is_gone(&self) -> bool {
        match self {
            Self::Verify { answer, .. } => answer.is_closed(),
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }
}

impl PasswordPool {
    /// `cost` is bcrypt's, 4 to 31, and what a check costs where there is no hash to compare with.
    pub fn start(threads: NonZeroUsize, cost: u32) -> std::io::Result<Self> {
        // Each step of cost doubles the time.
        let work_in_time = (LINE_PER_THREAD << 10).checked_shr(cost).unwrap_or(0);
        let limit = work_in_time.max(OF_CONNECTION).saturating_mul(threads.get());
        let state = State { line: Line::new(limit, Job::is_gone), ended: false };
        let took = [const { AtomicU32::new(0) }; 32];
        let work = Arc::new(Work { state: Mutex::new(state), changed: Condvar::new(), took });
        let decoy = Arc::new(OnceLock::new());
        for index in 0..threads.get() {
            let (work, decoy) = (work.clone(), decoy.clone());
            background::spawn(&format!("password-{index}"), Niceness::Low, move || work.run(&decoy, cost))?;
        }
        Ok(Self { work, cost })
    }

    /// Whether `password` is what is expected. `guard` is asked when its turn has come, and told what came of it.
    pub(super) async fn verify(
        &self,
        asker: Asker,
        expected: Expected,
        password: Secret,
        guard: Guard,
    ) -> Result<bool, Refusal> {
        let (answer, result) = oneshot::channel();
        self.submit(asker, Job::Verify { expected, password, guard, answer })?;
        result.await.map_err(|_| GAVE_WAY)
    }

    /// Waits about as long as a comparison takes when nobody else is in line, and takes nobody's time.
    pub(super) async fn pretend(&self, expected: &Expected) {
        let hash = match expected {
            Expected::Of(hash) => Some(hash),
            Expected::Nothing { like } => like.as_ref(),
        };
        let cost = hash.and_then(|hash| cost_of(&hash.0)).filter(|cost| *cost <= self.cost.max(MAX_COST));
        let took = self.work.took_at(cost.unwrap_or(self.cost)).load(Relaxed);
        tokio::time::sleep(Duration::from_micros(took.into())).await;
    }

    /// Whether a password can be hashed at all, without doing it. One over 72 bytes is refused: bcrypt
    /// would silently ignore the rest.
    pub fn check(&self, password: &Secret) -> Result<(), Refusal> {
        check(password.expose())
    }

    /// A hash as Go's bcrypt writes it (`$2a$`), of a password that passes [`Self::check`].
    pub async fn hash(&self, asker: Asker, password: Secret) -> Result<PasswordHash, Refusal> {
        self.check(&password)?;
        let (answer, result) = oneshot::channel();
        self.submit(asker, Job::Hash { password, cost: self.cost, answer })?;
        result.await.map_err(|_| GAVE_WAY)?
    }

    fn submit(&self, asker: Asker, job: Job) -> Result<(), Refusal> {
        self.work.state.lock().line.push(asker, job).map_err(|Full| Refusal::TooManyRequests)?;
        self.work.changed.notify_one();
        Ok(())
    }
}

/// To who lost his place in line.
const GAVE_WAY: Refusal = Refusal::TooManyRequests;

impl Drop for PasswordPool {
    fn drop(&mut self) {
        self.work.state.lock().ended = true;
        self.work.changed.notify_all();
    }
}

impl Work {
    fn took_at(&self, cost: u32) -> &AtomicU32 {
        &self.took[cost as usize % self.took.len()]
    }

    /// None: the pool was dropped.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.ended {
                return None;
            }
            match state.line.pop() {
                Some(job) => return Some(job),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn run(&self, decoy: &OnceLock<String>, cost: u32) {
        // Made before the first job, or the first unknown user would be told apart by time.
        let decoy = decoy.get_or_init(|| hash("decoy", cost).map(|hash| hash.0).unwrap_or_default());
        let limit = cost.max(MAX_COST);
        while let Some(job) = self.next() {
            match job {
                job if job.is_gone() => {}
                Job::Verify { guard, answer, .. } if guard.refuses() => {
                    let _gone = answer.send(false);
                }
                Job::Verify { expected, password, guard, answer } => {
                    let (known, hash) = match expected {
                        Expected::Of(hash) => (true, Some(hash)),
                        Expected::Nothing { like } => (false, like),
                    };
                    // A hash that cannot be read, or costs what none should, matches nothing.
                    let hash = hash.filter(|hash| cost_of(&hash.0).is_some_and(|cost| cost <= limit));
                    let comparable = known && hash.is_some();
                    let hash = hash.map_or_else(|| decoy.clone(), |hash| hash.0);
                    let began = Instant::now();
                    let right = comparable & bcrypt::verify(password.expose(), &hash).unwrap_or(false);
                    let took = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
                    self.took_at(cost_of(&hash).unwrap_or(cost)).store(took, Relaxed);
                    guard.told(right);
                    let _gone = answer.send(right);
                }
                Job::Hash { password, cost, answer } => {
                    let _gone = answer.send(self::hash(password.expose(), cost));
                }
            }
        }
    }
}

fn check(password: &str) -> Result<(), Refusal> {
    if password.len() > MAX_PASSWORD_BYTES { Err(Refusal::PasswordTooLong) } else { Ok(()) }
}

fn hash(password: &str, cost: u32) -> Result<PasswordHash, Refusal> {
    check(password)?;
    match bcrypt::hash_with_result(password, cost) {
        Ok(parts) => Ok(PasswordHash(parts.format_for_version(Version::TwoA))),
        Err(_) => Err(Refusal::Internal { cause: "hashing a password failed" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn pool(cost: u32) -> PasswordPool {
        PasswordPool::start(NonZeroUsize::MIN, cost).unwrap()
    }

    impl PasswordPool {
        async fn compare(&self, asker: Asker, expected: Expected, password: Secret) -> Result<bool, Refusal> {
            self.verify(asker, expected, password, Guard::none()).await
        }
    }

    fn asker(port: u16) -> Asker {
        Asker::at(SocketAddr::from(([10, 0, 0, 1], port)))
    }

    fn unknown() -> Expected {
        Expected::Nothing { like: None }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_own_password_only() {
        let pool = pool(4);
        let hash = pool.hash(asker(1), secret("swordfish")).await.unwrap();
        assert!(hash.0.starts_with("$2a$04$"));
        assert!(pool.compare(asker(1), Expected::Of(hash.clone()), secret("swordfish")).await.unwrap());
        assert!(!pool.compare(asker(1), Expected::Of(hash), secret("Swordfish")).await.unwrap());
        assert!(!pool.compare(asker(1), unknown(), secret("decoy")).await.unwrap());
        assert!(
            !pool
                .compare(asker(1), Expected::Of(PasswordHash("nonsense".to_owned())), secret("x"))
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn a_hash_made_by_go_is_understood() {
        // golang.org/x/crypto/bcrypt's own test vector.
        let hash = PasswordHash("$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga".to_owned());
        assert!(pool(4).compare(asker(1), Expected::Of(hash), secret("allmine")).await.unwrap());
    }

    #[tokio::test]
    async fn a_password_is_never_cut_short() {
        let pool = pool(4);
        assert!(pool.hash(asker(1), secret(&"x".repeat(72))).await.is_ok());
        assert!(pool.hash(asker(1), secret(&"x".repeat(73))).await.is_err());
    }

    async fn time(pool: &PasswordPool, expected: impl Fn() -> Expected) -> Duration {
        let start = Instant::now();
        for _ in 0..5 {
            assert!(!pool.compare(asker(1), expected(), secret("wrong")).await.unwrap());
        }
        start.elapsed()
    }

    #[tokio::test]
    async fn an_unknown_user_costs_as_much_time_as_a_wrong_password() {
        let pool = pool(8);
        let hash = pool.hash(asker(1), secret("right")).await.unwrap();
        let known = time(&pool, || Expected::Of(hash.clone())).await;
        // Contrast: without the decoy an unknown user costs microseconds, a thousandth.
        let none = time(&pool, unknown).await;
        assert!(none * 3 > known, "unknown {none:?}, known {known:?}");
        // A user of another cost: who stands in for the unknown must be of that cost, too.
        let cheap = super::hash("right", 4).unwrap();
        let known = time(&pool, || Expected::Of(cheap.clone())).await;
        let like = time(&pool, || Expected::Nothing { like: Some(cheap.clone()) }).await;
        assert!(like < none / 2 && known < none / 2, "like {like:?}, known {known:?}, none {none:?}");
        assert!(
            !pool.compare(asker(1), Expected::Nothing { like: Some(cheap) }, secret("right")).await.unwrap()
        );
    }

    /// One login against such a hash kept a thread busy for hours.
    #[tokio::test]
    async fn a_hash_of_unbounded_cost_is_not_computed() {
        let hash = "$2a$31$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga";
        let pool = pool(4);
        let verified = pool.compare(asker(1), Expected::Of(PasswordHash(hash.to_owned())), secret("x"));
        assert!(!tokio::time::timeout(Duration::from_secs(20), verified).await.unwrap().unwrap());
    }

    /// Four hundred logins of one connection took another's from 0.1 s to 6 s.
    #[tokio::test]
    async fn a_flood_of_one_connection_holds_up_itself() {
        let pool = pool(8);
        let mut flood = Vec::new();
        let mut refused = 0;
        for _ in 0..400 {
            let (answer, result) = oneshot::channel();
            let job =
                Job::Verify { expected: unknown(), password: secret("x"), guard: Guard::none(), answer };
            match pool.submit(asker(1), job) {
                Ok(()) => flood.push(result),
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::TooManyRequests);
                    refused += 1;
                }
            }
        }
        assert!(refused >= 400 - OF_CONNECTION - 2, "{refused} refused");
        // Two of the flood are done before it at most: the one under way, and one whose turn it is.
        assert!(!pool.compare(asker(2), unknown(), secret("x")).await.unwrap());
        let done = flood.iter_mut().filter_map(|result| result.try_recv().ok()).count();
        assert!(done < flood.len() - 2, "{done} of {} were first", flood.len());
    }

    #[tokio::test]
    async fn what_cannot_be_hashed_needs_no_place_in_line() {
        let pool = pool(4);
        assert_eq!(pool.hash(asker(1), secret(&"x".repeat(73))).await, Err(Refusal::PasswordTooLong));
    }
}
