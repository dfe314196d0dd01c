//! The end of what goes on after serving has ended, which has [`ENDING`] altogether.
//! Whoever still waited for an answer has been cut off by then. What was answered is in
//! the outbox; what is not decided in time is dropped, and what is not handed over,
//! another instance finds, as after a SIGKILL.
//!
//! [`ENDING`]: sluice_service::shutdown::ENDING

use std::time::Duration;

use sluice_service::program::Failure;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// How much of it the lanes may take, for what was sealed before its caller went.
const LAST_COMMITS: Duration = Duration::from_secs(3);

/// What still works when serving has ended.
pub struct Working {
    /// They end when they are empty.
    pub lanes: JoinSet<()>,
    /// Ends after the lanes, and releases what it could not emit.
    pub emitter: JoinHandle<()>,
    /// Ends after the emitter.
    pub deleter: JoinHandle<()>,
}

impl Working {
    /// Ends it, in that order.
    ///
    /// # Errors
    /// If a task panicked.
    pub async fn end(self) -> Result<(), Failure> {
        let Self { mut lanes, emitter, deleter } = self;
        let (emitter, deleter) = (AbortOnDropHandle::new(emitter), AbortOnDropHandle::new(deleter));
        let last_commits = async { while lanes.join_next().await.is_some() {} };
        if timeout(LAST_COMMITS, last_commits).await.is_err() {
            tracing::warn!("commits whose callers have gone were cut off");
            lanes.shutdown().await;
        }
        emitter.await?;
        Ok(deleter.await?)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use sluice_service::shutdown::ENDING;
    use tokio::sync::{Notify, mpsc};

    use super::*;

    /// Tasks that depend on each other as the real ones do. `notified` is told when the
    /// emitter has released what it has.
    fn working(lane_ends: bool) -> (Working, Arc<Notify>) {
        let (emit, mut emissions) = mpsc::unbounded_channel::<()>();
        let released = Arc::new(Notify::new());
        let mut lanes = JoinSet::new();
        lanes.spawn(async move {
            let _emit = emit;
            if !lane_ends {
                pending::<()>().await;
            }
        });
        let told = released.clone();
        let emitter = tokio::spawn(async move {
            while emissions.recv().await.is_some() {}
            told.notify_one();
        });
        (Working { lanes, emitter, deleter: tokio::spawn(async {}) }, released)
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_by_itself_is_waited_for() {
        let (working, released) = working(true);
        working.end().await.unwrap();
        released.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_hangs_leaves_the_emitter_time_to_release_its_rows() {
        let (working, released) = working(false);
        timeout(ENDING / 2, working.end()).await.expect("ends in time").unwrap();
        released.notified().await;
    }
}
