//! The check: every rule of `error`, and what makes two observations equal.

use super::*;
use crate::{
    definition::RawDraft,
    observation::{File, FileRead},
};

const WEEK: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);

fn definition(raw: RawDraft) -> Definition {
    let draft = raw.check(WEEK).unwrap();
    Definition::of("etag", draft)
}

fn unique(path: &str, by: &[&str]) -> RawDraft {
    let unique_by = by.iter().map(|pointer| (*pointer).to_owned()).collect();
    RawDraft { path: path.into(), unique: Some(Ok(60)), unique_by, ..RawDraft::default() }
}

fn definitions() -> Snapshot {
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#.to_owned();
    Snapshot::of(
        7,
        [
            definition(RawDraft { path: "plain".into(), ..RawDraft::default() }),
            definition(RawDraft { path: "off".into(), disabled: true, ..RawDraft::default() }),
            definition(RawDraft { path: "schema".into(), json_schema: schema, ..RawDraft::default() }),
            definition(unique("keys", &[])),
            definition(unique("whole", &[""])),
            definition(unique("two", &["/a", "/b"])),
            definition(RawDraft { organisation: "acme".parse().ok(), ..unique("plain", &["/a"]) }),
        ],
    )
}

fn observation(definition: &str, json: &str) -> Observation {
    Observation {
        definition: definition.into(),
        chkpt: String::new(),
        identifier: String::new(),
        poll: String::new(),
        task: String::new(),
        media_type: String::new(),
        unreadable: None,
        content: Content::Data(Bytes::copy_from_slice(json.as_bytes())),
    }
}

fn request(organisation: &str, request_id: &str, observations: Vec<Observation>) -> Request {
    let limits = Limits { observations_max: 1000, observation_bytes_max: 1024, json: Default::default() };
    let batch = Batch::new(organisation.parse().unwrap(), request_id.into(), observations, &limits).unwrap();
    Request { batch, poll: "poll".into(), limits }
}

fn check_all(request: &Request) -> Vec<Checked> {
    let indexes: Vec<usize> = (0..request.batch.observations.len()).collect();
    check(request, &indexes, &definitions(), |_| true)
}

fn accepted(observation: Observation) -> Candidate {
    match check_all(&request("globex", "", vec![observation])).remove(0) {
        Checked::Candidate(candidate) => *candidate,
        Checked::Fault(fault, _) => panic!("{fault:?}"),
    }
}

fn refused(observation: Observation) -> (&'static str, String) {
    match check_all(&request("globex", "", vec![observation])).remove(0) {
        Checked::Fault(fault, _) => (fault.reason, fault.details),
        Checked::Candidate(candidate) => panic!("{candidate:?}"),
    }
}

fn key(definition: &str, json: &str) -> Uuid {
    accepted(observation(definition, json)).window.unwrap().0
}

