//! Threads that give way to those that serve: work that takes long, and that the next request must not feel.
//!
//! Linux gives each thread a priority of its own. A thread here gets a part of what a serving thread gets while both
//! have work, so that nothing starves, and all of a core while nobody else wants it. Elsewhere the priority belongs to
//! the process, and nothing is changed.

use std::{io, thread};

use tokio::sync::oneshot;

/// How far a thread gives way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Niceness {
    /// Somebody waits: a third of what a serving thread gets.
    Low,
    /// A tenth.
    Lowest,
}

impl Niceness {
    /// 335 and 110 against the 1024 of an ordinary thread.
    #[cfg(target_os = "linux")]
    fn number(self) -> i32 {
        match self {
            Self::Low => 5,
            Self::Lowest => 10,
        }
    }
}

/// Starts a thread that gives way. What `work` returns comes with the handle.
pub fn spawn<T: Send + 'static>(
    name: &str,
    niceness: Niceness,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        give_way(niceness);
        work()
    })
}

/// Runs `work` on a thread of its own that gives way. An error: there was no thread, or it panicked.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    // Whoever asked may have left.
    spawn(name, Niceness::Lowest, move || done.send(work()).ok())?;
    result.await.map_err(|_| io::Error::other("the work broke off"))
}

#[cfg(target_os = "linux")]
fn give_way(niceness: Niceness) {
    use rustix::process::{getpriority_process, setpriority_process};
    let so_far = getpriority_process(None).unwrap_or(0);
    if let Err(error) = setpriority_process(None, niceness.number().max(so_far)) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way(_niceness: Niceness) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[tokio::test]
    async fn only_the_thread_gives_way() {
        let before = getpriority_process(None).unwrap();
        let there = run("background", || getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(there, Niceness::Lowest.number().max(before));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error() {
        let broken = run("background", || panic!("on purpose")).await;
        broken.unwrap_err();
    }
}
