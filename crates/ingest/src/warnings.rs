//! A log for tests.

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber, span,
    subscriber::{DefaultGuard, NoSubscriber, set_default},
};

/// Calls this at every warning on this thread, until what is returned is dropped.
pub fn at_warnings(call: impl Fn() + Send + Sync + 'static) -> (DefaultGuard, Dispatch) {
    // One more than that of the warnings, else other tests' threads settle what is logged.
    let one_more = Dispatch::new(NoSubscriber::default());
    (set_default(Warnings(call)), one_more)
}

struct Warnings<F>(F);

impl<F: Fn() + Send + Sync + 'static> Subscriber for Warnings<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn event(&self, _: &Event<'_>) {
        (self.0)();
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
