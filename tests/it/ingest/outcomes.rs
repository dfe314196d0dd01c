//! Every outcome over the wire with its fields, in the order the contract tries
//! them: error, duplicate, suppressed, throttled, success.

use prost_types::Timestamp;
use sluice_proto::{
    ingest::v1::{DeleteDefinitionRequest, Observation, Outcome, PublishStats},
    results::v1::{GetResultRequest, Result as ResultRecord},
};
use sluice_tests::{Tenant, eventually};

use crate::support::*;

#[tokio::test]
async fn each_outcome_comes_with_its_fields_in_request_order() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let (once, few) = (put(&acme, unique("once")).await, put(&acme, throttled("few", 1)).await);
    let first = r#"{"keys":{"ip":1},"n":1}"#;
    let answer = publish_as(
        &acme,
        "",
        vec![
            marked("once", "a", first),
            marked("once", "a", first),
            marked("once", "b", r#"{"n":2,"keys":{"ip":1.0}}"#),
            json("few", "{}"),
            marked("few", "t", "{}"),
            marked("nobody/knows", "u", "{}"),
            marked("once", "b", r#"{"n":2,"keys":{"ip":1.0}}"#),
            marked("few", "t", "{}"),
        ],
    )
    .await;
    let said = &answer.observations;
    assert_eq!(
        told(said),
        [
            (Outcome::Success, ""),
            (Outcome::Duplicate, "CHKPT"),
            (Outcome::Suppressed, "UNIQUE"),
            (Outcome::Success, ""),
            (Outcome::Throttled, "THROTTLE"),
            (Outcome::Error, "UNKNOWN_DEFINITION"),
            (Outcome::Duplicate, "CHKPT"),
            (Outcome::Duplicate, "CHKPT"),
        ]
    );
    let (one, other) = (said[0].ingest_id.as_str(), said[3].ingest_id.as_str());
    assert_eq!(ids(said), [one, one, one, other, "", "", one, ""]);
    let version = |id: &str| id.parse::<uuid::Uuid>().unwrap().get_version_num();
    assert_eq!((version(one), version(other)), (7, 7));
    let chkpts: Vec<_> = said.iter().map(|outcome| outcome.chkpt.as_str()).collect();
    assert_eq!(chkpts, ["a", "a", "b", "", "t", "u", "b", "t"]);
    let originals: Vec<_> = said.iter().map(|outcome| outcome.original_outcome()).collect();
    let none = Outcome::Unspecified;
    assert_eq!(
        originals,
        [none, Outcome::Success, none, none, none, none, Outcome::Suppressed, Outcome::Throttled]
    );
    let etags: Vec<_> = said.iter().map(|outcome| outcome.definition_etag.as_str()).collect();
    let (once, few) = (once.etag.as_str(), few.etag.as_str());
    assert_eq!(etags, [once, once, once, few, few, "", once, few]);
    let window_end = Timestamp { seconds: 2 * LONG, nanos: 0 };
    assert_eq!(said[4].details, format!("the window ends at {window_end}"));
    assert!(said[5].details.contains("nobody/knows"), "{}", said[5].details);
    assert!(said.iter().all(|outcome| outcome.delay.is_none()), "a delay belongs to retry");
    let stats = PublishStats {
        success: 2,
        suppressed: 1,
        throttled: 1,
        duplicate: 3,
        error: 1,
        retry: 0,
        accepted_bytes: first.len() as u64 + 2,
    };
    assert_eq!(answer.stats, Some(stats));
}

async fn result(clients: &sluice::connection::Clients, id: &str) -> ResultRecord {
    let request = GetResultRequest { id: id.into(), ..GetResultRequest::default() };
    eventually("the result", || async {
        let answer = clients.results.clone().get_result(request.clone()).await;
        answer.ok().and_then(|answer| answer.into_inner().result)
    })
    .await
}

#[tokio::test]
async fn a_result_says_what_its_observation_said() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("security/ssh/invalid-user")).await;
    let full = Observation {
        identifier: "host-1".into(),
        poll: "run-1".into(),
        task: "task-1".into(),
        r#type: "text/plain; charset=utf-8".into(),
        ..data("security/ssh/invalid-user", "not { JSON")
    };
    let bare = json("security/ssh/invalid-user", "{}");
    let said = publish(&acme, vec![full, bare.clone(), bare]).await;
    let record = result(&acme, &said[0].ingest_id).await;
    assert_eq!(
        (record.identifier.as_str(), record.poll.as_str(), record.task.as_str(), record.r#type.as_str()),
        ("host-1", "run-1", "task-1", "text/plain; charset=utf-8")
    );
    let (one, other) = (result(&acme, &said[1].ingest_id).await, result(&acme, &said[2].ingest_id).await);
    assert_eq!(one.identifier, "security/ssh/invalid-user");
    assert_eq!(one.r#type, "application/json");
    assert_eq!(one.organisation, "acme");
    assert!(!one.poll.is_empty(), "a poll is made when none is given");
    assert_eq!(one.poll, other.poll, "one for the whole request");
    assert_eq!(one.task, "");
}

#[tokio::test]
async fn unique_keys_are_compared_as_json_values() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, unique("once")).await;
    let equal = [
        r#"{"keys":{"a":1,"b":["x",null]}}"#,
        r#"{"keys":{"b":["x",null],"a":1}}"#,
        "{\n \"other\": true, \"keys\" : { \"a\":1.0 , \"b\":[ \"x\" , null ] } }",
        r#"{"keys":{"a":10e-1,"b":["\u0078",null]}}"#,
        r#"{"keys":{"\u0061":1,"b":["x",null]}}"#,
    ];
    let said = publish(&acme, equal.map(|text| json("once", text)).to_vec()).await;
    assert_eq!(kinds(&said)[0], Outcome::Success);
    assert!(kinds(&said)[1..].iter().all(|kind| *kind == Outcome::Suppressed), "{said:?}");
    let different = [
        r#"{"keys":{"a":"1","b":["x",null]}}"#,
        r#"{"keys":{"a":1,"b":[null,"x"]}}"#,
        r#"{"keys":{"a":1,"b":["x",null],"c":0}}"#,
        r#"{"keys":{"a":1,"b":["x",false]}}"#,
        r#"{"keys":9007199254740992}"#,
        r#"{"keys":9007199254740993}"#,
        r#"{"keys":0.1}"#,
        r#"{"keys":0.10000000000000000001}"#,
        r#"{"keys":-1}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":""}"#,
        r#"{"keys":"null"}"#,
    ];
    let said = publish(&acme, different.map(|text| json("once", text)).to_vec()).await;
    assert!(kinds(&said).iter().all(|kind| *kind == Outcome::Success), "{said:?}");
}

