//! Every outcome a file can have, before its bytes and after, against a stand-in
//! for the results service.

use sluice_proto::ingest::v1::{Definition, FileMetadata, Outcome, PublicationOutcome};
use sluice_service::Kind;

use crate::{files::support::*, support::*};

fn told(outcome: &PublicationOutcome) -> (Outcome, &str) {
    (outcome.outcome(), outcome.reason.as_str())
}

/// One that lets equal whole contents in once.
fn whole(path: &str) -> Definition {
    Definition { unique_by: vec![String::new()], ..unique(path) }
}

#[tokio::test]
async fn a_file_is_accepted_with_the_labels_that_were_sent() {
    let (intake, pair, acme) = start().await;
    let bytes = vec![7; 3 * MIB + 5];
    let metadata = FileMetadata {
        identifier: "name".into(),
        poll: "run".into(),
        task: "unit".into(),
        checksum: md5(&bytes).to_uppercase(),
        ..marked_file("plain", "m")
    };
    let said = publish_file(&acme, metadata, &bytes).await;
    assert_eq!((said.size, said.checksum), (bytes.len() as u64, md5(&bytes)));
    let said = said.outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Success, ""));
    assert_eq!(said.chkpt, "m");
    assert!(!said.definition_etag.is_empty());
    intake.adds_up(&pair, &[(said.ingest_id.clone(), bytes.clone().into())].into()).await;
    intake.told(|told| {
        let (result, upload) = (&told.results[&said.ingest_id], &told.begun[0]);
        assert!(result.stored_file && result.data.is_empty());
        let labels = [&result.definition, &result.identifier, &result.poll, &result.task, &result.r#type];
        assert_eq!(labels, ["plain", "name", "run", "unit", "application/x-thing"]);
        assert_eq!([&upload.organisation, &upload.r#type], ["acme", "application/x-thing"]);
        assert_eq!(upload.checksum, md5(&bytes));
    });
}

#[tokio::test]
async fn an_empty_file_without_a_type_is_fine() {
    let (intake, pair, acme) = start().await;
    let metadata = FileMetadata { r#type: String::new(), ..file("plain") };
    let said = publish_file(&acme, metadata, b"").await;
    assert_eq!((said.size, said.checksum), (0, md5(b"")));
    let id = said.outcome.unwrap().ingest_id;
    intake.adds_up(&pair, &[(id.clone(), "".into())].into()).await;
    intake.told(|told| assert_eq!(told.results[&id].r#type, "text/found"));
}

#[tokio::test]
async fn the_definitions_storage_config_goes_along() {
    let (intake, _pair, acme) = start().await;
    let config = uuid::Uuid::now_v7().to_string();
    put(&acme, Definition { storage_config: config.clone(), ..definition("kept/there") }).await;
    outcome(&acme, file("kept/there"), b"x").await;
    intake.told(|told| assert_eq!(told.begun[0].storage_config, config));
}

#[tokio::test]
async fn a_change_that_was_answered_rules_the_next_file() {
    let (intake, _pair, acme) = start().await;
    let configs: [String; 2] = std::array::from_fn(|_| uuid::Uuid::now_v7().to_string());
    for config in &configs {
        put(&acme, Definition { storage_config: config.clone(), ..definition("moves") }).await;
        assert_eq!(told(&outcome(&acme, file("moves"), b"x").await), (Outcome::Success, ""));
    }
    intake.told(|told| {
        let kept: Vec<_> = told.begun.iter().map(|upload| upload.storage_config.clone()).collect();
        assert_eq!(kept, configs);
    });
    for count in [1, 5] {
        put(&acme, throttled("few", count)).await;
        assert_eq!(told(&outcome(&acme, file("few"), b"x").await), (Outcome::Success, ""));
    }
}

#[tokio::test]
async fn a_known_marker_is_a_duplicate_before_a_byte_is_sent() {
    let (intake, pair, acme) = start().await;
    let first = outcome(&acme, marked_file("plain", "m"), b"one").await;
    assert_eq!(told(&first), (Outcome::Success, ""));
    // Of a content that is not read nothing is known.
    for content in [&b"one"[..], b"another"] {
        let again = publish_file(&acme, marked_file("plain", "m"), content).await;
        assert_eq!((again.size, again.checksum.as_str()), (0, ""));
        let again = again.outcome.unwrap();
        assert_eq!(told(&again), (Outcome::Duplicate, "CHKPT"));
        assert_eq!((again.original_outcome(), &again.ingest_id), (Outcome::Success, &first.ingest_id));
    }
    intake.told(|told| assert_eq!(told.begun.len(), 1, "no byte was sent for them"));
    // An observation with the same mark is the same.
    let said = publish_one(&acme, marked("plain", "m", "{}")).await;
    assert_eq!(told(&said), (Outcome::Duplicate, "CONTENT_DIFFERS"));
    intake.adds_up(&pair, &[(first.ingest_id, "one".into())].into()).await;
}

#[tokio::test]
async fn a_marker_that_comes_while_bytes_flow_makes_a_duplicate_and_the_bytes_go() {
    let (intake, pair, acme) = start().await;
    let late = Sending::begin(&acme, marked_file("plain", "m"));
    late.chunk("lo").await;
    intake.until("bytes of the late one", |told| (told.bytes > 0).then_some(())).await;
    let first = outcome(&acme, marked_file("plain", "m"), b"first").await;
    assert_eq!(told(&first), (Outcome::Success, ""));
    late.chunk("ser").await;
    let said = late.end().await.unwrap();
    assert_eq!((said.size, said.checksum), (5, md5(b"loser")));
    let said = said.outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Duplicate, "CONTENT_DIFFERS"));
    assert_eq!(said.ingest_id, first.ingest_id);
    intake.adds_up(&pair, &[(first.ingest_id, "first".into())].into()).await;
    intake.told(|told| assert_eq!(told.discarded.len(), 1));
}

#[tokio::test]
async fn equal_whole_contents_are_suppressed_across_files_and_observations() {
    let (intake, pair, acme) = start().await;
    put(&acme, whole("once")).await;
    let first = outcome(&acme, file("once"), b"thing").await;
    let second = outcome(&acme, marked_file("once", "m"), b"thing").await;
    assert_eq!(told(&second), (Outcome::Suppressed, "UNIQUE"));
    assert_eq!(second.ingest_id, first.ingest_id);
    let other = outcome(&acme, file("once"), b"things").await;
    assert_eq!(told(&other), (Outcome::Success, ""));
    // The same bytes, as an observation.
    let mut same = data("once", "thing");
    same.r#type = "application/x-thing".into();
    let said = publish_one(&acme, same).await;
    assert_eq!((told(&said), &said.ingest_id), ((Outcome::Suppressed, "UNIQUE"), &first.ingest_id));
    // What was suppressed under a mark is remembered.
    let again = outcome(&acme, marked_file("once", "m"), b"thing").await;
    assert_eq!((again.outcome(), again.original_outcome()), (Outcome::Duplicate, Outcome::Suppressed));
    let accepted = [(first.ingest_id, "thing".into()), (other.ingest_id, "things".into())];
    intake.adds_up(&pair, &accepted.into()).await;
}

#[tokio::test]
async fn a_full_throttle_window_is_told_before_a_byte_is_sent_and_remembered() {
    let (intake, pair, acme) = start().await;
    put(&acme, throttled("few", 1)).await;
    let first = outcome(&acme, file("few"), b"1").await;
    for (metadata, remembered) in [(file("few"), 0), (marked_file("few", "m"), 1)] {
        let said = publish_file(&acme, metadata, b"2").await;
        assert_eq!(said.size, 0);
        let said = said.outcome.unwrap();
        assert_eq!(told(&said), (Outcome::Throttled, "THROTTLE"));
        assert!(said.details.contains("ends at") && said.ingest_id.is_empty(), "{said:?}");
        assert_eq!(gate_rows(&pair).await, 1 + remembered);
    }
    // Even when slots are free again: it was told.
    put(&acme, throttled("few", 5)).await;
    let again = outcome(&acme, marked_file("few", "m"), b"2").await;
    assert_eq!(told(&again), (Outcome::Duplicate, "CHKPT"));
    assert_eq!(again.original_outcome(), Outcome::Throttled);
    let again = publish_one(&acme, marked("few", "m", "{}")).await;
    assert_eq!(told(&again), (Outcome::Duplicate, "CHKPT"), "its content was never known");
    intake.told(|told| assert_eq!(told.begun.len(), 1));
    intake.adds_up(&pair, &[(first.ingest_id, "1".into())].into()).await;
}

#[tokio::test]
async fn a_window_that_fills_while_bytes_flow_throttles_and_takes_no_slot() {
    let (intake, pair, acme) = start().await;
    put(&acme, throttled("few", 1)).await;
    let late = Sending::begin(&acme, file("few"));
    late.chunk("late").await;
    intake.until("bytes of the late one", |told| (told.bytes > 0).then_some(())).await;
    let first = outcome(&acme, file("few"), b"first").await;
    let said = late.end().await.unwrap().outcome.unwrap();
    assert_eq!(told(&said), (Outcome::Throttled, "THROTTLE"));
    intake.adds_up(&pair, &[(first.ingest_id, "first".into())].into()).await;
}

#[tokio::test]
async fn with_unique_a_full_window_waits_for_the_bytes_since_suppressed_comes_first() {
    let (intake, pair, acme) = start().await;
    put(&acme, Definition { unique_by: vec![String::new()], unique: seconds(LONG), ..throttled("both", 1) })
        .await;
    let first = outcome(&acme, file("both"), b"same").await;
    let same = outcome(&acme, marked_file("both", "m"), b"same").await;
    assert_eq!((told(&same), &same.ingest_id), ((Outcome::Suppressed, "UNIQUE"), &first.ingest_id));
    let other = outcome(&acme, file("both"), b"other").await;
    assert_eq!(told(&other), (Outcome::Throttled, "THROTTLE"));
    intake.adds_up(&pair, &[(first.ingest_id, "same".into())].into()).await;
}

#[tokio::test]
async fn faults_that_need_no_byte_are_told_at_once_and_leave_nothing() {
    let (intake, pair, acme) = start().await;
    put(&acme, Definition { disabled: true, ..definition("off") }).await;
    put(&acme, Definition { json_schema: "{}".into(), ..definition("schema") }).await;
    put(&acme, unique("keys")).await;
    let field = |change: fn(&mut FileMetadata)| {
        let mut metadata = file("plain");
        change(&mut metadata);
        metadata
    };
    for (metadata, reason) in [
        (file("nobody/knows"), "UNKNOWN_DEFINITION"),
        (file("off"), "DISABLED_DEFINITION"),
        (file("schema"), "SCHEMA"),
        (file("keys"), "MISSING_UNIQUE_FIELD"),
        (field(|file| file.chkpt = "x".repeat(513)), "INVALID_FIELD"),
        (field(|file| file.r#type = "no type".into()), "INVALID_FIELD"),
        (field(|file| file.checksum = "x".repeat(32)), "INVALID_FIELD"),
        (field(|file| file.checksum = "a".repeat(31)), "INVALID_FIELD"),
        (field(|file| file.checksum = "a".repeat(33)), "INVALID_FIELD"),
    ] {
        let said = publish_file(&acme, metadata, b"x").await;
        assert_eq!(said.size, 0);
        let said = said.outcome.unwrap();
        assert_eq!(told(&said), (Outcome::Error, reason), "{said:?}");
        assert!(!said.details.is_empty());
    }
    assert_eq!(gate_rows(&pair).await, 0);
    intake.told(|told| assert!(told.begun.is_empty()));
}

#[tokio::test]
async fn a_definition_put_on_another_replica_counts_at_once() {
    let (_intake, pair, acme) = start_with(builder().ingest_replicas(2)).await;
    let other = pair.clients_of(sluice_tests::Tenant::Acme, 1, 0);
    for n in 0..5 {
        let path = format!("new/{n}");
        put(&other, definition(&path)).await;
        assert_eq!(told(&outcome(&acme, file(&path), b"x").await), (Outcome::Success, ""));
    }
}

#[tokio::test]
async fn a_json_file_is_checked_like_an_observation_before_it_is_sealed() {
    let (intake, pair, acme) = start().await;
    let schema = r#"{"type":"object","required":["n"]}"#.to_owned();
    put(&acme, Definition { json_schema: schema, ..definition("schema") }).await;
    put(&acme, unique("keys")).await;
    for (path, content, reason) in [
        ("plain", "{", "INVALID_JSON"),
        ("plain", "", "INVALID_JSON"),
        ("schema", r#"{"m":1}"#, "SCHEMA"),
        ("keys", r#"{"m":1}"#, "MISSING_UNIQUE_FIELD"),
    ] {
        let said = publish_file(&acme, json_file(path), content.as_bytes()).await;
        assert_eq!((said.size, said.checksum), (content.len() as u64, md5(content.as_bytes())));
        let said = said.outcome.unwrap();
        assert_eq!(told(&said), (Outcome::Error, reason), "{said:?}");
    }
    assert_eq!(gate_rows(&pair).await, 0);
    intake.told(|told| assert!(told.sealed.is_empty(), "a bad one is never sealed"));
    let first = outcome(&acme, json_file("keys"), br#"{"keys":[1]}"#).await;
    let equal = outcome(&acme, json_file("keys"), br#"{"keys":[1.0],"more":2}"#).await;
    assert_eq!((told(&equal), &equal.ingest_id), ((Outcome::Suppressed, "UNIQUE"), &first.ingest_id));
    let equal = publish_one(&acme, json("keys", r#"{"keys": [1]}"#)).await;
    assert_eq!((told(&equal), &equal.ingest_id), ((Outcome::Suppressed, "UNIQUE"), &first.ingest_id));
    intake.adds_up(&pair, &[(first.ingest_id, r#"{"keys":[1]}"#.into())].into()).await;
}

#[tokio::test]
async fn a_json_file_is_looked_into_up_to_the_limit_of_an_observation() {
    let (intake, pair, acme) = start().await;
    let schema = Definition { json_schema: r#"{"type":"string"}"#.into(), ..definition("schema") };
    for definition in [schema, unique("keys"), whole("whole")] {
        put(&acme, definition).await;
    }
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let fits = outcome(&acme, json_file("schema"), text(MIB).as_bytes()).await;
    assert_eq!(told(&fits), (Outcome::Success, ""));
    for path in ["schema", "keys"] {
        let said = outcome(&acme, json_file(path), text(MIB + 1).as_bytes()).await;
        assert_eq!(told(&said), (Outcome::Error, "TOO_LARGE"), "{said:?}");
    }
    // A larger one is kept as it is where nobody looks inside: even if it is none.
    let mut accepted = Contents::from([(fits.ingest_id, text(MIB).into())]);
    for path in ["plain", "whole"] {
        let large = "{".repeat(MIB + 1);
        let said = outcome(&acme, json_file(path), large.as_bytes()).await;
        assert_eq!(told(&said), (Outcome::Success, ""), "{said:?}");
        accepted.insert(said.ingest_id, large.into());
    }
    intake.adds_up(&pair, &accepted).await;
}

#[tokio::test]
async fn what_the_store_says_becomes_an_outcome_or_an_internal_error() {
    let (intake, pair, acme) = start().await;
    let mut sent = 0;
    for (kind, reason, expected) in [
        (Kind::InvalidArgument, "CHECKSUM_MISMATCH", Some((Outcome::Error, "CHECKSUM_MISMATCH"))),
        (Kind::ResourceExhausted, "FILE_TOO_LARGE", Some((Outcome::Error, "TOO_LARGE"))),
        (Kind::Unavailable, "UNAVAILABLE", Some((Outcome::Retry, "NOT_KEPT"))),
        (Kind::FailedPrecondition, "UPLOAD_EXISTS", Some((Outcome::Retry, "NOT_KEPT"))),
        (Kind::FailedPrecondition, "OTHER", None),
        (Kind::Internal, "INTERNAL", None),
    ] {
        for manner in [Manner::Refuse(kind, reason), Manner::RefuseSealing(kind, reason)] {
            intake.goes(manner.clone());
            let messages = [metadata_message(marked_file("plain", "m")), chunk_message("x")];
            let said = send(&acme, futures_util::stream::iter(messages)).await;
            sent += 1;
            match (expected, said) {
                (Some(expected), Ok(said)) => {
                    let said = said.outcome.unwrap();
                    assert_eq!(told(&said), expected, "{manner:?}");
                    assert_eq!(said.delay.is_some(), expected.0 == Outcome::Retry);
                }
                (None, Err(status)) => {
                    assert_eq!((status.code(), status.message()), (tonic::Code::Internal, "internal error"));
                }
                (_, said) => panic!("{manner:?}: {said:?}"),
            }
        }
    }
    for manner in [Manner::WrongSize, Manner::WrongChecksum] {
        intake.goes(manner);
        let messages = [metadata_message(marked_file("plain", "m")), chunk_message("x")];
        let status = send(&acme, futures_util::stream::iter(messages)).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Internal);
        sent += 1;
    }
    assert_eq!(gate_rows(&pair).await, 0, "nothing was taken by a file that never became one");
    intake.goes(Manner::Store);
    let said = outcome(&acme, marked_file("plain", "m"), b"x").await;
    assert_eq!(told(&said), (Outcome::Success, ""));
    intake.adds_up(&pair, &[(said.ingest_id, "x".into())].into()).await;
    intake.told(|told| assert_eq!(told.discarded.len(), sent, "all others were given up at once"));
}
