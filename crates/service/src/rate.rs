//! How many requests each organisation may send: one bucket per organisation that
//! the keys file names, so their number is the operator's choice.

use std::time::Duration;

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::keyed::HashMapStateStore,
};

use crate::{Error, Kind, OrganisationId, limits::Rate};

type Buckets = RateLimiter<
    OrganisationId,
    HashMapStateStore<OrganisationId>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as Clock>::Instant>,
>;

/// The buckets of all organisations.
#[derive(Debug)]
pub(crate) struct Rates {
    buckets: Buckets,
    clock: MonotonicClock,
}

impl Rates {
    pub(crate) fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { buckets: RateLimiter::hashmap_with_clock(quota, MonotonicClock), clock: MonotonicClock }
    }

    /// Takes one request out of an organisation's bucket.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if it is empty, with the time after which it is not.
    pub(crate) fn take(&self, organisation: &OrganisationId) -> Result<(), Error> {
        self.buckets.check_key(organisation).map_err(|full| too_many(full.wait_time_from(self.clock.now())))
    }
}

fn too_many(wait: Duration) -> Error {
    let message = "the organisation sends more requests than it may";
    Error::new(Kind::ResourceExhausted, "RATE_EXCEEDED", message).retry_after(wait)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn each_organisation_has_a_bucket_of_its_own() {
        let (per_second, burst) = (NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let rates = Rates::new(Rate { per_second, burst });
        let (acme, globex) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        for _ in 0..3 {
            rates.take(&acme).unwrap();
        }
        let refused = rates.take(&acme).unwrap_err();
        assert_eq!((refused.kind(), refused.reason()), (Kind::ResourceExhausted, "RATE_EXCEEDED"));
        rates.take(&globex).unwrap();
    }
}
