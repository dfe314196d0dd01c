//! TLS on every way: callers, ingest to results, PostgreSQL, the command.

mod command;
mod database;
mod intake;
mod server;

use sluice::connection::{Clients, channel_with, token_interceptor};
use sluice_proto::{ingest::v1::ListDefinitionsRequest, results::v1::ListResultsRequest};
use sluice_service::peer::ClientTls;
use sluice_tests::{Pair, Tenant};
use tonic::Status;

/// Clients with other certificates than the pair's own.
fn clients(pair: &Pair, tls: &ClientTls) -> Clients {
    let channel = |url: String| channel_with(&url, tls).unwrap();
    let token = token_interceptor(pair.token(Tenant::Acme)).unwrap();
    Clients::over(channel(pair.ingest[0].url()), channel(pair.results[0].url()), &token)
}

/// Any call of both services.
async fn ask(clients: &Clients) -> Result<(), Status> {
    clients.definitions.clone().list_definitions(ListDefinitionsRequest::default()).await?;
    clients.results.clone().list_results(ListResultsRequest::default()).await.map(drop)
}
