//! What publishers send. Chance decides; each observation has a nonce that no
//! other one has, in its content and as its identifier. Both organisations use
//! the same paths, marks, keys and request ids.

use prost_types::Duration;
use sluice_proto::ingest::v1::{Definition, Observation, observation::Content};
use sluice_tests::history::{Labels, Rules, SECOND, Sent};

use super::{random::Random, recorder::data};
use crate::support::seconds;

pub const ORGANISATIONS: [&str; 2] = ["acme", "globex"];
/// How many values there are for unique keys.
const KEYS: usize = 6;

/// A definition's path, `unique`, and throttle.
type Kind = (&'static str, Option<i64>, Option<(u32, i64)>);
const KINDS: [Kind; 4] = [
    ("plain", None, None),
    ("once", Some(2), None),
    ("few", None, Some((5, 2))),
    ("both", Some(1), Some((4, 3))),
];
/// Their paths.
pub const PATHS: [&str; 4] = [KINDS[0].0, KINDS[1].0, KINDS[2].0, KINDS[3].0];
/// No definition has this path.
const UNKNOWN: &str = "unknown";

pub fn definitions(organisation: &str) -> Vec<Definition> {
    let of = |(path, unique, throttle): &Kind| Definition {
        organisation: organisation.into(),
        path: (*path).into(),
        unique: unique.and_then(seconds),
        throttle_count: throttle.map_or(0, |(count, _)| count),
        throttle_period: throttle.map(|(_, seconds)| Duration { seconds, nanos: 0 }),
        ..Definition::default()
    };
    KINDS.iter().map(of).collect()
}

pub fn rules(organisation: &str) -> Vec<Rules> {
    let of = |(path, unique, throttle): &Kind| Rules {
        organisation: organisation.into(),
        definition: (*path).into(),
        unique: unique.map(|seconds| seconds * SECOND),
        throttle: throttle.map(|(count, seconds)| (count.into(), seconds * SECOND)),
        counter: None,
    };
    KINDS.iter().map(of).collect()
}

/// Makes one publisher's observations.
pub struct Maker {
    pub organisation: &'static str,
    process: String,
    made: usize,
    /// Marks of what was refused, to be tried again with other content.
    refused: Vec<String>,
}

impl Maker {
    pub fn new(organisation: &'static str, process: &str) -> Self {
        Self { organisation, process: process.into(), made: 0, refused: vec![] }
    }

    pub fn nonce(&mut self) -> String {
        self.made += 1;
        format!("nonce-{}-{}-{}", self.organisation, self.process, self.made)
    }

    /// One of chance. Without a request id, what a throttle counts has a mark.
    pub fn observation(&mut self, random: &mut Random, has_request: bool) -> (Sent, Observation) {
        let dice = random.below(100);
        let (definition, good) = match dice {
            0..35 => ("plain", true),
            35..60 => ("once", true),
            60..75 => ("few", true),
            75..90 => ("both", true),
            90..97 => ("plain", false),
            _ => (UNKNOWN, true),
        };
        let must_mark = matches!(definition, "few" | "both") && !has_request;
        let chkpt = self.chkpt(random, must_mark || !good, definition);
        if !good {
            self.refused.push(chkpt.clone());
        }
        self.of(random, definition, chkpt, good)
    }

    fn chkpt(&mut self, random: &mut Random, must: bool, definition: &str) -> String {
        if definition == "plain"
            && random.percent(50)
            && let Some(refused) = self.refused.pop()
        {
            return refused;
        }
        let dice = if must { random.below(85) } else { random.below(100) };
        match dice {
            0..65 => format!("own/{}/{}", self.process, self.made),
            // Publishers of the same organisation meet here.
            65..85 => format!("shared/{}", self.made / 4),
            _ => String::new(),
        }
    }

    /// One of these.
    pub fn of(
        &mut self,
        random: &mut Random,
        definition: &str,
        chkpt: String,
        good: bool,
    ) -> (Sent, Observation) {
        let nonce = self.nonce();
        let key = format!("key-{}", random.below(KEYS));
        let padding = "x".repeat(random.below(300));
        let mut text = format!(r#"{{"keys":"{key}","nonce":"{nonce}","padding":"{padding}"}}"#);
        if !good {
            text.pop();
        }
        let labels = labels(random, ["application/json", "application/vnd.history+json"]);
        let sent = Sent {
            definition: definition.into(),
            chkpt: chkpt.clone(),
            nonce: nonce.clone(),
            key: matches!(definition, "once" | "both").then_some(key),
            labels: labels.clone(),
            data: data(text.as_bytes()),
        };
        let content = if random.percent(50) { Content::Json(text) } else { Content::Data(text.into()) };
        let observation = Observation {
            definition: definition.into(),
            chkpt,
            identifier: nonce,
            poll: labels.poll,
            task: labels.task,
            r#type: labels.r#type,
            content: Some(content),
        };
        (sent, observation)
    }

    /// A file's mark, content and how it is known.
    pub fn file(&mut self, random: &mut Random) -> (Sent, Vec<u8>) {
        let nonce = self.nonce();
        let lines = if random.percent(30) { random.below(10_000) } else { random.below(100) };
        let bytes = format!("{nonce}\n").repeat(lines + 1).into_bytes();
        let definition = if random.percent(20) { "few" } else { "plain" };
        let chkpt = format!("file/{}/{}", self.process, self.made);
        let labels = labels(random, ["text/plain", "application/octet-stream"]);
        let sent =
            Sent { definition: definition.into(), chkpt, nonce, key: None, labels, data: data(&bytes) };
        (sent, bytes)
    }
}

/// What else a publisher says of an observation.
fn labels(random: &mut Random, types: [&str; 2]) -> Labels {
    Labels {
        poll: format!("poll-{}", random.below(3)),
        task: random.pick(&["", "task-0", "task-1"]).copied().unwrap_or_default().into(),
        r#type: types[random.below(2)].into(),
    }
}
