//! What a protobuf message takes when it is decoded, beyond its bytes: told from
//! its encoding, as it arrives, so that a small message that decodes to a large
//! one (millions of empty observations, each two bytes) is refused before it is
//! decoded. One pass, no copies; the shapes of the messages come from `proto/`.

use sluice_proto::{LazyStruct, MESSAGES, Part};

/// What a message within another takes: the struct, and as much again for a vector
/// that has just grown.
pub(super) const MESSAGE_COST: usize = 640;
/// What any other field takes.
pub(super) const FIELD_COST: usize = 32;
/// How many times as large packed scalars are, decoded.
const PACKED_FOLD: usize = 8;
/// How many times as large a Struct is, once it is looked into: one after the other, so
/// that counts once, for the largest of a message.
const STRUCT_FOLD: usize = 16;
/// Deepest nesting that the contracts have; more is malformed.
const DEPTH_MAX: usize = 16;
/// Longest varint, in bytes.
const VARINT_BYTES_MAX: u32 = 10;

/// The encoding is none of a protobuf message of this contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Measures one message after the other.
#[derive(Debug)]
pub(super) struct Meter {
    /// The index of the message type in the contracts' table.
    message: usize,
    state: State,
    /// Bytes read of this message.
    at: u64,
    /// The largest Struct in it so far.
    largest: usize,
    /// The messages that are open around the next byte: where each ends, and its
    /// index in the table.
    open: Vec<(u64, usize)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Within the key of a field.
    Key(Varint),
    /// Within a scalar.
    Scalar(Varint),
    /// Within the length of a field.
    Length(Option<Part>, Varint),
    /// Within what is not looked into, up to here.
    Skip(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// The next byte; says whether it was the last.
    fn push(&mut self, byte: u8) -> Result<bool, Malformed> {
        if self.bytes == VARINT_BYTES_MAX {
            return Err(Malformed);
        }
        self.value |= u64::from(byte & 0x7f).wrapping_shl(7 * self.bytes);
        self.bytes += 1;
        Ok(byte < 0x80)
    }
}

impl Meter {
    /// For messages of this type.
    pub(super) fn new(message: usize) -> Self {
        Self { message, state: State::Key(Varint::default()), at: 0, largest: 0, open: Vec::new() }
    }

    /// A new message begins, of so many bytes, or at most so many.
    pub(super) fn begin(&mut self, bytes: u64) {
        *self = Self { open: std::mem::take(&mut self.open), ..Self::new(self.message) };
        self.open.clear();
        self.open.push((bytes, self.message));
    }

