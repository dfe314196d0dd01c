//! The keys file while the services run: changes, rotation, tokens that end.

use std::time::{Duration, Instant, SystemTime};

use sluice::{
    connection::Clients,
    keys::{NewToken, append_entries, tenant_scopes},
};
use sluice_proto::{
    ingest::v1::{ListDefinitionsRequest, PublishObservationsRequest},
    results::v1::ListResultsRequest,
};
use sluice_service::auth::{INTAKE_SCOPE, KeyEntry, KeysFile};
use sluice_tests::{DEADLINE, Pair, Tenant, eventually};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::*;

fn clients(pair: &Pair, token: &str) -> Clients {
    Clients::new(&pair.ingest[0].url(), &pair.results[0].url(), token).unwrap()
}

fn new_token(expires_in: Option<Duration>) -> NewToken {
    let mut token = NewToken::new(Some("acme"), tenant_scopes());
    let time = |after| prost_types::Timestamp::from(SystemTime::now() + after).to_string();
    token.entry.expires = expires_in.map(time);
    token
}

/// What both services say of a token: nothing, or the reason.
async fn told(clients: &Clients) -> [Option<String>; 2] {
    let reason = |status: Status| {
        assert_eq!(status.code(), Code::Unauthenticated);
        status.get_error_details().error_info().unwrap().reason.clone()
    };
    let ingest = clients.definitions.clone().list_definitions(ListDefinitionsRequest::default()).await;
    let results = clients.results.clone().list_results(ListResultsRequest::default()).await;
    [ingest.err().map(reason), results.err().map(reason)]
}

fn both(reason: Option<&str>) -> [Option<String>; 2] {
    [reason.map(str::to_owned), reason.map(str::to_owned)]
}

/// Waits for both services to say it.
async fn eventually_told(clients: &Clients, reason: Option<&str>) {
    let probe = || async { (told(clients).await == both(reason)).then_some(()) };
    eventually("a reloaded keys file", probe).await;
}

/// Removes all other entries of the keys file.
fn keep(pair: &Pair, wanted: impl Fn(&KeyEntry) -> bool) {
    let mut file: KeysFile = toml::from_str(&std::fs::read_to_string(&pair.keys_file).unwrap()).unwrap();
    file.token.retain(wanted);
    std::fs::write(&pair.keys_file, toml::to_string(&file).unwrap()).unwrap();
}

#[tokio::test]
async fn two_tokens_of_one_client_are_valid_until_the_old_one_is_removed() {
    let pair = Pair::start().await;
    let (old, new) = (new_token(None), new_token(None));
    let (with_old, with_new) = (clients(&pair, &old.text), clients(&pair, &new.text));
    assert_eq!(told(&with_old).await, both(Some("UNAUTHENTICATED")));

    append_entries(&pair.keys_file, std::slice::from_ref(&old.entry)).unwrap();
    eventually_told(&with_old, None).await;
    append_entries(&pair.keys_file, std::slice::from_ref(&new.entry)).unwrap();
    eventually_told(&with_new, None).await;
    assert_eq!(told(&with_old).await, both(None), "both at the same time");

    keep(&pair, |entry| entry.id != old.entry.id);
    eventually_told(&with_old, Some("UNAUTHENTICATED")).await;
    assert_eq!(told(&with_new).await, both(None));
}

#[tokio::test]
async fn a_token_is_refused_after_its_expiry_and_not_before() {
    let pair = Pair::start().await;
    let (expired, valid) = (new_token(Some(Duration::ZERO)), new_token(Some(Duration::from_secs(3600))));
    append_entries(&pair.keys_file, &[expired.entry.clone(), valid.entry.clone()]).unwrap();
    eventually_told(&clients(&pair, &valid.text), None).await;
    eventually_told(&clients(&pair, &expired.text), Some("TOKEN_EXPIRED")).await;
}

#[tokio::test]
async fn an_open_stream_ends_when_its_token_expires() {
    let pair = Pair::start().await;
    put(&pair.clients(Tenant::Acme), definition("a/b")).await;
    // On a busy machine a short one expires before its stream is open.
    for seconds in [4, 8, 16, 32] {
        if stream_ends_with_its_token(&pair, Duration::from_secs(seconds)).await {
            return;
        }
    }
    panic!("never an open stream");
}

/// Whether a stream was open when its token expired; then it has ended so.
async fn stream_ends_with_its_token(pair: &Pair, lasts: Duration) -> bool {
    let ends = Instant::now() + lasts;
    let token = new_token(Some(lasts));
    append_entries(&pair.keys_file, std::slice::from_ref(&token.entry)).unwrap();
    let clients = clients(pair, &token.text);
    let known = || async { Some(told(&clients).await).filter(|told| *told != both(Some("UNAUTHENTICATED"))) };
    eventually("a reloaded keys file", known).await;

    // One request, and then nothing: only the service can end this.
    let requests = tokio_stream::once(request(vec![json("a/b", "{}")]))
        .chain(tokio_stream::pending::<PublishObservationsRequest>());
    let Ok(answers) = clients.ingest.clone().stream_observations(requests).await else { return false };
    let mut answers = answers.into_inner();
    let Ok(Some(first)) = answers.message().await else { return false };
    assert_eq!(first.observations.len(), 1);
    let ended = tokio::time::timeout(lasts + DEADLINE, answers.message()).await.expect("an end");
    let status = ended.unwrap_err();
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "TOKEN_EXPIRED");
    assert!(Instant::now() >= ends, "not before its time");
    eventually("that it is refused", || async {
        (told(&clients).await == both(Some("TOKEN_EXPIRED"))).then_some(())
    })
    .await;
    true
}

#[tokio::test]
async fn the_token_ingest_hands_over_with_is_replaced_while_it_runs() {
    let pair = Pair::start().await;
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("a/b")).await;
    let new = NewToken::new(None, [INTAKE_SCOPE]);
    let old = pair.token(Tenant::Intake).to_owned();
    append_entries(&pair.keys_file, std::slice::from_ref(&new.entry)).unwrap();
    keep(&pair, |entry| !old.starts_with(&format!("sluice_{}_", entry.id)));
    // Whoever knows this one no longer knows the old one.
    let last = new_token(None);
    append_entries(&pair.keys_file, std::slice::from_ref(&last.entry)).unwrap();
    eventually_told(&clients(&pair, &last.text), None).await;
    std::fs::write(&pair.intake_file, format!("{}\n", new.text)).unwrap();
    publish_one(&acme, json("a/b", "{}")).await;
    drained(&pair).await;
}