#[test]
fn every_fault_has_its_reason() {
    assert_eq!(refused(observation("nothing", "{}")).0, "UNKNOWN_DEFINITION");
    assert_eq!(refused(observation("off", "{}")).0, "DISABLED_DEFINITION");
    assert_eq!(refused(observation("plain", "{")).0, "INVALID_JSON");
    assert_eq!(refused(observation("schema", r#"{"n":"x"}"#)).0, "SCHEMA");
    assert_eq!(refused(observation("keys", "{}")).0, "MISSING_UNIQUE_FIELD");
    assert_eq!(refused(observation("two", r#"{"a":1}"#)).0, "MISSING_UNIQUE_FIELD");
    let absent = Observation { content: Content::Absent, ..observation("plain", "") };
    assert_eq!(refused(absent).0, "INVALID_FIELD");
    let text = Observation { media_type: "text/plain".into(), ..observation("keys", "hello") };
    assert_eq!(refused(text).0, "MISSING_UNIQUE_FIELD");
}

/// It may have been put by a build that had other bounds.
#[test]
fn under_a_kept_schema_that_can_not_be_used_nothing_is_let_in() {
    let mut kept = definition(RawDraft { path: "kept".into(), ..RawDraft::default() });
    kept.draft.json_schema = "{".into();
    let request = request("globex", "", vec![observation("kept", "{}")]);
    let checked = check(&request, &[0], &Snapshot::of(1, [kept]), |_| true).remove(0);
    let Checked::Fault(fault, _) = checked else { panic!("{checked:?}") };
    assert_eq!(fault.reason, "SCHEMA");
    assert!(fault.details.contains("can't be used: not JSON"), "{fault:?}");
    assert!(fault.depends_on_definition);
}

#[test]
fn details_say_which_rule_and_where() {
    let (_, details) = refused(observation("plain", r#"{"a":[1,"\ud800"]}"#));
    assert!(details.contains("a lone surrogate") && details.contains("/a/1"), "{details}");
    let (_, details) = refused(observation("schema", r#"{"n":"x"}"#));
    assert!(details.contains("/n") && details.contains("integer"), "{details}");
}

#[test]
fn content_is_taken_up_to_its_limit() {
    let sized = |bytes: usize| observation("plain", &format!("\"{}\"", "x".repeat(bytes - 2)));
    assert_eq!(accepted(sized(1024)).data.len(), 1024);
    assert_eq!(refused(sized(1025)).0, "TOO_LARGE");
}

#[test]
fn fields_are_taken_up_to_their_limits() {
    type Set = fn(&mut Observation, String);
    let fields: [(Set, usize); 4] = [
        (|o, text| o.chkpt = text, 512),
        (|o, text| o.identifier = text, 512),
        (|o, text| o.poll = text, 512),
        (|o, text| o.task = text, 512),
    ];
    for (set, bytes_max) in fields {
        let with = |text: String| {
            let mut observation = observation("plain", "{}");
            set(&mut observation, text);
            observation
        };
        accepted(with("x".repeat(bytes_max)));
        assert_eq!(refused(with("x".repeat(bytes_max + 1))).0, "INVALID_FIELD");
        assert_eq!(refused(with("a\0b".into())).0, "INVALID_FIELD");
    }
}

#[test]
fn media_types_decide_what_must_be_json() {
    let typed = |media_type: &str, data: &str| Observation {
        media_type: media_type.into(),
        ..observation("plain", data)
    };
    for json in ["application/json", "application/json; charset=utf-8", "Text/JSON", "application/vnd.x+json"]
    {
        assert_eq!(refused(typed(json, "hello")).0, "INVALID_JSON", "{json}");
    }
    for other in ["text/plain", "application/octet-stream", "image/png"] {
        assert_eq!(accepted(typed(other, "hello")).media_type, other);
    }
    for malformed in ["json", "a/", "/b", "a b/c", "text/plain\n", &format!("a/{}", "b".repeat(254))] {
        assert_eq!(refused(typed(malformed, "{}")).0, "INVALID_FIELD", "{malformed}");
    }
    assert_eq!(accepted(typed(&format!("a/{}", "b".repeat(253)), "x")).media_type.len(), 255);
}

#[test]
fn json_text_must_be_json_whatever_its_type() {
    let json = Observation {
        media_type: "text/plain".into(),
        content: Content::Json("{".into()),
        ..observation("plain", "")
    };
    assert_eq!(refused(json).0, "INVALID_JSON");
}

#[test]
fn defaults_are_filled_in() {
    let candidate = accepted(observation("plain", "{}"));
    assert_eq!((candidate.identifier.as_str(), candidate.poll.as_str()), ("plain", "poll"));
    assert_eq!((candidate.task.as_str(), candidate.media_type.as_str()), ("", "application/json"));
    assert_eq!((candidate.marker, candidate.window, candidate.throttle.is_none()), (None, None, true));
}

#[test]
fn an_organisations_own_definition_wins() {
    let batch = request("acme", "", vec![observation("plain", r#"{"a":1}"#)]);
    let Checked::Candidate(candidate) = check_all(&batch).remove(0) else { panic!("refused") };
    assert!(candidate.window.is_some());
    assert!(accepted(observation("plain", r#"{"a":1}"#)).window.is_none());
}

#[test]
fn equal_values_are_equal_however_they_are_written() {
    assert_eq!(
        key("keys", r#"{"keys":{"a":1,"b":"x"},"n":1}"#),
        key("keys", r#"{"n":2,"keys":{"b":"\u0078","a":1.0}}"#)
    );
    assert_ne!(key("keys", r#"{"keys":{"a":1}}"#), key("keys", r#"{"keys":{"a":2}}"#));
    assert_eq!(key("whole", r#"{"a":1,"b":2}"#), key("whole", r#"{ "b":2, "a":1 }"#));
    assert_ne!(key("two", r#"{"a":1,"b":2}"#), key("two", r#"{"a":2,"b":1}"#));
    let text = |data: &str| {
        accepted(Observation { media_type: "text/plain".into(), ..observation("whole", data) })
            .window
            .unwrap()
            .0
    };
    assert_eq!(text("a b"), text("a b"));
    assert_ne!(text("a b"), text("a  b"));
}

#[test]
fn keys_of_two_organisations_never_meet() {
    let of = |organisation: &str| {
        let chkpt = Observation { chkpt: "c".into(), ..observation("keys", r#"{"keys":1}"#) };
        match check_all(&request(organisation, "", vec![chkpt])).remove(0) {
            Checked::Candidate(candidate) => (candidate.marker, candidate.window),
            Checked::Fault(fault, _) => panic!("{fault:?}"),
        }
    };
    assert_ne!(of("acme").0, of("globex").0);
    assert_ne!(of("acme").1, of("globex").1);
}

fn markers(request: &Request, indexes: &[usize]) -> Vec<Option<Uuid>> {
    markers_while(request, indexes, |_| true)
}

fn markers_while(request: &Request, indexes: &[usize], goes_on: fn(usize) -> bool) -> Vec<Option<Uuid>> {
    let checked = check(request, indexes, &definitions(), goes_on);
    let marker = |checked| match checked {
        Checked::Candidate(candidate) => candidate.marker,
        Checked::Fault(fault, _) => panic!("{fault:?}"),
    };
    checked.into_iter().map(marker).collect()
}

#[test]
fn a_request_id_marks_each_occurrence_of_a_content() {
    let batch = request("acme", "r1", ["1", "2", "1", "1"].map(|n| observation("schema", n)).into());
    // The schema wants an object only where it says so; numbers are no objects.
    assert!(matches!(check_all(&batch)[0], Checked::Fault(..)));
    let batch = request("globex", "r1", ["1", "2", "1", "1"].map(|n| observation("plain", n)).into());
    let all = markers(&batch, &[0, 1, 2, 3]);
    let distinct: std::collections::HashSet<_> = all.iter().flatten().collect();
    assert_eq!(distinct.len(), 4);
    assert_eq!(markers(&batch, &[2, 3]), all[2..], "a part of the request is marked as in the whole");
    let other = request("globex", "r2", vec![observation("plain", "1")]);
    assert_ne!(markers(&other, &[0])[0], all[0]);
    // In turns, some at a time, it is as at once.
    assert_eq!(markers_while(&batch, &[0, 1, 2, 3], |done| done < 2), all[..2]);
    assert_eq!(markers_while(&batch, &[2, 3], |done| done < 1), all[2..3]);
    assert!(markers_while(&batch, &[2, 3], |_| false).is_empty());
}

#[test]
fn a_check_under_a_pattern_is_as_much_work_as_the_pattern_may_take() {
    let under = |pattern: &str| {
        let json_schema = format!(r#"{{"properties":{{"a":{{"pattern":"{pattern}"}}}}}}"#);
        let raw = RawDraft { path: "p".into(), json_schema, ..RawDraft::default() };
        let definitions = Snapshot::of(1, [definition(raw)]);
        let content = format!(r#"{{"a":"{}"}}"#, "x".repeat(900));
        let request = request("globex", "", vec![observation("p", &content)]);
        assert_eq!(work(&request, &definitions), u64::MAX, "it is still to be compiled");
        assert_eq!(check(&request, &[0], &definitions, |_| true).len(), 1);
        work(&request, &definitions)
    };
    let (usual, slow) = (under("^[a-z]+$"), under("a[ab]{900}[^ab]"));
    assert!(usual < 200_000, "{usual}");
    assert!(slow > 20_000_000, "{slow}");
}

#[test]
fn each_pointer_of_unique_by_is_work_of_its_own() {
    let by = |pointers: usize| {
        let definitions = Snapshot::of(1, [definition(unique("p", &vec![""; pointers]))]);
        work(&request("globex", "", vec![observation("p", &"1".repeat(1000))]), &definitions)
    };
    assert_eq!((by(1), by(2), by(32)), (16_000, 26_000, 326_000));
}

#[test]
fn a_chkpt_can_not_be_made_to_look_like_a_request() {
    let explicit = Observation { chkpt: "r1".into(), ..observation("plain", "1") };
    let batch = request("globex", "r1", vec![observation("plain", "1"), explicit]);
    let marked = markers(&batch, &[0, 1]);
    assert_ne!(marked[0], marked[1]);
}

#[test]
fn a_batch_is_taken_up_to_its_limits() {
    let limits = Limits { observations_max: 2, observation_bytes_max: 10, json: Default::default() };
    let batch = |id: &str, n: usize| {
        let observations = vec![observation("plain", "1"); n];
        Batch::new("acme".parse().unwrap(), id.into(), observations, &limits)
            .map(drop)
            .map_err(|e| e.reason())
    };
    assert_eq!(batch("", 0), Err("EMPTY_BATCH"));
    assert_eq!(batch("", 2), Ok(()));
    assert_eq!(batch("", 3), Err("INVALID_FIELD"));
    assert_eq!(batch(&"x".repeat(128), 1), Ok(()));
    assert_eq!(batch(&"x".repeat(129), 1), Err("INVALID_FIELD"));
}

/// A file of some type, and what is known of its bytes.
fn file(definition: &str, media_type: &str, read: Option<FileRead>) -> Observation {
    Observation {
        media_type: media_type.into(),
        content: Content::File(File { id: Uuid::now_v7(), checksum: String::new(), read }),
        ..observation(definition, "")
    }
}

fn read(content: &'static str, held: bool) -> Option<FileRead> {
    let bytes = Bytes::from(content);
    Some(FileRead {
        hash: hash::content(&bytes),
        bytes: bytes.len() as u64,
        held: held.then_some(bytes),
        media_type: "text/found".into(),
    })
}

const THING: &str = "application/x-thing";
const JSON: &str = "application/json";

#[test]
fn of_an_unread_file_what_is_certain_is_told() {
    for (definition, media_type, reason) in [
        ("nobody", THING, "UNKNOWN_DEFINITION"),
        ("off", THING, "DISABLED_DEFINITION"),
        ("schema", THING, "SCHEMA"),
        ("schema", "", "SCHEMA"),
        ("keys", THING, "MISSING_UNIQUE_FIELD"),
        ("plain", "no type", "INVALID_FIELD"),
    ] {
        assert_eq!(refused(file(definition, media_type, None)).0, reason, "{definition} {media_type}");
    }
    for (definition, media_type) in
        [("plain", ""), ("plain", THING), ("whole", THING), ("schema", JSON), ("keys", "a/b+json")]
    {
        let candidate = accepted(file(definition, media_type, None));
        assert_eq!(candidate.file, Some(FileStage::Unread));
        assert_eq!((candidate.window, candidate.fingerprint), (None, FINGERPRINT_UNKNOWN), "{definition}");
    }
}

#[test]
fn a_file_that_is_held_is_checked_like_an_observation() {
    let of = |definition: &str, content| file(definition, JSON, read(content, true));
    assert_eq!(refused(of("plain", "{")).0, "INVALID_JSON");
    assert_eq!(refused(of("schema", r#"{"n":"1"}"#)).0, "SCHEMA");
    assert_eq!(refused(of("keys", "{}")).0, "MISSING_UNIQUE_FIELD");
    for (definition, content) in [("keys", r#"{"keys":1.0}"#), ("whole", "[1]"), ("plain", "1")] {
        let (as_file, alike) = (of(definition, content), observation(definition, content));
        let id = match &as_file.content {
            Content::File(file) => file.id,
            _ => unreachable!(),
        };
        let (as_file, alike) = (accepted(as_file), accepted(alike));
        assert_eq!((as_file.window, as_file.fingerprint), (alike.window, alike.fingerprint));
        assert_eq!(as_file.file, Some(FileStage::Stored { bytes: content.len() as u64 }));
        assert_eq!((as_file.id, as_file.media_type.as_str()), (id, "text/found"));
        assert!(as_file.data.is_empty());
        assert_eq!((as_file.bytes(), alike.bytes()), (content.len() as u64, content.len() as u64));
    }
}

#[test]
fn a_file_that_is_not_held_is_kept_as_it_is_unless_the_definition_looks_inside() {
    let large = |definition: &str| file(definition, JSON, read("{", false));
    assert_eq!(refused(large("schema")).0, "TOO_LARGE");
    assert_eq!(refused(large("keys")).0, "TOO_LARGE");
    assert!(accepted(large("plain")).window.is_none());
    let bytes = Observation { media_type: THING.into(), ..observation("whole", "{") };
    let key = accepted(bytes).window;
    assert!(key.is_some());
    assert_eq!(accepted(large("whole")).window, key);
    assert_eq!(accepted(file("whole", THING, read("{", false))).window, key, "equal bytes are equal");
    assert_ne!(accepted(file("whole", THING, read("[", false))).window, key);
}

#[test]
fn a_declared_checksum_is_32_hex_digits_of_either_case() {
    let with = |checksum: &str| {
        let mut file = file("plain", THING, None);
        file.content = Content::File(File { id: Uuid::nil(), checksum: checksum.into(), read: None });
        file
    };
    for good in ["", "0123456789abcdef0123456789ABCDEF"] {
        accepted(with(good));
    }
    for bad in [&"a".repeat(31), &"a".repeat(33), &"g".repeat(32), &"é".repeat(16)] {
        let (reason, details) = refused(with(bad));
        assert_eq!(reason, "INVALID_FIELD");
        assert!(details.starts_with("checksum: "), "{details}");
    }
}
