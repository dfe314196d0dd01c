//! Nobody gets past tokens, scopes and organisations. Driven from the table of
//! scopes that is built from the contracts, so that a new rpc is covered when it
//! is written.

use sluice::keys::{NewToken, append_entries};
use sluice_proto::{
    RPCS, Rpc,
    ingest::v1::Outcome,
    results::v1::{
        AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, DownloadResultRequest, GetResultRequest,
    },
};
use sluice_service::auth::{INTAKE_SCOPE, SCOPES};
use sluice_tests::{Pair, Tenant, eventually};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::*;

/// A request that says in field 1 whose it is, as most do.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    organisation: String,
}

/// One that holds the thing to be written: a file's metadata says in its field 1
/// whose it is, a definition in its field 2, a storage config in its field 3.
#[derive(Clone, PartialEq, prost::Message)]
struct Holding {
    #[prost(message, optional, tag = "1")]
    thing: Option<Held>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Held {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
    #[prost(string, tag = "3")]
    third: String,
}

/// Calls any rpc by its path. What it answers is not read.
async fn call<M>(pair: &Pair, path: &'static str, authorization: &str, message: M) -> Result<(), Status>
where
    M: prost::Message + Send + Sync + 'static,
{
    let replica = if path.starts_with("/sluice.ingest.") { &pair.ingest[0] } else { &pair.results[0] };
    let channel: Channel = sluice::connection::channel(&replica.url()).unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::once(message));
    if !authorization.is_empty() {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    // Over the wire, a stream of one message is what a single one is too.
    let answer = client.streaming(request, http::uri::PathAndQuery::from_static(path), codec).await?;
    answer.into_inner().message().await.map(drop)
}

fn code(answer: &Result<(), Status>) -> Code {
    answer.as_ref().map_or_else(Status::code, |()| Code::Ok)
}

fn reason(answer: &Result<(), Status>) -> String {
    let details = answer.as_ref().unwrap_err().get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[tokio::test]
async fn no_rpc_answers_without_a_valid_token() {
    let pair = Pair::start().await;
    let good = pair.token(Tenant::Admin);
    let (id, _) = good.rsplit_once('_').unwrap();
    let wrong = [
        String::new(),
        "Bearer".into(),
        "Bearer nonsense".into(),
        format!("Bearer {id}_{}", "0".repeat(64)),
        format!("Bearer {id}_"),
        format!("Bearer {good}0"),
        format!("Bearer sluice_unknown_{}", "0".repeat(64)),
        format!("Basic {good}"),
        good.to_owned(),
    ];
    for Rpc { path, .. } in RPCS {
        for authorization in &wrong {
            let answer = call(&pair, path, authorization, Named::default()).await;
            assert_eq!(code(&answer), Code::Unauthenticated, "{path} with {authorization:?}");
            assert_eq!(reason(&answer), "UNAUTHENTICATED");
        }
    }
}

/// Adds tokens to the keys file and waits until both services know the last one.
async fn add_tokens(pair: &Pair, tokens: &[NewToken]) {
    let entries: Vec<_> = tokens.iter().map(|token| token.entry.clone()).collect();
    append_entries(&pair.keys_file, &entries).unwrap();
    let last = format!("Bearer {}", tokens.last().unwrap().text);
    for path in [RPCS[0].path, RPCS[RPCS.len() - 1].path] {
        let known = || async {
            (code(&call(pair, path, &last, Named::default()).await) != Code::Unauthenticated).then_some(())
        };
        eventually("the new tokens", known).await;
    }
}

#[tokio::test]
async fn every_rpc_needs_its_own_scope_and_no_other() {
    assert!(RPCS[0].path.starts_with("/sluice.ingest."));
    assert!(RPCS[RPCS.len() - 1].path.starts_with("/sluice.results."));
    let pair = Pair::start().await;
    let only: Vec<_> = SCOPES.iter().map(|scope| NewToken::new(None, [*scope])).collect();
    let all_but: Vec<_> = SCOPES
        .iter()
        .map(|scope| NewToken::new(None, SCOPES.into_iter().filter(|other| other != scope)))
        .collect();
    add_tokens(&pair, &only).await;
    add_tokens(&pair, &all_but).await;
    for Rpc { path, scope, .. } in RPCS {
        let at = SCOPES.iter().position(|known| known == scope).expect("a scope that exists");
        let answer = call(&pair, path, &format!("Bearer {}", all_but[at].text), Named::default()).await;
        assert_eq!(code(&answer), Code::PermissionDenied, "{path} without {scope}");
        assert_eq!(reason(&answer), "MISSING_SCOPE", "{path}");
        let answer = call(&pair, path, &format!("Bearer {}", only[at].text), Named::default()).await;
        let denied = [Code::PermissionDenied, Code::Unauthenticated].contains(&code(&answer));
        assert!(!denied, "{path} with {scope} alone: {answer:?}");
    }
}

#[tokio::test]
async fn no_rpc_acts_for_another_organisation() {
    let pair = Pair::start().await;
    let acme = format!("Bearer {}", pair.token(Tenant::Acme));
    for Rpc { path, scope, .. } in RPCS {
        let answer = match path.rsplit('/').next().unwrap() {
            // Its answer is a message with a status: see the tests of streams.
            "StreamObservations" => continue,
            "PutDefinition" | "ValidateDefinition" | "CreateStorageConfig" | "UpdateStorageConfig" => {
                let thing = Held { second: "globex".into(), third: "globex".into(), ..Held::default() };
                call(&pair, path, &acme, Holding { thing: Some(thing) }).await
            }
            "PublishFile" => {
                let thing = Held { first: "globex".into(), ..Held::default() };
                call(&pair, path, &acme, Holding { thing: Some(thing) }).await
            }
            _ => call(&pair, path, &acme, Named { organisation: "globex".into() }).await,
        };
        assert_eq!(code(&answer), Code::PermissionDenied, "{path}");
        let wanted = if *scope == INTAKE_SCOPE { "MISSING_SCOPE" } else { "FOREIGN_ORGANISATION" };
        assert_eq!(reason(&answer), wanted, "{path}");
    }
}

#[tokio::test]
async fn an_rpc_that_is_not_in_the_contract_does_not_exist() {
    let pair = Pair::start().await;
    let admin = format!("Bearer {}", pair.token(Tenant::Admin));
    for path in ["/sluice.ingest.v1.IngestService/Nonsense", "/sluice.results.v1.Nonsense/Get"] {
        let answer = call(&pair, path, &admin, Named::default()).await;
        assert_eq!(code(&answer), Code::Unimplemented, "{path}");
    }
}

/// Everything of a refusal that the caller could tell apart.
fn seen(status: &Status) -> (Code, String, Vec<u8>) {
    (status.code(), status.message().to_owned(), status.details().to_vec())
}

#[tokio::test]
async fn foreign_results_do_not_exist() {
    let pair = builder().start().await;
    let (acme, globex) = (pair.clients(Tenant::Acme), pair.clients(Tenant::Globex));
    put(&acme, definition("plain")).await;
    let said = publish_one(&acme, json("plain", "1")).await;
    assert_eq!(said.outcome(), Outcome::Success);
    drained(&pair).await;
    let mut refusals = Vec::new();
    for id in [said.ingest_id.as_str(), &uuid::Uuid::now_v7().to_string(), "no uuid", ""] {
        let (id, organisation) = (id.to_owned(), String::new());
        let mut results = globex.results.clone();
        let get = GetResultRequest { id: id.clone(), organisation: organisation.clone() };
        let ack = AcknowledgeResultRequest { id: id.clone(), organisation: organisation.clone() };
        let download = DownloadResultRequest { id: id.clone(), organisation: organisation.clone() };
        let downloaded = match results.download_result(download).await {
            Ok(stream) => stream.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        refusals.push([
            seen(&results.get_result(get).await.unwrap_err()),
            seen(&results.acknowledge_result(ack).await.unwrap_err()),
            seen(&downloaded),
        ]);
        let batch = BatchAcknowledgeResultsRequest { ids: vec![id], organisation };
        let batch = results.batch_acknowledge_results(batch).await.unwrap().into_inner();
        assert!(batch.ids.is_empty());
    }
    assert_eq!(refusals[0][0].0, Code::NotFound);
    assert!(refusals.iter().all(|of_id| *of_id == refusals[0]), "{refusals:?}");
    assert!(results(&globex).await.is_empty());
    assert_eq!(results(&acme).await.len(), 1, "still available to its own");
}

macro_rules! services_by_reflection {
    ($version:ident, $url:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(sluice::connection::channel($url).unwrap());
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        match answers.into_inner().message().await.unwrap().unwrap().message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_of_both_versions_names_each_ones_own_services_without_a_token() {
    let pair = Pair::start().await;
    for (replica, package) in [(&pair.ingest[0], "sluice.ingest."), (&pair.results[0], "sluice.results.")] {
        let services = RPCS.iter().map(|rpc| rpc.path.split('/').nth(1).unwrap());
        let mut own: Vec<_> = services.filter(|service| service.starts_with(package)).collect();
        own.dedup();
        let url = replica.url();
        for mut listed in [services_by_reflection!(v1, &url), services_by_reflection!(v1alpha, &url)] {
            assert!(listed.iter().any(|service| service == "grpc.health.v1.Health"), "{listed:?}");
            listed.retain(|service| service.starts_with("sluice."));
            listed.sort();
            assert_eq!(listed, own);
        }
    }
}
