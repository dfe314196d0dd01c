//! What goes on beside serving. Work that panics is logged when it does: nothing else
//! would tell that it has ended.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Tasks under way.
#[derive(Debug, Default)]
pub struct Background {
    tasks: JoinSet<()>,
}

impl Background {
    /// Begins work that ends by itself.
    pub fn spawn(&mut self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(what, "background work broke off");
            }
        });
    }

    /// Begins work that goes on until it is stopped, wherever it is then.
    pub fn spawn_until(
        &mut self,
        stopped: &CancellationToken,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let stopped = stopped.clone();
        self.spawn(what, async move {
            stopped.run_until_cancelled(work).await;
        });
    }

    /// The tasks, to be waited for.
    #[must_use]
    pub fn into_tasks(self) -> JoinSet<()> {
        self.tasks
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn work_that_panics_ends_alone() {
        let (mut background, stopped) = (Background::default(), CancellationToken::new());
        background.spawn("this", async { panic!("as it should") });
        background.spawn_until(&stopped, "that", pending());
        let mut tasks = background.into_tasks();
        assert!(tasks.join_next().await.unwrap().is_ok());
        assert!(tasks.try_join_next().is_none(), "the other goes on");
        stopped.cancel();
        assert!(tasks.join_next().await.unwrap().is_ok());
    }
}
