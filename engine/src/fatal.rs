//! The engine's last word: why it cannot go on. Whoever runs the process waits for it and exits.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Fatal {
    cause: Arc<watch::Sender<Option<String>>>,
}

impl Fatal {
    pub(crate) fn new() -> Self {
        Self { cause: Arc::new(watch::Sender::new(None)) }
    }

    /// The first cause stays.
    pub(crate) fn raise(&self, cause: String) {
        self.cause.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(cause);
            }
            first
        });
    }

    /// Holds the engine's life together with that of a thread: dropped by a panic, it raises the cause.
    pub(crate) fn guard(&self, thread: &'static str) -> Guard {
        Guard { fatal: self.clone(), thread, ended: false }
    }

    pub(crate) async fn raised(&self) -> String {
        let mut cause = self.cause.subscribe();
        let text = match cause.wait_for(Option::is_some).await {
            Ok(text) => text.clone(),
            // We hold a sender ourselves.
            Err(_) => None,
        };
        text.unwrap_or_default()
    }
}

pub(crate) struct Guard {
    fatal: Fatal,
    thread: &'static str,
    ended: bool,
}

impl Guard {
    /// The thread has done what it had to do, or has raised a better cause itself.
    pub(crate) fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            self.fatal.raise(format!("the {} thread has panicked; the log says where", self.thread));
        }
    }
}
