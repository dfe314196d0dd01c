//! When a result was accepted, as far as callers can know.

use crate::history::{
    Micros, Outcome, Place,
    index::{Attempt, Index, Last, SKEW},
};

/// The moment lies between these two: after a call began that may have brought
/// it, and before it was told or recorded. With the events that say so.
pub(super) fn moment(index: &Index<'_>, last: &Last<'_>) -> (Vec<Place>, Micros, Micros) {
    let attempts: Vec<_> = index.of_nonce(last.organisation, &last.record.nonce).collect();
    let told =
        |a: &Attempt<'_>| a.is(Outcome::Success) && a.told.is_some_and(|told| told.id == last.record.id);
    let accepted = attempts.iter().find(|a| told(a));
    let tried = attempts.iter().filter(|a| a.may_be_final()).map(|a| a.call.began).min();
    let began = accepted.map(|a| a.call.began).or(tried).unwrap_or(Micros::MIN / 2);
    let ended = accepted.map_or(Micros::MAX / 2, |a| a.call.ended);
    let places = [Some(last.place), accepted.map(|a| a.place)].into_iter().flatten().collect();
    (places, began - SKEW, ended.min(last.record.date_created) + SKEW)
}