#[tokio::test]
async fn unique_by_takes_pointers_the_whole_content_and_other_than_json() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let by = |path: &str, pointers: &[&str]| {
        let unique_by = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        sluice_proto::ingest::v1::Definition { unique_by, ..unique(path) }
    };
    put(&acme, by("two", &["/a/0", "/b~1c"])).await;
    put(&acme, by("whole", &[""])).await;
    let text = |definition: &str, bytes: &'static str| Observation {
        r#type: "text/plain".into(),
        ..data(definition, bytes)
    };
    let said = publish(
        &acme,
        vec![
            json("two", r#"{"a":[1],"b/c":2}"#),
            json("two", r#"{"a":[1,9],"b/c":2.0}"#),
            json("two", r#"{"a":[1],"b/c":3}"#),
            json("two", r#"{"a":[],"b/c":2}"#),
            json("whole", r#"{"a":1,"b":2}"#),
            json("whole", r#"{"b":2,"a":1}"#),
            text("whole", "plain"),
            text("whole", "plain"),
            text("whole", "plain "),
            text("two", "plain"),
        ],
    )
    .await;
    use Outcome::{Error, Success, Suppressed};
    assert_eq!(
        kinds(&said),
        [Success, Suppressed, Success, Error, Success, Suppressed, Success, Suppressed, Success, Error]
    );
    assert_eq!(
        (said[3].reason.as_str(), said[9].reason.as_str()),
        ("MISSING_UNIQUE_FIELD", "MISSING_UNIQUE_FIELD")
    );
    assert!(said[3].details.contains("/a/0"), "{}", said[3].details);
}

#[tokio::test]
async fn a_duplicate_says_when_its_content_is_another_one() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let first = publish_one(&acme, marked("plain", "c", r#"{"a":1}"#)).await;
    let said = publish(
        &acme,
        vec![
            marked("plain", "c", r#"{"a":1}"#),
            marked("plain", "c", r#"{"a": 1}"#),
            marked("plain", "C", "{}"),
        ],
    )
    .await;
    assert_eq!(
        told(&said),
        [(Outcome::Duplicate, "CHKPT"), (Outcome::Duplicate, "CONTENT_DIFFERS"), (Outcome::Success, "")]
    );
    assert_eq!(ids(&said)[..2], [first.ingest_id.as_str(); 2]);
}

#[tokio::test]
async fn a_marker_belongs_to_its_definition_and_organisation() {
    let pair = builder().start().await;
    let (acme, globex, admin) =
        (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex), pair.clients(Tenant::Admin));
    for path in ["one", "other"] {
        put(&admin, sluice_proto::ingest::v1::Definition { organisation: String::new(), ..unique(path) })
            .await;
    }
    let content = r#"{"keys":1}"#;
    let said = publish(&acme, vec![marked("one", "c", content), marked("other", "c", content)]).await;
    assert_eq!(kinds(&said), [Outcome::Success; 2]);
    let said = publish_one(&globex, marked("one", "c", content)).await;
    assert_eq!(said.outcome(), Outcome::Success, "neither marker nor window of another organisation counts");
}

#[tokio::test]
async fn resending_under_a_request_id_doubles_nothing() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    put(&acme, definition("other")).await;
    let (a, b) = (json("plain", r#"{"n":"a"}"#), json("plain", r#"{"n":"b"}"#));
    let whole =
        vec![a.clone(), b.clone(), a.clone(), json("other", r#"{"n":"a"}"#), marked("plain", "own", "{}")];
    let first = publish_as(&acme, "r1", whole.clone()).await.observations;
    assert_eq!(kinds(&first), [Outcome::Success; 5], "two equal ones of one request are two");
    let again = publish_as(&acme, "r1", whole.clone()).await.observations;
    assert_eq!(kinds(&again), [Outcome::Duplicate; 5]);
    assert_eq!(ids(&again), ids(&first));
    let part = publish_as(&acme, "r1", vec![b.clone(), whole[3].clone()]).await.observations;
    assert_eq!(ids(&part), [ids(&first)[1], ids(&first)[3]]);
    assert_eq!(kinds(&part), [Outcome::Duplicate; 2]);
    let more = publish_as(&acme, "r1", vec![a.clone(), a.clone(), a.clone()]).await.observations;
    assert_eq!(
        kinds(&more),
        [Outcome::Duplicate, Outcome::Duplicate, Outcome::Success],
        "a third one is new"
    );
    let other = publish_as(&acme, "r2", vec![a.clone()]).await.observations;
    assert_eq!(kinds(&other), [Outcome::Success], "another request's id");
    let without = publish(&acme, vec![a.clone(), a]).await;
    assert_eq!(kinds(&without), [Outcome::Success; 2], "without any mark nothing is a resend");
}

#[tokio::test]
async fn an_organisations_own_definition_wins_over_the_system_wide_one() {
    let pair = builder().start().await;
    let (acme, globex, admin) =
        (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex), pair.clients(Tenant::Admin));
    let everyones =
        sluice_proto::ingest::v1::Definition { organisation: String::new(), ..definition("kind") };
    let everyones = put(&admin, everyones).await;
    assert_eq!(publish_one(&acme, json("kind", "{}")).await.definition_etag, everyones.etag);
    let own = sluice_proto::ingest::v1::Definition { disabled: true, ..definition("kind") };
    let own = put(&acme, own).await;
    let said = publish_one(&acme, json("kind", "{}")).await;
    assert_eq!((said.outcome(), said.reason.as_str()), (Outcome::Error, "DISABLED_DEFINITION"));
    assert_eq!(said.definition_etag, own.etag);
    assert_eq!(publish_one(&globex, json("kind", "{}")).await.definition_etag, everyones.etag);
    let delete = DeleteDefinitionRequest { path: "kind".into(), ..DeleteDefinitionRequest::default() };
    acme.definitions.clone().delete_definition(delete).await.unwrap();
    let said = publish_one(&acme, json("kind", "{}")).await;
    assert_eq!((said.outcome(), said.definition_etag), (Outcome::Success, everyones.etag));
}

#[tokio::test]
async fn a_throttled_observation_opens_no_window_and_a_suppressed_one_takes_no_slot() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    let both = |count| sluice_proto::ingest::v1::Definition {
        throttle_count: count,
        throttle_period: seconds(LONG),
        ..unique("both")
    };
    put(&acme, both(2)).await;
    let keyed = |key: u32| json("both", &format!(r#"{{"keys":{key}}}"#));
    let said = publish(&acme, vec![keyed(1), keyed(1), keyed(2), keyed(3), keyed(3), keyed(1)]).await;
    use Outcome::{Success, Suppressed, Throttled};
    assert_eq!(kinds(&said), [Success, Suppressed, Success, Throttled, Throttled, Suppressed]);
    put(&acme, both(3)).await;
    let said = publish(&acme, vec![keyed(3), keyed(4)]).await;
    assert_eq!(kinds(&said), [Success, Throttled], "a raised count counts on, and 3 was never let in before");
}

/// As a later build may have left it, to which this one had to come back.
#[tokio::test]
async fn a_marker_that_says_what_this_build_does_not_know_is_not_decided_anew() {
    let pair = builder().start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let observations = vec![marked("plain", "a", "1"), marked("plain", "b", "2")];
    let said = publish(&acme, observations.clone()).await;
    let mut all = accepted(&observations, &said);
    let unknown = "UPDATE marker SET outcome = 99 WHERE ingest_id = $1::text::uuid";
    let sql = pair.ingest_database.sql().await;
    assert_eq!(sql.execute(unknown, &[&said[0].ingest_id]).await.unwrap(), 1);
    let (known, new) = (vec![observations[1].clone()], vec![marked("plain", "c", "3"), json("plain", "4")]);
    for _ in 0..2 {
        let with_it = vec![json("plain", "0"), observations[0].clone()];
        let mut caller = acme.ingest.clone();
        let (failed, known, said) = tokio::join!(
            caller.publish_observations(request(with_it)),
            publish(&acme, known.clone()),
            publish(&acme, new.clone())
        );
        assert_eq!(failed.unwrap_err().code(), tonic::Code::Internal);
        assert_eq!(kinds(&known), [Outcome::Duplicate]);
        all.extend(accepted(&new, &said));
    }
    adds_up(&pair, &acme, &all).await;
}
