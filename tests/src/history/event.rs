//! What a history is made of. A history is a list of events in any order; it is
//! kept as JSON, one event a line.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

/// Microseconds since the Unix epoch: of a caller's clock that never steps, or
/// of a database's. All of a history are of one machine.
pub type Micros = i64;
/// One second.
pub const SECOND: Micros = 1_000_000;

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A definition, in force during the whole history.
    Rules(Rules),
    /// A call and its answer.
    Call(Call),
    /// What was done to break things. No invariant looks at it.
    Fault {
        /// When.
        at: Micros,
        /// What.
        did: String,
    },
    /// A row that a gate's committed transaction wrote.
    Gate(GateRow),
    /// A result as it is in the end, by the API.
    Last {
        /// Whose list it is in.
        organisation: String,
        /// The record.
        record: Record,
        /// Its data, as downloaded.
        data: Data,
    },
    /// A result as it is in the end, in the results database.
    Kept(KeptRow),
    /// Something in a database that nobody asked to be kept.
    Leftover(Leftover),
}

/// A definition's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The tenant.
    pub organisation: String,
    /// Its path.
    pub definition: String,
    /// For how long an acceptance suppresses equal ones.
    pub unique: Option<Micros>,
    /// How many are let in per window, and how long that is.
    pub throttle: Option<(u64, Micros)>,
    /// The key of its counter in the ingest database, if that is known.
    pub counter: Option<String>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who called. One process has one call under way at a time, but for streams.
    pub process: String,
    /// The tenant it called for.
    pub organisation: String,
    /// Before the first byte was sent.
    pub began: Micros,
    /// After the last byte came, or when it was given up.
    pub ended: Micros,
    /// What it did.
    pub did: Did,
}

/// What a call was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// This.
    Said(T),
    /// Nothing that says whether it was done: a status, a deadline, a broken
    /// connection. It may be done, or be done later.
    Unknown(String),
}

impl<T> Answer<T> {
    /// What was said, if anything was.
    pub fn said(&self) -> Option<&T> {
        match self {
            Self::Said(said) => Some(said),
            Self::Unknown(_) => None,
        }
    }
}

/// A thing, or `NOT_FOUND`.
pub type Found<T> = Option<T>;

/// Over which rpc observations were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// `PublishObservations`.
    Batch,
    /// `StreamObservations`.
    Stream,
    /// `PublishFile`.
    File,
}

/// A call and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// Publishing.
    Publish {
        /// By which rpc.
        via: Via,
        /// The request's id; may be empty.
        request_id: String,
        /// The observations.
        sent: Vec<Sent>,
        /// One outcome each, in order.
        told: Answer<Vec<Told>>,
    },
    /// Pages of one walk.
    List {
        /// The states that were asked for.
        states: Vec<State>,
        /// The poll that was asked for; `None`: any.
        poll: Option<String>,
        /// Whether the walk came to its end.
        whole: bool,
        /// What was listed.
        found: Answer<Vec<Record>>,
    },
    /// `GetResult`.
    Get {
        /// Which.
        id: String,
        /// The record.
        found: Answer<Found<Record>>,
    },
    /// `DownloadResult`.
    Download {
        /// Which.
        id: String,
        /// What came.
        found: Answer<Found<Data>>,
    },
    /// `AcknowledgeResult`, or `BatchAcknowledgeResults`.
    Acknowledge {
        /// Which.
        ids: Vec<String>,
        /// The ids that this call changed. `None`: there is no such result.
        changed: Answer<Found<Vec<String>>>,
        /// The record that `AcknowledgeResult` answered with.
        record: Option<Record>,
    },
}

/// One observation, as sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The definition's path.
    pub definition: String,
    /// The publisher's own mark; empty: none.
    pub chkpt: String,
    /// Its identifier, which no other observation has. Resending is not another.
    pub nonce: String,
    /// The value at its `unique_by`, if it has one.
    pub key: Option<String>,
    /// What its result is to say, too.
    pub labels: Labels,
    /// Its content.
    pub data: Data,
}

/// What a publisher says of an observation, and the service keeps as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The run that gathered it.
    pub poll: String,
    /// The unit of work in the run.
    pub task: String,
    /// The media type.
    pub r#type: String,
}

/// Some bytes, by what they are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// MD5 in lower-case hex.
    pub md5: String,
    /// How many bytes.
    pub size: u64,
}

/// The outcome of one observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Accepted.
    Success,
    /// An equal one was accepted lately.
    Suppressed,
    /// The window is full.
    Throttled,
    /// Processed before.
    Duplicate,
    /// The caller's fault.
    Error,
    /// Not now, and nothing was kept.
    NotKept,
    /// Not now, and nobody knows.
    OutcomeUnknown,
}

/// What was said of one observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What became of it.
    pub outcome: Outcome,
    /// The id; may be empty.
    pub id: String,
    /// The machine-readable reason.
    pub reason: String,
    /// Of a duplicate, what was told first.
    pub original: Option<Outcome>,
    /// Of a throttled one, when its window ends.
    pub window_ends: Option<Micros>,
}

/// Where a result stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits.
    Available,
    /// Was acknowledged.
    Consumed,
    /// Lost its data.
    Expired,
}

/// A result's record, as an API told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The id.
    pub id: String,
    /// The tenant it names.
    pub organisation: String,
    /// The definition that let it in.
    pub definition: String,
    /// The publisher's name for it: the nonce.
    pub nonce: String,
    /// Poll, task and type.
    pub labels: Labels,
    /// Checksum and size.
    pub data: Data,
    /// Where it stands.
    pub state: State,
    /// When it was recorded.
    pub date_created: Micros,
    /// When it was acknowledged.
    pub date_consumed: Option<Micros>,
}

/// A row that a committed transaction of the gate left behind: for each row, the
/// last that it wrote there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRow {
    /// The transaction.
    pub transaction: String,
    /// When that began, by the database's clock.
    pub began: Micros,
    /// When the row was written, by the database's clock; before the commit.
    pub at: Micros,
    /// The row.
    pub row: Kind,
}

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A marker.
    Marker {
        /// The key, as the gate hashes it.
        key: String,
        /// How it ended.
        outcome: Outcome,
        /// The id told; empty: none.
        id: String,
    },
    /// A unique window that this id opened.
    Window {
        /// The key, as the gate hashes it.
        key: String,
        /// The id.
        id: String,
        /// The moment of acceptance.
        accepted_at: Micros,
    },
    /// A throttle counter.
    Counter {
        /// The key, as the gate hashes it.
        key: String,
        /// The start of the window it counts for.
        window_start: Micros,
        /// How many were accepted in it.
        used: u64,
    },
    /// What it handed over to the results.
    Outbox {
        /// Whose results they are.
        organisation: String,
        /// How many.
        results: u64,
    },
}

/// A row of the results database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRow {
    /// The tenant.
    pub organisation: String,
    /// The id.
    pub id: String,
    /// Whether it is among those available.
    pub available: bool,
    /// Whether it is among those consumed.
    pub consumed: bool,
}

/// A row that should have gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Of which table.
    pub table: String,
    /// Its id.
    pub id: String,
}

/// All that is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// In any order.
    pub events: Vec<Event>,
}

impl History {
    /// Writes it, one event a line.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, mut to: impl Write) -> std::io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(from: impl BufRead) -> std::io::Result<Self> {
        let event = |line: std::io::Result<String>| Ok(serde_json::from_str(&line?)?);
        Ok(Self { events: from.lines().map(event).collect::<std::io::Result<_>>()? })
    }
}
