//! The ingest service's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use sluice_proto::limits::RECORD_DATA_BYTES_MAX;
use sluice_service::{
    auth,
    client::TokenInterceptor,
    config::bounds,
    limits::Limits,
    peer::{ClientTls, Peer},
    postgres, telemetry, tls,
};
use tonic::transport::Endpoint;

use crate::{json, observation};

sluice_service::settings! {
    /// Settings of the ingest service.
    pub struct Settings {
        listen: SocketAddr = Some("127.0.0.1:7401"), "Address to serve gRPC and HTTP on.";
        keys_file: PathBuf = None, "TOML file of the valid tokens; read again when it changes.";
        migrate: bool = Some("false"), "Bring the schema up to date at the start.";
        results_url: String = None, "URL of the results service, or several, separated by commas. Each host name is resolved to all of its addresses, and calls are spread over them.";
        results_resolve_seconds: u64 = Some("5"), "How often those names are resolved again.";
        results_token_file: PathBuf = None, "File that holds the token for the results service (scope intake.write); read again when it changes.";
        results_ca_file: Option<PathBuf> = Some(""), "PEM file of the CAs of the results service's certificate, for an https results_url; read again when it changes. Empty: the system's CAs.";
        results_client_certificate_file: Option<PathBuf> = Some(""), "PEM file of the certificate to show to the results service, its chain after it; read again when it changes. Empty: none.";
        results_client_key_file: Option<PathBuf> = Some(""), "PEM file of that certificate's private key.";
        lanes: usize = Some("4"), "Gate transactions at the same time, at most; each has its own session.";
        database_connections: usize = Some("4"), "Sessions, at most, in each of three pools: definitions, outbox and files. Besides these: one for each lane, and six.";
        gate_retention_seconds: u64 = Some("604800"), "How long markers and windows are kept, at least; up to half as long again; never shorter than the longest `unique` or `throttle_period` of a definition.";
        outbox_bytes_max: u64 = Some("4294967296"), "Compressed bytes accepted and not yet recorded, over all replicas; above, callers are told to retry. One organisation may hold at most as much as is left for the others: half, if it is alone.";
        outbox_organisation_bytes_max: u64 = Some("1073741824"), "Upper limit of that for one organisation.";
        files_max: usize = Some("64"), "Files being published at the same time; above, callers are told to retry. One organisation may hold at most as many as are left for the others: half, if it is alone.";
        file_idle_seconds: u64 = Some("300"), "A file that makes no progress for this long is given up.";
        organisation_definitions_max: u32 = Some("1000"), "Definitions of one organisation, and system-wide ones, at most; every replica keeps all of them in memory.";
        organisation_schema_bytes_max: u32 = Some("4194304"), "Bytes of their schemas, descriptions and unique_by together, at most.";
        observations_max: usize = Some("1000"), "Observations in one request, at most.";
        observation_bytes_max: usize = Some("1048576"), "Largest content of one observation, in bytes; at most 16777216, the limit of results.";
        json_depth_max: usize = Some("128"), "Deepest nesting of JSON content, at most 128. Beyond this limit or the next two, the observation is an error (TOO_LARGE).";
        json_keys_max: usize = Some("100000"), "Keys in all objects of a content together, at most.";
        json_string_bytes_max: usize = Some("1048576"), "Longest string or key of a content, in bytes as written.";
        ..telemetry: telemetry::Settings;
        ..database: postgres::Settings;
        ..limits: Limits;
        ..tls: tls::Settings;
    }
    checks {
        keys_file => auth::fault(keys_file);
        results_token_file => TokenInterceptor::load(results_token_file).err()
            .map(|fault| format!("results_token_file: {fault}"));
        results_resolve_seconds => bounds::seconds("results_resolve_seconds", *results_resolve_seconds);
        lanes => bounds::count("lanes", *lanes);
        database_connections => bounds::count("database_connections", *database_connections);
        gate_retention_seconds =>
            bounds::within("gate_retention_seconds", *gate_retention_seconds, 1..=100 * bounds::SECONDS_MOST);
        outbox_bytes_max => bounds::at_least("outbox_bytes_max", *outbox_bytes_max, 1);
        outbox_organisation_bytes_max =>
            bounds::at_least("outbox_organisation_bytes_max", *outbox_organisation_bytes_max, 1);
        files_max => bounds::count("files_max", *files_max);
        file_idle_seconds => bounds::seconds("file_idle_seconds", *file_idle_seconds);
        observations_max => bounds::count("observations_max", *observations_max);
        observation_bytes_max =>
            bounds::within("observation_bytes_max", *observation_bytes_max, 1..=RECORD_DATA_BYTES_MAX);
        json_depth_max => bounds::within("json_depth_max", *json_depth_max, 1..=json::DEPTH_MAX);
        listen, tls => tls.faults(*listen);
        results_url, results_ca_file, results_client_certificate_file, results_client_key_file => {
            let tls = client_tls(
                results_ca_file,
                results_client_certificate_file,
                results_client_key_file,
            );
            let endpoints = results_endpoints(results_url);
            let peer = endpoints.and_then(|endpoints| Peer::new(endpoints, tls));
            peer.err().map(|fault| format!("results_url and results_*_file: {fault}"))
        };
    }
}

fn client_tls(
    ca_file: &Option<PathBuf>,
    certificate_file: &Option<PathBuf>,
    key_file: &Option<PathBuf>,
) -> ClientTls {
    ClientTls {
        ca_file: ca_file.clone(),
        certificate_file: certificate_file.clone(),
        key_file: key_file.clone(),
    }
}

/// How the results service is reached. A connection that is silently gone is
/// noticed within seconds.
fn results_endpoints(urls: &str) -> Result<Vec<Endpoint>, String> {
    let endpoint = |url: &str| {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| "not a URL".to_owned())?;
        if endpoint.uri().host().is_none() || endpoint.uri().scheme().is_none() {
            return Err("not a URL".to_owned());
        }
        Ok(endpoint
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true))
    };
    urls.split(',').map(|url| endpoint(url.trim())).collect()
}

impl Settings {
    /// What one request and its observations may have.
    pub(crate) fn observation_limits(&self) -> observation::Limits {
        observation::Limits {
            observations_max: self.observations_max,
            observation_bytes_max: self.observation_bytes_max,
            json: json::Bounds {
                depth_max: self.json_depth_max,
                keys_max: self.json_keys_max,
                string_bytes_max: self.json_string_bytes_max,
            },
        }
    }

    /// The results service.
    pub(crate) fn results(&self) -> Result<Peer, String> {
        let tls = client_tls(
            &self.results_ca_file,
            &self.results_client_certificate_file,
            &self.results_client_key_file,
        );
        Peer::new(results_endpoints(&self.results_url)?, tls)
    }
}
