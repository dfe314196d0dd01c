//! How long to wait before something is tried again: longer each time, up to a
//! bound, and never as long as somebody else.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, error::chain};

/// Waits that double from a first to a longest one.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// One more failure: how long to wait now, between half of the bound that has
    /// been reached and all of it.
    #[must_use]
    pub fn failed(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// It worked: the next wait is the first again.
    pub fn worked(&mut self) {
        self.failures = 0;
    }
}

/// What is new about an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// It began, or has another cause than before: this one.
    Fails(&'a str),
    /// It is over.
    WorksAgain,
}

/// Tells of an outage once, and when its cause changes, and of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outage {
    /// Why it failed last, while it fails.
    told: Option<String>,
}

impl Outage {
    /// What to tell of the last outcome, which had this fault or none.
    pub fn news(&mut self, fault: Option<String>) -> Option<News<'_>> {
        if self.told == fault {
            return None;
        }
        self.told = fault;
        Some(self.told.as_deref().map_or(News::WorksAgain, News::Fails))
    }

    /// The same of what may fail with an error: its messages, and those of its causes.
    pub fn news_of<T>(&mut self, outcome: &Result<T, Error>) -> Option<News<'_>> {
        self.news(outcome.as_ref().err().map(|error| chain(error)))
    }
}

/// What is done again and again: as usual after it worked, and more and more seldom while
/// it fails. An outage is one line in the log, one more when it has another cause, and one
/// when it is over.
#[derive(Debug)]
pub struct Rounds {
    what: &'static str,
    usual: Duration,
    backoff: Backoff,
    outage: Outage,
}

impl Rounds {
    /// Of what is done `usual`ly so long after it ended. While it fails, the waits grow from
    /// that to `longest`.
    #[must_use]
    pub const fn new(what: &'static str, usual: Duration, longest: Duration) -> Self {
        Self { what, usual, backoff: Backoff::new(usual, longest), outage: Outage { told: None } }
    }

    /// One ended: how long to wait before the next.
    #[must_use]
    pub fn ended<T>(&mut self, outcome: &Result<T, Error>) -> Duration {
        match self.outage.news_of(outcome) {
            Some(News::Fails(error)) => tracing::warn!(error, "{} fails", self.what),
            Some(News::WorksAgain) => tracing::info!("{} works again", self.what),
            None => {}
        }
        if outcome.is_err() {
            return self.backoff.failed();
        }
        self.backoff.worked();
        self.usual
    }

    /// One ended: waits for the next, and says whether there is one: not after shutdown.
    pub async fn next_after<T>(&mut self, outcome: &Result<T, Error>, shutdown: &CancellationToken) -> bool {
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(self.ended(outcome)) => true,
        }
    }
}

/// Something that rests after it failed: longer each time, until it works.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Rest {
    /// Awake. The waits are as those of [`Backoff::new`].
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { backoff: Backoff::new(first, longest), until: None }
    }

    /// When the last rest ends, or ended; none since it worked.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it is too early for the next try.
    #[must_use]
    pub fn lasts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// It failed. During a rest that says nothing new: it was begun before.
    pub fn failed(&mut self, now: Instant) {
        if !self.lasts(now) {
            self.until = Some(now + self.backoff.failed());
        }
    }

    /// It worked: nothing has failed yet.
    pub fn worked(&mut self) {
        self.backoff.worked();
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_differ_and_begin_anew() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(1000));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.failed();
            assert!((millis(bound / 2)..=millis(bound)).contains(&wait), "{wait:?} for {bound}");
        }
        backoff.worked();
        assert!(backoff.failed() <= millis(100));
        let longest = |_| {
            let mut backoff = Backoff { failures: 64, ..Backoff::new(millis(100), millis(1000)) };
            backoff.failed()
        };
        let waits: Vec<_> = (0..50).map(longest).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }

    #[test]
    fn an_outage_is_news_once_when_its_cause_changes_and_when_it_is_over() {
        let mut outage = Outage::default();
        let told = [None, Some("a"), Some("a"), Some("b"), None, Some("b")]
            .map(|fault| outage.news(fault.map(str::to_owned)).map(|news| format!("{news:?}")));
        let (began, other) = (Some("Fails(\"a\")"), Some("Fails(\"b\")"));
        let expected = [None, began, None, other, Some("WorksAgain"), other];
        assert_eq!(told.each_ref().map(Option::as_deref), expected);
    }

    #[test]
    fn what_is_done_again_and_again_waits_as_usual_unless_it_fails() {
        let usual = Duration::from_secs(1);
        let mut rounds = Rounds::new("a test", usual, 4 * usual);
        let (worked, failed) = (Ok(()), Err::<(), _>(Error::database_busy()));
        assert_eq!(rounds.ended(&worked), usual);
        assert!(rounds.ended(&failed) <= usual);
        assert!(rounds.ended(&failed) >= usual, "the waits grow");
        assert_eq!(rounds.ended(&worked), usual);
        assert!(rounds.ended(&failed) <= usual, "and begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_no_round_after_shutdown() {
        let (mut rounds, shutdown) =
            (Rounds::new("a test", Duration::from_secs(1), Duration::from_secs(1)), CancellationToken::new());
        assert!(rounds.next_after(&Ok(()), &shutdown).await);
        shutdown.cancel();
        assert!(!rounds.next_after(&Ok(()), &shutdown).await);
    }

    #[test]
    fn a_rest_follows_a_failure_only_and_never_lasts_longer_than_the_bound() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(2));
        let (mut rest, mut now) = (Rest::new(first, longest), Instant::now());
        assert!(!rest.lasts(now));
        for _ in 0..20 {
            rest.failed(now);
            assert!(rest.lasts(now));
            now += longest;
            assert!(!rest.lasts(now));
        }
        rest.failed(now);
        let until = rest.until();
        assert!(rest.lasts(now + longest / 3), "the waits have grown");
        rest.failed(now);
        assert_eq!(rest.until(), until, "what fails during a rest was begun before");
        rest.worked();
        assert!(!rest.lasts(now));
        rest.failed(now);
        assert!(!rest.lasts(now + first), "and begin anew");
    }
}
