//! bcrypt on threads of its own, so that a flood of logins cannot hold up those who are logged in.
//!
//! The queue is bounded: a login beyond it is refused at once instead of waiting longer than its
//! client would. Work whose client has gone away is skipped.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use bcrypt::Version;
use keygate_core::{PasswordHash, Refusal, Secret};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Waiting for each thread. At bcrypt's default cost one takes 50 ms, so the last waits 6 s: as
/// long as etcd lets a request take.
const QUEUE_PER_THREAD: usize = 128;

/// bcrypt looks at no more. The library counts its closing zero byte among them, Go does not.
const MAX_PASSWORD_BYTES: usize = 72;

/// Hands work to the threads. They end when the pool is dropped.
pub struct PasswordPool {
    queue: SyncSender<Job>,
    cost: u32,
}

enum Job {
    Verify {
        /// None: no such user. The time is spent all the same.
        hash: Option<PasswordHash>,
        password: Secret,
        answer: oneshot::Sender<bool>,
    },
    Hash {
        password: Secret,
        cost: u32,
        answer: oneshot::Sender<Result<PasswordHash, Refusal>>,
    },
}

impl PasswordPool {
    /// `cost` is bcrypt's, 4 to 31, and what a check for an unknown user is made to cost.
    pub fn start(threads: NonZeroUsize, cost: u32) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE_PER_THREAD * threads.get());
        let jobs = Arc::new(Mutex::new(jobs));
        let decoy = Arc::new(OnceLock::new());
        for index in 0..threads.get() {
            let (jobs, decoy) = (jobs.clone(), decoy.clone());
            thread::Builder::new()
                .name(format!("password-{index}"))
                .spawn(move || work(&jobs, &decoy, cost))?;
        }
        Ok(Self { queue, cost })
    }

    /// Whether `password` belongs to `hash`; without a hash, false after the same time.
    pub async fn verify(&self, hash: Option<PasswordHash>, password: Secret) -> Result<bool, Refusal> {
        let (answer, result) = oneshot::channel();
        self.submit(Job::Verify { hash, password, answer })?;
        result.await.map_err(|_| Refusal::Stopping)
    }

    /// Whether a password can be hashed at all, without doing it. One over 72 bytes is refused: bcrypt
    /// would silently ignore the rest.
    pub fn check(&self, password: &Secret) -> Result<(), Refusal> {
        check(password.expose())
    }

    /// A hash as Go's bcrypt writes it (`$2a$`), of a password that passes [`Self::check`].
    pub async fn hash(&self, password: Secret) -> Result<PasswordHash, Refusal> {
        self.check(&password)?;
        let (answer, result) = oneshot::channel();
        self.submit(Job::Hash { password, cost: self.cost, answer })?;
        result.await.map_err(|_| Refusal::Stopping)?
    }

    fn submit(&self, job: Job) -> Result<(), Refusal> {
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooManyRequests,
            TrySendError::Disconnected(_) => Refusal::Stopping,
        })
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, decoy: &OnceLock<String>, cost: u32) {
    // Made before the first job, or the first unknown user would be told apart by time.
    let decoy = decoy.get_or_init(|| hash("decoy", cost).map(|hash| hash.0).unwrap_or_default());
    loop {
        // One thread waits inside the lock, the others for the lock.
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        match job {
            Job::Verify { answer, .. } if answer.is_closed() => {}
            Job::Hash { answer, .. } if answer.is_closed() => {}
            Job::Verify { hash, password, answer } => {
                let known = hash.is_some();
                let hash = hash.map_or_else(|| decoy.clone(), |hash| hash.0);
                // A hash that cannot be read matches nothing.
                let right = bcrypt::verify(password.expose(), &hash).unwrap_or(false);
                let _gone = answer.send(known && right);
            }
            Job::Hash { password, cost, answer } => {
                let _gone = answer.send(self::hash(password.expose(), cost));
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
    use std::time::{Duration, Instant};

    fn pool(cost: u32) -> PasswordPool {
        PasswordPool::start(NonZeroUsize::MIN, cost).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_verifies_its_own_password_only() {
        let pool = pool(4);
        let hash = pool.hash(secret("swordfish")).await.unwrap();
        assert!(hash.0.starts_with("$2a$04$"));
        assert!(pool.verify(Some(hash.clone()), secret("swordfish")).await.unwrap());
        assert!(!pool.verify(Some(hash), secret("Swordfish")).await.unwrap());
        assert!(!pool.verify(None, secret("decoy")).await.unwrap());
        assert!(!pool.verify(Some(PasswordHash("nonsense".to_owned())), secret("x")).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_made_by_go_is_understood() {
        // golang.org/x/crypto/bcrypt's own test vector.
        let hash = PasswordHash("$2a$10$XajjQvNhvvRt5GSeFk1xFeyqRrsxkhBkUiQeg0dt.wU1qD4aFDcga".to_owned());
        assert!(pool(4).verify(Some(hash), secret("allmine")).await.unwrap());
    }

    #[tokio::test]
    async fn a_password_is_never_cut_short() {
        let pool = pool(4);
        assert!(pool.hash(secret(&"x".repeat(72))).await.is_ok());
        assert!(pool.hash(secret(&"x".repeat(73))).await.is_err());
    }

    #[tokio::test]
    async fn an_unknown_user_costs_as_much_time_as_a_wrong_password() {
        let pool = pool(8);
        let hash = pool.hash(secret("right")).await.unwrap();
        let mut spent = [Duration::ZERO; 2];
        for _ in 0..5 {
            for (known, spent) in spent.iter_mut().enumerate() {
                let start = Instant::now();
                let hash = (known == 1).then(|| hash.clone());
                assert!(!pool.verify(hash, secret("wrong")).await.unwrap());
                *spent += start.elapsed();
            }
        }
        // Contrast: without the decoy an unknown user costs microseconds, a thousandth.
        assert!(spent[0] * 3 > spent[1], "unknown {:?}, known {:?}", spent[0], spent[1]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = pool(10);
        let mut waiting = Vec::new();
        let refused = (0..QUEUE_PER_THREAD * 4).any(|_| {
            let (answer, result) = oneshot::channel();
            let job = Job::Verify { hash: None, password: secret("x"), answer };
            waiting.push(result);
            pool.submit(job) == Err(Refusal::TooManyRequests)
        });
        assert!(refused);
        // What cannot be hashed needs no place in the queue to be told so.
        assert_eq!(pool.hash(secret(&"x".repeat(73))).await, Err(Refusal::PasswordTooLong));
        // The clients go away; what they asked for is not done.
        drop(waiting);
        let start = Instant::now();
        while pool.verify(None, secret("x")).await == Err(Refusal::TooManyRequests) {
            tokio::task::yield_now().await;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
