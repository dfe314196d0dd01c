//! From lines to observations. A line's exact bytes are the data; only what
//! names and marks it is read here. Whether it is any good is for the service
//! to say.

use std::{
    collections::HashSet,
    io::{BufRead, Read as _},
};

use serde::{Deserialize, de::IgnoredAny};
use sluice_proto::ingest::v1::{Observation, observation::Content};

/// Bytes of content after which a batch is sent, however few its lines: well
/// below the 16 MiB that a request may have.
pub(super) const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One line on its way.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Its number, from 1.
    pub(super) line: u64,
    pub(super) observation: Observation,
}

impl Item {
    /// The line's bytes.
    pub(super) fn data(&self) -> &[u8] {
        match &self.observation.content {
            Some(Content::Data(data)) => data,
            _ => &[],
        }
    }

    /// What the service tells apart by place when there is no marker.
    pub(super) fn unmarked_content(&self) -> Option<(&str, &[u8])> {
        self.observation.chkpt.is_empty().then(|| (self.observation.definition.as_str(), self.data()))
    }
}

/// A line that can't be sent, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsendable {
    pub(super) line: u64,
    pub(super) reason: &'static str,
    pub(super) details: String,
}

/// Reads lines and cuts them into batches.
pub(super) struct Lines<R> {
    reader: R,
    definition: Option<String>,
    batch_size: usize,
    line: u64,
    /// An item that did not fit into the last batch.
    held: Option<Item>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R, definition: Option<String>, batch_size: usize) -> Self {
        Self { reader, definition, batch_size, line: 0, held: None }
    }

    /// The next batch; `None` at the end. Lines that can't be sent are told on
    /// the way.
    pub(super) fn next(
        &mut self,
        mut unsendable: impl FnMut(Unsendable),
    ) -> std::io::Result<Option<Vec<Item>>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.batch_size {
            let next = match self.held.take() {
                Some(item) => Some(Ok(item)),
                None => self.read_line()?,
            };
            match next {
                None => break,
                Some(Err(fault)) => unsendable(fault),
                Some(Ok(item)) => {
                    let size = item.data().len();
                    if bytes + size > BATCH_BYTES && !batch.is_empty() {
                        self.held = Some(item);
                        break;
                    }
                    bytes += size;
                    batch.push(item);
                }
            }
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn read_line(&mut self) -> std::io::Result<Option<Result<Item, Unsendable>>> {
        loop {
            let mut bytes = Vec::new();
            if read_bounded(&mut self.reader, &mut bytes)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            strip_ending(&mut bytes);
            if bytes.len() > BATCH_BYTES {
                let details = format!("the line has more than {BATCH_BYTES} bytes");
                return Ok(Some(Err(Unsendable { line: self.line, reason: "TOO_LARGE", details })));
            }
            if !bytes.is_empty() {
                return Ok(Some(parse(self.line, bytes, self.definition.as_deref())));
            }
        }
    }
}

/// Reads a line and returns how much of it is in `bytes`: all of one that can be
/// sent, with its ending. The rest of a longer one is skipped.
fn read_bounded(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    let bytes_max = BATCH_BYTES + 2;
    let read = reader.take(bytes_max as u64).read_until(b'\n', bytes)?;
    if read == bytes_max && !bytes.ends_with(b"\n") {
        reader.skip_until(b'\n')?;
    }
    Ok(read)
}

/// Takes `\n` or `\r\n` off, and nothing else.
fn strip_ending(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

fn parse(line: u64, bytes: Vec<u8>, definition: Option<&str>) -> Result<Item, Unsendable> {
    let fault = |reason, details: String| Unsendable { line, reason, details };
    let head = match (read_head(&bytes), definition) {
        (Ok(head), _) => head,
        // The service will say what is wrong with it.
        (Err(_), Some(_)) => Head::default(),
        (Err(fault_of_it), None) => {
            return Err(fault("INVALID_JSON", format!("no --definition, and {fault_of_it}")));
        }
    };
    let Some(definition) = definition.map(str::to_owned).or(head.path.given()) else {
        return Err(fault("UNKNOWN_DEFINITION", "no --definition, and no text in `path`".into()));
    };
    let text = |text: Text| text.given().unwrap_or_default();
    let observation = Observation {
        definition,
        chkpt: text(head.chkpt),
        identifier: text(head.identifier),
        poll: text(head.poll),
        task: text(head.task),
        r#type: String::new(),
        content: Some(Content::Data(bytes.into())),
    };
    Ok(Item { line, observation })
}

/// Reads an object's head. Serde would also take a list for it.
fn read_head(bytes: &[u8]) -> Result<Head, String> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".into());
    }
    serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))
}

/// What is read of an object; the rest is skipped unseen.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    path: Text,
    chkpt: Text,
    identifier: Text,
    poll: Text,
    task: Text,
}

/// A string; any other value counts as absent.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Given(String),
    Absent(IgnoredAny),
}

impl Default for Text {
    fn default() -> Self {
        Self::Absent(IgnoredAny)
    }
}

impl Text {
    fn given(self) -> Option<String> {
        match self {
            Self::Given(text) => Some(text),
            Self::Absent(IgnoredAny) => None,
        }
    }
}

