//! Long streams, in either direction, end with the token that they were opened with.

use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt, future, stream};

use super::{Access, expired};
use crate::{Error, Kind};

/// Who waits for a token to expire looks this often at the clock, which may be set.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

impl Access {
    /// The items of a stream for as long as the token is valid as it was when the stream was
    /// opened. Once it is revoked, changed or expired, UNAUTHENTICATED is the last item, also
    /// while the stream itself waits.
    pub fn while_valid<T, E: From<Error>>(
        self,
        items: impl Stream<Item = Result<T, E>>,
    ) -> impl Stream<Item = Result<T, E>> {
        let revocation = self.clone();
        items.take_until(async move { revocation.revoked().await }).chain(
            stream::once(async move { self.still_valid() })
                // Nothing, if the stream came to its own end.
                .filter_map(|valid| future::ready(valid.err().map(|error| Err(error.into())))),
        )
    }

    fn still_valid(&self) -> Result<(), Error> {
        match self.keys.table.load().get(&*self.id) {
            Some(key) if *key == self.key && key.is_expired() => Err(expired()),
            Some(key) if *key == self.key => Ok(()),
            _ => Err(Error::new(Kind::Unauthenticated, "TOKEN_REVOKED", "the token is no longer valid")),
        }
    }

    /// Waits until the token is no longer valid as it was.
    async fn revoked(&self) {
        let mut changed = self.keys.changed.subscribe();
        while self.still_valid().is_ok() {
            let left = self.key.expires.and_then(|expires| expires.duration_since(SystemTime::now()).ok());
            tokio::select! {
                // The sender is kept by these very keys.
                changed = changed.changed() => drop(changed),
                () = tokio::time::sleep(left.unwrap_or(CLOCK_EVERY).min(CLOCK_EVERY)) => {}
            }
        }
    }
}
