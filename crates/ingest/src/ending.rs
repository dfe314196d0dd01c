//! The end of what goes on after serving has ended, within [`ENDING`] altogether, so that
//! a pod's grace period holds it. Whoever still waited for an answer has been cut off by
//! then. What was answered is in the outbox; what is not decided in time is dropped, and
//! what is not handed over, another instance finds, as after a SIGKILL.

use std::time::Duration;

use sluice_service::shutdown::ENDING;
use tokio::{
    task::{JoinError, JoinHandle, JoinSet},
    time::{timeout, timeout_at},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

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
    /// Ends when `drained` is cancelled.
    pub upkeep: JoinSet<()>,
    pub drained: CancellationToken,
}

impl Working {
    /// Ends it, in that order.
    ///
    /// # Errors
    /// If a task panicked.
    pub async fn end(self) -> Result<(), JoinError> {
        let until = tokio::time::Instant::now() + ENDING;
        let Self { mut lanes, emitter, deleter, upkeep, drained } = self;
        let (emitter, deleter) = (AbortOnDropHandle::new(emitter), AbortOnDropHandle::new(deleter));
        let drained = drained.drop_guard();
        if timeout(LAST_COMMITS, joined(&mut lanes)).await.is_err() {
            tracing::warn!("commits whose callers have gone were cut off");
            lanes.shutdown().await;
        }
        timeout_at(until, rest(emitter, deleter, upkeep, drained)).await.unwrap_or_else(|_| {
            tracing::warn!("background work was cut off");
            Ok(())
        })
    }
}

async fn joined(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn rest(
    emitter: AbortOnDropHandle<()>,
    deleter: AbortOnDropHandle<()>,
    mut upkeep: JoinSet<()>,
    drained: DropGuard,
) -> Result<(), JoinError> {
    emitter.await?;
    drop(drained);
    joined(&mut upkeep).await;
    deleter.await
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use tokio::sync::{Notify, mpsc};

    use super::*;

    /// Tasks that depend on each other as the real ones do. `notified` is told when the
    /// emitter has released what it has.
    fn working(lane: bool, deleter: bool) -> (Working, Arc<Notify>) {
        let (emit, mut emissions) = mpsc::unbounded_channel::<()>();
        let (released, drained) = (Arc::new(Notify::new()), CancellationToken::new());
        let mut lanes = JoinSet::new();
        lanes.spawn(async move {
            let _emit = emit;
            if !lane {
                pending::<()>().await;
            }
        });
        let told = released.clone();
        let emitter = tokio::spawn(async move {
            while emissions.recv().await.is_some() {}
            told.notify_one();
        });
        let deleter = tokio::spawn(async move {
            if !deleter {
                pending::<()>().await;
            }
        });
        let mut upkeep = JoinSet::new();
        upkeep.spawn(drained.clone().cancelled_owned());
        (Working { lanes, emitter, deleter, upkeep, drained }, released)
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_by_itself_is_waited_for() {
        let (working, released) = working(true, true);
        working.end().await.unwrap();
        released.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_hangs_leaves_the_emitter_time_to_release_its_rows() {
        let (working, released) = working(false, true);
        timeout(ENDING, working.end()).await.expect("ends in time").unwrap();
        released.notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleter_that_hangs_is_cut_off_in_time() {
        let (working, _) = working(true, false);
        timeout(ENDING + Duration::from_millis(1), working.end()).await.expect("ends in time").unwrap();
    }
}
