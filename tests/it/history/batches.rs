//! What a publisher sends, request by request. It is made of the seed, the publisher's
//! name and the request's number alone: what was answered, and when, changes nothing.

use sluice_proto::ingest::v1::{Observation, PublishObservationsRequest};
use sluice_tests::history::{Answer, Outcome, Sent, Told};

use super::{observations::Maker, random::Random};

const ITEMS_MAX: usize = 15;
/// How many earlier requests may be sent once more.
const EARLIER_MAX: usize = 20;

/// A request and how its observations are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub request_id: String,
    pub items: Vec<(Sent, Observation)>,
}

impl Batch {
    pub fn request(&self) -> PublishObservationsRequest {
        PublishObservationsRequest {
            request_id: self.request_id.clone(),
            observations: self.items.iter().map(|(_, observation)| observation.clone()).collect(),
            ..PublishObservationsRequest::default()
        }
    }

    /// What of it may be sent again: without a mark it would be kept twice.
    fn marked(&self) -> Self {
        let has_mark =
            |(sent, _): &&(Sent, Observation)| !self.request_id.is_empty() || !sent.chkpt.is_empty();
        Self { items: self.items.iter().filter(has_mark).cloned().collect(), ..self.clone() }
    }

    /// What of it is not decided, as far as is known, and may be sent again.
    pub fn undecided(&self, told: &Answer<Vec<Told>>) -> Self {
        let Answer::Said(told) = told else { return self.marked() };
        let undecided = self
            .items
            .iter()
            .zip(told)
            .filter(|(_, told)| matches!(told.outcome, Outcome::NotKept | Outcome::OutcomeUnknown));
        let items = undecided.map(|(item, _)| item.clone()).collect();
        Self { items, request_id: self.request_id.clone() }.marked()
    }
}

/// Makes one publisher's requests.
pub struct Batches {
    pub organisation: &'static str,
    pub process: String,
    seed: u64,
    maker: Maker,
    made: usize,
    earlier: Vec<Batch>,
}

impl Batches {
    pub fn new(seed: u64, organisation: &'static str, process: &str) -> Self {
        let maker = Maker::new(organisation, process);
        Self { organisation, process: process.into(), seed, maker, made: 0, earlier: vec![] }
    }

    /// What decides of the next.
    fn random(&mut self) -> Random {
        self.made += 1;
        Random::of(self.seed, &format!("{}/{}", self.organisation, self.process), self.made)
    }

    /// A new one, or an earlier one, or one with old marks and other content.
    pub fn next(&mut self) -> Batch {
        let random = &mut self.random();
        if random.percent(12)
            && let Some(earlier) = random.pick(&self.earlier).map(Batch::marked)
            && !earlier.items.is_empty()
        {
            return earlier;
        }
        let has_request = random.percent(40);
        let request_id =
            if has_request { format!("request/{}/{}", self.process, self.made) } else { String::new() };
        let count = 1 + random.below(ITEMS_MAX);
        let items = (0..count).map(|_| self.maker.observation(random, has_request));
        let mut batch = Batch { request_id, items: items.collect() };
        if random.percent(10)
            && let Some(earlier) = random.pick(&self.earlier).cloned()
        {
            for (sent, _) in earlier.items.iter().filter(|(sent, _)| !sent.chkpt.is_empty()) {
                let (definition, chkpt) = (sent.definition.clone(), sent.chkpt.clone());
                batch.items.push(self.maker.of(random, &definition, chkpt, true));
            }
        }
        self.earlier.push(batch.clone());
        if self.earlier.len() > EARLIER_MAX {
            self.earlier.remove(0);
        }
        batch
    }

    /// A file, its bytes, and whether it is sent again though it was decided.
    pub fn next_file(&mut self) -> (Sent, Vec<u8>, bool) {
        let random = &mut self.random();
        let (sent, bytes) = self.maker.file(random);
        (sent, bytes, random.percent(15))
    }
}

#[test]
fn what_is_sent_depends_on_the_seed_the_publisher_and_the_number() {
    let sent = |seed, process| {
        let mut batches = Batches::new(seed, "acme", process);
        (0..50).map(|_| batches.next()).collect::<Vec<_>>()
    };
    assert_eq!(sent(1, "batch-0"), sent(1, "batch-0"));
    let request_ids =
        |batches: Vec<Batch>| batches.iter().map(|batch| batch.request_id.is_empty()).collect::<Vec<_>>();
    assert_ne!(request_ids(sent(1, "batch-0")), request_ids(sent(2, "batch-0")), "of another seed");
    assert_ne!(request_ids(sent(1, "batch-0")), request_ids(sent(1, "batch-1")), "of another publisher");
}
