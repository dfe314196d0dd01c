//! Recording, listing, getting and acknowledging results.

pub mod acknowledging;
mod data;
mod fairness;
mod in_doubt;
mod listing;
mod outage;
mod plans;
mod recent;
mod recording;
pub mod shelf;
mod weeks;