/// Which items of a request to send again. Where there is no marker the service
/// counts equal observations of a request, so those that stood before an open
/// one go along, and their answers are ignored.
pub(super) fn resend(items: &[Item], open: &[bool]) -> Vec<usize> {
    let twins: HashSet<(&str, &[u8])> = items
        .iter()
        .zip(open)
        .filter(|(_, open)| **open)
        .filter_map(|(item, _)| item.unmarked_content())
        .collect();
    let belongs = |at: &usize| {
        open[*at] || items[*at].unmarked_content().is_some_and(|content| twins.contains(&content))
    };
    (0..items.len()).filter(belongs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, definition: Option<&str>, batch: usize) -> (Vec<Vec<Item>>, Vec<Unsendable>) {
        let mut lines = Lines::new(text.as_bytes(), definition.map(str::to_owned), batch);
        let (mut batches, mut faults) = (vec![], vec![]);
        while let Some(batch) = lines.next(|fault| faults.push(fault)).unwrap() {
            batches.push(batch);
        }
        (batches, faults)
    }

    #[test]
    fn the_data_is_the_lines_very_bytes() {
        let text = "{ \"path\":\"a\",\"chkpt\":\"c\" , \"n\":1e400}  \r\n\n{\"path\":\"b\"}";
        let (batches, faults) = read(text, None, 10);
        assert_eq!(faults, []);
        let items = &batches[0];
        assert_eq!(items[0].data(), b"{ \"path\":\"a\",\"chkpt\":\"c\" , \"n\":1e400}  ");
        assert_eq!(
            (items[0].observation.definition.as_str(), items[0].observation.chkpt.as_str()),
            ("a", "c")
        );
        assert_eq!((items[1].line, items[1].data()), (3, &b"{\"path\":\"b\"}"[..]));
    }

    #[test]
    fn only_strings_are_taken() {
        let text = r#"{"path":"a","chkpt":5,"poll":{"x":[1]},"task":null,"identifier":["y"]}"#;
        let observation = &read(text, None, 1).0[0][0].observation;
        assert_eq!(
            [&observation.chkpt, &observation.poll, &observation.task, &observation.identifier],
            [""; 4]
        );
    }

    #[test]
    fn lines_that_cannot_be_sent_are_told() {
        let (batches, faults) = read("nonsense\n{\"path\":7}\n[\"a\"]\n", None, 10);
        assert!(batches.is_empty());
        let told: Vec<(u64, &str)> = faults.iter().map(|fault| (fault.line, fault.reason)).collect();
        assert_eq!(told, [(1, "INVALID_JSON"), (2, "UNKNOWN_DEFINITION"), (3, "INVALID_JSON")]);
        let (batches, faults) = read("nonsense\n", Some("d"), 10);
        assert_eq!((batches[0][0].data(), faults.len()), (&b"nonsense"[..], 0));
    }

    #[test]
    fn batches_are_full_and_bounded_in_bytes() {
        let (batches, _) = read(&"{}\n".repeat(5), Some("d"), 2);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        let large = format!("{}\n", "x".repeat(BATCH_BYTES / 2 + 1)).repeat(3);
        assert_eq!(read(&large, Some("d"), 100).0.len(), 3);
    }

    #[test]
    fn the_largest_line_is_sent_and_a_larger_one_is_skipped() {
        for ending in ["", "\n", "\r\n"] {
            let (batches, faults) = read(&("x".repeat(BATCH_BYTES) + ending), Some("d"), 1);
            assert_eq!((batches[0][0].data().len(), faults.len()), (BATCH_BYTES, 0), "{ending:?}");
            for size in [BATCH_BYTES + 1, BATCH_BYTES + 2, 2 * BATCH_BYTES] {
                let text = "x".repeat(size) + ending + if ending.is_empty() { "" } else { "{}" };
                let (batches, faults) = read(&text, Some("d"), 1);
                assert_eq!((faults[0].line, faults[0].reason), (1, "TOO_LARGE"), "{size} {ending:?}");
                let after: Vec<u64> = batches.iter().map(|batch| batch[0].line).collect();
                let expected: &[u64] = if ending.is_empty() { &[] } else { &[2] };
                assert_eq!((after.as_slice(), faults.len()), (expected, 1), "{size} {ending:?}");
            }
        }
    }

    #[test]
    fn no_more_of_a_line_is_held_than_can_be_sent() {
        let mut reader = std::io::BufReader::new(std::io::repeat(b'x').take(16 * BATCH_BYTES as u64));
        let mut bytes = Vec::new();
        assert_eq!(read_bounded(&mut reader, &mut bytes).unwrap(), BATCH_BYTES + 2);
        assert_eq!(bytes.len(), BATCH_BYTES + 2);
        assert_eq!(read_bounded(&mut reader, &mut bytes).unwrap(), 0, "the rest is skipped");
    }

    #[test]
    fn equal_unmarked_lines_keep_their_places_in_a_resend() {
        let (batches, _) = read("{\"n\":1}\n{\"n\":2}\n{\"n\":1}\n{\"chkpt\":\"c\"}\n", Some("d"), 10);
        assert_eq!(resend(&batches[0], &[false, false, true, false]), [0, 2]);
        assert_eq!(resend(&batches[0], &[false, false, false, true]), [3]);
    }
}
