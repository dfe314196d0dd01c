//! Clients of a pair: channels, the token in each request's metadata, and the
//! limits that large lists need.

use std::time::Duration;

use sluice_proto::{
    ingest::v1::{
        definition_service_client::DefinitionServiceClient, ingest_service_client::IngestServiceClient,
    },
    limits::ANSWER_BYTES_MAX,
    results::v1::{
        results_service_client::ResultsServiceClient,
        storage_config_service_client::StorageConfigServiceClient,
    },
};
use sluice_service::{client::TokenInterceptor, peer::ClientTls};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::failure::Failure;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that answers no ping for so long while a call is open is gone: a large
/// file has no deadline that would tell.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Windows that let a whole batch pass without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A channel whose requests carry a token.
pub type Authorised = InterceptedService<Channel, TokenInterceptor>;

/// Puts a token into every request.
///
/// # Errors
/// If it is empty, or no header can hold it. The text is not part of the error.
pub fn token_interceptor(token: &str) -> Result<TokenInterceptor, Failure> {
    TokenInterceptor::new(token).map_err(|fault| Failure::unusable(format!("the token: {fault}")))
}

/// A channel to a service's URL, connected when first needed and again whenever
/// it broke.
///
/// # Errors
/// If the URL is malformed.
pub fn channel(url: &str) -> Result<Channel, Failure> {
    channel_with(url, &ClientTls::default())
}

/// [`channel`], with files by which TLS trusts and is trusted. They are used where
/// the URL is https.
///
/// # Errors
/// If the URL is malformed, or a file can't be used.
pub fn channel_with(url: &str, tls: &ClientTls) -> Result<Channel, Failure> {
    endpoint(url, tls).map(|endpoint| endpoint.connect_lazy())
}

fn endpoint(url: &str, tls: &ClientTls) -> Result<Endpoint, Failure> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|fault| Failure::unusable(format!("{url}: {fault}")))?
        .executor(Gathered)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    tls.secure(endpoint).map_err(|fault| Failure::unusable(format!("{url}: {fault}")))
}

/// Runs connections so that requests made at the same moment leave in one write.
struct Gathered;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Gathered {
    fn execute(&self, connection: F) {
        tokio::spawn(sluice_service::gathered::gathered(connection));
    }
}

/// The clients of a pair, all with one token.
#[derive(Clone)]
pub struct Clients {
    /// Publishes observations.
    pub ingest: IngestServiceClient<Authorised>,
    /// Keeps the rules.
    pub definitions: DefinitionServiceClient<Authorised>,
    /// Lists, downloads and acknowledges results.
    pub results: ResultsServiceClient<Authorised>,
    /// Says where result data is kept.
    pub storage: StorageConfigServiceClient<Authorised>,
}

impl Clients {
    /// Clients of the two services at these URLs.
    ///
    /// # Errors
    /// If a URL or the token is malformed.
    pub fn new(ingest: &str, results: &str, token: &str) -> Result<Self, Failure> {
        Ok(Self::over(channel(ingest)?, channel(results)?, &token_interceptor(token)?))
    }

    /// Clients over channels that exist.
    #[must_use]
    pub fn over(ingest: Channel, results: Channel, token: &TokenInterceptor) -> Self {
        let ingest = InterceptedService::new(ingest, token.clone());
        let results = InterceptedService::new(results, token.clone());
        Self {
            ingest: IngestServiceClient::new(ingest.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            definitions: DefinitionServiceClient::new(ingest).max_decoding_message_size(ANSWER_BYTES_MAX),
            results: ResultsServiceClient::new(results.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            storage: StorageConfigServiceClient::new(results),
        }
    }
}

/// Whether the service at a URL says that it is SERVING.
pub async fn is_serving(url: &str) -> bool {
    says_serving(url, "").await
}

/// Whether it says so of one thing that `grpc.health.v1` knows there.
pub async fn says_serving(url: &str, of: &str) -> bool {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let check = async {
        let channel = channel(url).ok()?;
        let request = HealthCheckRequest { service: of.into() };
        let answer = HealthClient::new(channel).check(request).await.ok()?;
        (answer.into_inner().status() == ServingStatus::Serving).then_some(())
    };
    tokio::time::timeout(CONNECT_TIMEOUT, check).await.is_ok_and(|serving| serving.is_some())
}

/// Whether anybody answers at a URL, whatever the answer.
pub(crate) async fn is_reachable(url: &str, tls: &ClientTls) -> Result<bool, Failure> {
    let endpoint = endpoint(url, tls)?;
    Ok(tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await.is_ok_and(|open| open.is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_could_break_out_of_its_header_is_refused() {
        assert!(token_interceptor("sluice_a_b").is_ok());
        assert!(token_interceptor("sluice_a_b\r\nx: y").is_err());
    }

    #[tokio::test]
    async fn an_address_without_a_scheme_is_enough() {
        assert!(channel("127.0.0.1:7401").is_ok());
        assert!(channel("http://127.0.0.1:7401").is_ok());
        assert!(channel("http://not a host").is_err());
    }
}
