//! The lines for those who have to know who changed what and who was refused.

use std::time::Duration;

use serde_json::{Value, json};
use sluice::keys::{NewToken, append_entries, tenant_scopes};
use sluice_proto::{
    ingest::v1::{DeleteDefinitionRequest, ListDefinitionsRequest, PutDefinitionRequest},
    results::v1::{
        ListResultsRequest, RecordResultsRequest, SetDefaultStorageConfigRequest,
        results_intake_service_client::ResultsIntakeServiceClient,
    },
};
use sluice_service::auth::KeysFile;
use sluice_tests::{Pair, Replica, Service, Tenant, eventually};
use tonic::Status;

use crate::{http::support::Http, support::*};

/// The audit lines of a replica, without what differs from run to run.
fn audit(replica: &Replica) -> Vec<Value> {
    let log = replica.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let picked = ["message", "token", "organisation", "what", "thing", "reason", "limit"];
    let only = |line: Value| {
        Value::Object(picked.map(|key| (key.to_owned(), line[key].clone())).into_iter().collect())
    };
    lines.filter(|line| line["target"] == "audit").map(only).collect()
}

fn changed(token: &str, organisation: &str, what: &str, thing: &str) -> Value {
    json!({"message": "changed", "token": token, "organisation": organisation, "what": what, "thing": thing, "reason": null, "limit": null})
}

fn refused(token: &str, organisation: &str, what: &str, reason: &str) -> Value {
    json!({"message": "refused", "token": token, "organisation": organisation, "what": what, "thing": null, "reason": reason, "limit": null})
}

fn limited(organisation: &str, limit: &str) -> Value {
    json!({"message": "turned away at a limit", "token": null, "organisation": organisation, "what": null, "thing": null, "reason": null, "limit": limit})
}

async fn told(replica: &Replica, wanted: Value) {
    let probe =
        || async { (audit(replica).iter().filter(|line| **line == wanted).count() == 1).then_some(()) };
    let waiting = format!("{wanted} once among {:?}", audit(replica));
    sluice_tests::eventually_within(Duration::from_secs(10), &waiting, probe).await;
}

fn id(token: &str) -> &str {
    token.split('_').nth(1).unwrap()
}

async fn json_pair() -> Pair {
    let builder = Pair::builder().processes();
    builder
        .flag(Service::Ingest, "log-format", "json")
        .flag(Service::Results, "log-format", "json")
        .start()
        .await
}

#[tokio::test]
async fn every_change_is_told_once_with_who_made_it() {
    let pair = json_pair().await;
    let (acme, ingest, results) = (pair.clients(Tenant::Acme), &pair.ingest[0], &pair.results[0]);
    let token = id(pair.token(Tenant::Acme));
    put(&acme, definition("a/b")).await;
    told(ingest, changed(token, "acme", "definition created", "a/b")).await;
    let overwritten = put(&acme, definition("a/b")).await;
    told(ingest, changed(token, "acme", "definition overwritten", "a/b")).await;
    let request = DeleteDefinitionRequest { path: "a/b".into(), ..DeleteDefinitionRequest::default() };
    acme.definitions.clone().delete_definition(request).await.unwrap();
    told(ingest, changed(token, "acme", "definition deleted", &overwritten.id)).await;

    let http = Http::ingest(&pair, Tenant::Acme);
    http.post("/aecontent/v1/acme/observations?path=c/d", "{}").await;
    told(ingest, changed(token, "acme", "definition created", "c/d")).await;

    let request = SetDefaultStorageConfigRequest::default();
    acme.storage.clone().set_default_storage_config(request).await.unwrap();
    told(results, changed(token, "acme", "storage config made the default", "db")).await;
}

#[tokio::test]
async fn every_refused_call_is_told_and_no_secret_is() {
    let pair = json_pair().await;
    let (ingest, results) = (&pair.ingest[0], &pair.results[0]);
    let acme = pair.clients(Tenant::Acme);
    let token = pair.token(Tenant::Acme);
    let is_refused = |answer: Result<(), Status>| assert!(answer.is_err());

    let foreign = PutDefinitionRequest {
        definition: Some(sluice_proto::ingest::v1::Definition {
            organisation: "globex".into(),
            ..definition("a")
        }),
    };
    is_refused(acme.definitions.clone().put_definition(foreign).await.map(drop));
    let put_definition = "/sluice.ingest.v1.DefinitionService/PutDefinition";
    told(ingest, refused(id(token), "acme", put_definition, "FOREIGN_ORGANISATION")).await;

    let mut intake = ResultsIntakeServiceClient::new(pair.authorised(Tenant::Acme, results));
    is_refused(intake.record_results(RecordResultsRequest::default()).await.map(drop));
    let record = "/sluice.results.v1.ResultsIntakeService/RecordResults";
    told(results, refused(id(token), "acme", record, "MISSING_SCOPE")).await;

    let (wrong_secret, list) = (format!("{token}0"), "/sluice.results.v1.ResultsService/ListResults");
    for (text, told_id) in
        [(&*wrong_secret, id(token)), ("sluice_unknown1_s3cret", "unknown1"), ("s3cret", "")]
    {
        let clients = sluice::connection::Clients::new(&ingest.url(), &results.url(), text).unwrap();
        is_refused(clients.results.clone().list_results(ListResultsRequest::default()).await.map(drop));
        told(results, refused(told_id, "", list, "UNAUTHENTICATED")).await;
    }

    let mut expired = NewToken::new(Some("acme"), tenant_scopes());
    expired.entry.expires = Some("2020-02-29T12:00:00Z".into());
    append_entries(&pair.keys_file, &[expired.entry.clone()]).unwrap();
    let clients = sluice::connection::Clients::new(&ingest.url(), &results.url(), &expired.text).unwrap();
    let line = refused(
        &expired.entry.id,
        "acme",
        "/sluice.ingest.v1.DefinitionService/ListDefinitions",
        "TOKEN_EXPIRED",
    );
    eventually("the line of an expired token", || async {
        is_refused(
            clients.definitions.clone().list_definitions(ListDefinitionsRequest::default()).await.map(drop),
        );
        audit(ingest).contains(&line).then_some(())
    })
    .await;

    let keys: KeysFile = toml::from_str(&std::fs::read_to_string(&pair.keys_file).unwrap()).unwrap();
    for log in [ingest.log(), results.log()] {
        assert!(!log.contains("s3cret"), "a secret that was sent");
        for tenant in [Tenant::Acme, Tenant::Globex, Tenant::Admin, Tenant::Intake] {
            let secret = pair.token(tenant).rsplit_once('_').unwrap().1;
            assert!(!log.contains(secret), "a secret of {tenant:?}");
        }
        assert!(keys.token.iter().all(|entry| !log.contains(&entry.secret_sha256)), "a hash");
    }
}

#[tokio::test]
async fn who_meets_a_limit_is_told_once_in_a_while() {
    let pair = Pair::builder()
        .processes()
        .flag(Service::Results, "log-format", "json")
        .flag(Service::Results, "organisation-requests-per-second-max", "1")
        .start()
        .await;
    let (acme, results) = (pair.clients(Tenant::Acme), &pair.results[0]);
    let mut refused = 0;
    while refused < 2 {
        let answer = acme.results.clone().list_results(ListResultsRequest::default()).await;
        refused += usize::from(answer.is_err());
    }
    told(results, limited("acme", "organisation_requests_per_second_max")).await;
}
