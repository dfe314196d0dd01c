//! Where connections are cut: between what was done and the word of it, and before it could
//! be done.

use sluice_tests::{Cut, Link, Pair, Proxy};

use super::ways::Ways;

/// What callers of publications send, and what every id has: what comes after
/// the milliseconds begins with a 7.
const NONCE: &[u8] = b"nonce-";
const ID: &[u8] = b"-7";
/// A result that is handed over begins with its id. (A file that is stored begins with whose
/// it is.)
const RESULT: &[u8] = b"\n$01";
/// The answer is a list of small numbers that are all 1.
const RECORDED: &[u8] = b"\x01\x01";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Of the gate's one trip, or the second of two.
    AfterGate,
    BeforeGate,
    /// Of the second of two alone.
    AfterCommit,
    BeforeCommit,
    AfterRecording,
    BeforeRecording,
    /// On the way from ingest to results.
    AfterEmission,
    BeforeEmission,
    AfterAcknowledging,
    BeforeAcknowledging,
    /// On the way of callers.
    AfterPublication,
    AfterAcknowledgement,
}

impl Point {
    pub const ALL: [Self; 12] = [
        Self::AfterGate,
        Self::BeforeGate,
        Self::AfterCommit,
        Self::BeforeCommit,
        Self::AfterRecording,
        Self::BeforeRecording,
        Self::AfterEmission,
        Self::BeforeEmission,
        Self::AfterAcknowledging,
        Self::BeforeAcknowledging,
        Self::AfterPublication,
        Self::AfterAcknowledgement,
    ];

    /// What a history says when it was made.
    pub fn made(self) -> String {
        format!("{self:?}: cut")
    }

    pub fn cut(self) -> Cut {
        match self {
            Self::AfterGate => Cut::AFTER_GATE,
            Self::BeforeGate => Cut::BEFORE_GATE,
            Self::AfterCommit => Cut::AFTER_COMMIT,
            Self::BeforeCommit => Cut::BEFORE_COMMIT,
            Self::AfterRecording => Cut::AFTER_RECORDING,
            Self::BeforeRecording => Cut::BEFORE_RECORDING,
            Self::AfterEmission => Cut::BeforeAnswer(RESULT, &[RECORDED]),
            Self::BeforeEmission => Cut::BeforeServer(RESULT),
            Self::AfterAcknowledging => Cut::AFTER_ACKNOWLEDGING,
            Self::BeforeAcknowledging => Cut::BEFORE_ACKNOWLEDGING,
            Self::AfterPublication => Cut::BeforeAnswer(NONCE, &[ID]),
            Self::AfterAcknowledgement => Cut::BeforeAnswer(ID, &[ID]),
        }
    }

    /// On which ways; of callers', on that to one of the replicas.
    pub fn proxies<'a>(self, pair: &'a Pair, ways: &'a Ways, replica: usize) -> Vec<&'a Proxy> {
        match self {
            Self::AfterGate | Self::BeforeGate | Self::AfterCommit | Self::BeforeCommit => {
                pair.proxies(Link::IngestDatabase).collect()
            }
            Self::AfterRecording
            | Self::BeforeRecording
            | Self::AfterAcknowledging
            | Self::BeforeAcknowledging => pair.proxies(Link::ResultsDatabase).collect(),
            Self::AfterEmission | Self::BeforeEmission => pair.proxies(Link::Intake).collect(),
            Self::AfterPublication => vec![&ways.ingest[replica]],
            Self::AfterAcknowledgement => vec![&ways.signing[replica]],
        }
    }
}
