//! Removing objects of one bucket, many at the same time, for as long as it does what it is
//! asked.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use sluice_service::OrganisationId;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::storage::store::StoreError;

/// Objects of a bucket removed at the same time. As many failures of what is removed
/// together, and the bucket is left alone until the next look.
pub(super) const AT_ONCE: usize = 16;
/// How long a bucket may take to remove an object.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What became of what was to be removed together.
pub(super) struct Removed<T> {
    pub(super) gone: Vec<T>,
    pub(super) failed: usize,
    /// The others were not tried: as many failed as are removed at the same time, it took too
    /// long, or somebody else is at it.
    pub(super) gave_up: bool,
}

impl<T> Default for Removed<T> {
    fn default() -> Self {
        Self { gone: Vec::new(), failed: 0, gave_up: false }
    }
}

/// Waits for removals from the bucket of a storage config, until some moment; each says what
/// is gone.
pub(super) async fn remove<T>(
    (organisation, storage_config): (&OrganisationId, Uuid),
    until: Option<Instant>,
    removing: Vec<impl Future<Output = Result<T, StoreError>>>,
) -> Removed<T> {
    let mut removing = stream::iter(removing.into_iter().map(in_time)).buffer_unordered(AT_ONCE);
    let mut removed = Removed::default();
    while !removed.gave_up {
        let next = match until {
            Some(until) => timeout_at(until, removing.next()).await,
            None => Ok(removing.next().await),
        };
        match next {
            Ok(None) => break,
            Ok(Some(Ok(one))) => removed.gone.push(one),
            Ok(Some(Err(error))) => {
                tracing::warn!(%organisation, %storage_config, %error, "object not removed");
                removed.failed += 1;
                removed.gave_up = removed.failed >= AT_ONCE;
            }
            Err(_) => removed.gave_up = true,
        }
    }
    removed
}

/// What a bucket does in time.
async fn in_time<T>(removal: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(TIMEOUT, removal).await.unwrap_or(Err(StoreError::Failed))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    /// What becomes of removals from a bucket: how many are gone, how many failed, and whether
    /// there was an end to it before.
    async fn told(
        until: Option<Instant>,
        removing: Vec<impl Future<Output = Result<(), StoreError>>>,
    ) -> (usize, usize, bool) {
        let removed = remove((&"acme".parse().unwrap(), Uuid::nil()), until, removing).await;
        (removed.gone.len(), removed.failed, removed.gave_up)
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_has_so_much_time() {
        let takes = async |seconds| in_time(sleep(Duration::from_secs(seconds)).map(Ok)).await;
        assert_eq!((takes(14).await, takes(16).await), (Ok(()), Err(StoreError::Failed)));
    }

    #[tokio::test]
    async fn a_bucket_that_fails_so_often_is_left_alone() {
        let removing = |failing: usize| {
            let fails = |number| if number < failing { Err(StoreError::Refused) } else { Ok(()) };
            (0..100).map(|number| ready(fails(number))).collect()
        };
        assert_eq!(told(None, removing(15)).await, (85, 15, false));
        assert_eq!(told(None, removing(100)).await, (0, 16, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bucket_has_its_turn_and_then_it_is_the_others() {
        let until = Instant::now() + Duration::from_secs(1);
        let quick = (0..20).map(|_| ready(Ok(())).boxed());
        let removing = quick.chain([pending().boxed()]).collect();
        assert_eq!((told(Some(until), removing).await, Instant::now()), ((20, 0, true), until));
    }
}