    /// Reads more of the message. Says what this part takes when it is decoded, its
    /// own bytes not counted.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut cost = 0;
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if let State::Skip(end) = self.state {
                let left = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(rest.len());
                self.at += left as u64;
                rest = &rest[left..];
                if self.at == end {
                    self.next_field();
                }
                continue;
            }
            self.at += 1;
            rest = after;
            cost += self.byte(byte)?;
        }
        Ok(cost)
    }

    /// Whether all that began in this message has ended.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.state, State::Key(Varint { bytes: 0, .. })) && self.open.len() <= 1
    }

    /// A field has ended: so have the messages that end here.
    fn next_field(&mut self) {
        self.state = State::Key(Varint::default());
        while self.open.len() > 1 && self.open.last().is_some_and(|(end, _)| *end == self.at) {
            self.open.pop();
        }
    }

    fn byte(&mut self, byte: u8) -> Result<usize, Malformed> {
        match &mut self.state {
            State::Key(key) => {
                if !key.push(byte)? {
                    return Ok(0);
                }
                let key = key.value;
                self.field(key)
            }
            State::Scalar(value) => {
                if value.push(byte)? {
                    self.next_field();
                }
                Ok(0)
            }
            State::Length(part, length) => {
                if !length.push(byte)? {
                    return Ok(0);
                }
                let (part, length) = (*part, length.value);
                self.value(part, length)
            }
            State::Skip(_) => Ok(0),
        }
    }

    /// What follows a key.
    fn field(&mut self, key: u64) -> Result<usize, Malformed> {
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        self.state = match key & 7 {
            0 => State::Scalar(Varint::default()),
            1 => State::Skip(self.at + 8),
            2 => {
                let known = self.open.last().and_then(|(_, message)| MESSAGES.get(*message));
                let part = known.and_then(|parts| parts.iter().find(|(of, _)| *of == number));
                State::Length(part.map(|(_, part)| *part), Varint::default())
            }
            5 => State::Skip(self.at + 4),
            // Groups: no message of the contracts has one.
            _ => return Err(Malformed),
        };
        Ok(FIELD_COST)
    }

    /// What follows a length.
    fn value(&mut self, part: Option<Part>, length: u64) -> Result<usize, Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        if self.open.last().is_some_and(|(around, _)| end > *around) {
            return Err(Malformed);
        }
        let bytes = usize::try_from(length).map_err(|_| Malformed)?;
        let cost = match part {
            Some(Part::Message(message)) => {
                if self.open.len() == DEPTH_MAX {
                    return Err(Malformed);
                }
                self.open.push((end, message));
                self.next_field();
                return Ok(MESSAGE_COST);
            }
            Some(Part::Packed) => bytes.saturating_mul(PACKED_FOLD),
            Some(Part::Struct) => {
                let larger = bytes.saturating_sub(self.largest);
                self.largest += larger;
                let text = LazyStruct::text_bytes_max(bytes).saturating_sub(bytes);
                text.saturating_add(larger.saturating_mul(STRUCT_FOLD))
            }
            None => 0,
        };
        if length == 0 {
            self.next_field();
        } else {
            self.state = State::Skip(end);
        }
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use sluice_proto::{
        RPCS,
        ingest::v1::{Definition, Observation, PublishObservationsRequest, observation::Content},
        results::v1::{ListResultsRequest, NewResult, ResultBatch, StorageConfig},
    };

    use super::*;

    fn meter(rpc: &str) -> Meter {
        Meter::new(RPCS.iter().find(|known| known.path.ends_with(rpc)).unwrap().message)
    }

    /// The cost, however the message is cut; it must be the same.
    fn cost(rpc: &str, encoded: &[u8]) -> Result<usize, Malformed> {
        let mut meter = meter(rpc);
        let mut costs = [encoded.len().max(1), 1, 7].map(|size| {
            meter.begin(encoded.len() as u64);
            encoded.chunks(size).try_fold(0, |sum, piece| Ok(sum + meter.feed(piece)?))
        });
        costs.sort_by_key(|cost| cost.is_err());
        assert_eq!((costs[0], costs[0]), (costs[1], costs[2]));
        costs[0]
    }

    #[test]
    fn a_message_within_another_costs_more_than_its_struct() {
        for size in [
            size_of::<Observation>(),
            size_of::<Definition>(),
            size_of::<NewResult>(),
            size_of::<ResultBatch>(),
            size_of::<StorageConfig>(),
        ] {
            assert!(size * 3 / 2 <= MESSAGE_COST, "{size}");
        }
    }

    #[test]
    fn empty_observations_cost_what_they_take() {
        let request = PublishObservationsRequest {
            observations: vec![Observation::default(); 1000],
            ..Default::default()
        };
        let encoded = request.encode_to_vec();
        assert_eq!(encoded.len(), 2000);
        assert_eq!(cost("PublishObservations", &encoded), Ok(1000 * (MESSAGE_COST + FIELD_COST)));
    }

    #[test]
    fn fields_are_counted_within_their_messages() {
        let observation = Observation {
            definition: "a/b".into(),
            chkpt: "x".into(),
            content: Some(Content::Json("{\"a\":1}".repeat(100))),
            ..Default::default()
        };
        let request = PublishObservationsRequest {
            request_id: "r".into(),
            observations: vec![observation; 2],
            ..Default::default()
        };
        let expected = 7 * FIELD_COST + 2 * MESSAGE_COST + 2 * FIELD_COST;
        assert_eq!(cost("PublishObservations", &request.encode_to_vec()), Ok(expected));
        assert_eq!(cost("PublishObservations", &[]), Ok(0));
    }

    #[test]
    fn packed_scalars_and_structs_cost_many_times_their_bytes() {
        let request = ListResultsRequest { states: vec![1; 1000], ..Default::default() };
        assert_eq!(cost("ListResults", &request.encode_to_vec()), Ok(FIELD_COST + 1000 * PACKED_FOLD));
        // PublishObservationsRequest.observations[0].body, of five bytes.
        let body = [0x1a, 7, 0x4a, 5, 0x0a, 3, b'a', b'b', b'c'];
        let expected = 2 * FIELD_COST + MESSAGE_COST + 7 + 5 * STRUCT_FOLD;
        assert_eq!(cost("PublishObservations", &body), Ok(expected));
    }

    #[test]
    fn of_several_structs_only_the_largest_is_looked_into_at_a_time() {
        let field = |bytes: u8| [&[0x4a, bytes][..], &vec![0; bytes.into()]].concat();
        let observation = |bytes: u8| [&[0x1a, bytes + 2][..], &field(bytes)].concat();
        let each = 2 * FIELD_COST + MESSAGE_COST;
        for sizes in [[10, 30, 20], [30, 20, 10], [10, 20, 30]] {
            let request = sizes.map(observation).concat();
            let expected = 3 * each + (LazyStruct::text_bytes_max(60) - 60) + 30 * STRUCT_FOLD;
            assert_eq!(cost("PublishObservations", &request), Ok(expected), "{sizes:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for bad in [
            // A group, a field that ends after the message, a varint without end.
            &[0x0b, 0x0c][..],
            &[0x1a, 4, 0x0a, 1],
            &[0x1a, 4, 0x0a, 3, 0, 0],
            &[0x80; 11],
        ] {
            assert_eq!(cost("PublishObservations", bad), Err(Malformed), "{bad:?}");
        }
    }
}
