//! Whom a client command talks to, and as whom: flags, the environment, or the
//! ready file of a running `sluice dev`.

use std::path::PathBuf;

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
use sluice_service::peer::ClientTls;

use crate::{
    connection::{Authorised, channel_with, is_reachable, token_interceptor},
    failure::Failure,
    ready::{self, Ready},
};

/// Flags that every client command has.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct TargetArgs {
    /// URL of the ingest service.
    #[arg(long, value_name = "URL", env = "SLUICE_INGEST")]
    ingest: Option<String>,
    /// URL of the results service.
    #[arg(long, value_name = "URL", env = "SLUICE_RESULTS")]
    results: Option<String>,
    /// The token; better in the environment than on the command line.
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    tls: TlsArgs,
    /// The organisation to act for [default: the token's].
    #[arg(long, env = "SLUICE_ORGANISATION")]
    organisation: Option<String>,
    /// Ready file of a running pair [default: that of the `sluice dev` started
    /// last].
    #[arg(long, value_name = "FILE", env = "SLUICE_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// How https URLs are trusted, and trust.
#[derive(Clone, Debug, Default, clap::Args)]
struct TlsArgs {
    /// PEM file of the CAs of the services' certificates [default: the system's].
    #[arg(long, value_name = "FILE", env = "SLUICE_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to the services.
    #[arg(long, value_name = "FILE", env = "SLUICE_CLIENT_CERTIFICATE_FILE")]
    client_certificate_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    #[arg(long, value_name = "FILE", env = "SLUICE_CLIENT_KEY_FILE")]
    client_key_file: Option<PathBuf>,
}

/// Whom to talk to.
#[derive(Clone, Debug)]
pub struct Target {
    tls: ClientTls,
    ingest: Option<String>,
    results: Option<String>,
    token: String,
    /// The organisation; empty means the token's.
    pub(crate) organisation: String,
}

impl TargetArgs {
    /// Whether the caller said whom to talk to, or as whom.
    pub(crate) fn is_given(&self) -> bool {
        self.ingest.is_some() || self.results.is_some() || self.token.is_some()
    }

    /// The ready file to use: the one named, or that of a running `dev`.
    pub(crate) fn ready_file(&self) -> Option<PathBuf> {
        // A dev that was killed leaves its pointer behind.
        self.ready_file.clone().or_else(|| ready::announced().filter(|path| path.exists()))
    }

    /// Finds out whom to talk to.
    ///
    /// # Errors
    /// If nothing says so, or a ready file can't be read.
    pub fn resolve(self) -> Result<Target, Failure> {
        let ready = self.ready_file().map(|path| Ready::read(&path)).transpose()?;
        self.resolve_with(ready.as_ref())
    }

    fn resolve_with(self, ready: Option<&Ready>) -> Result<Target, Failure> {
        // A local token goes nowhere but to the pair it was made for.
        let local = ready.filter(|_| self.ingest.is_none() && self.results.is_none());
        let token = self.token.clone().or_else(|| local.map(|ready| ready.token.clone()));
        let Some(token) = token else {
            return Err(Failure::unusable(match (&self.ingest, &self.results) {
                (None, None) => {
                    "no pair to talk to: start one by `sluice dev`, or give --ingest, --results and --token \
                     (SLUICE_INGEST, SLUICE_RESULTS, SLUICE_TOKEN)"
                }
                _ => "a token is needed: give --token or SLUICE_TOKEN",
            }));
        };
        let of_token = local.filter(|ready| ready.token == token).map(|ready| ready.organisation.clone());
        let TlsArgs { ca_file, client_certificate_file, client_key_file } = self.tls;
        // A pair on this machine speaks plain text, whatever the environment has.
        let tls = match local {
            Some(_) => ClientTls::default(),
            None => {
                ClientTls { ca_file, certificate_file: client_certificate_file, key_file: client_key_file }
            }
        };
        Ok(Target {
            tls,
            ingest: self.ingest.or_else(|| local.map(|ready| ready.ingest.clone())),
            results: self.results.or_else(|| local.map(|ready| ready.results.clone())),
            organisation: self.organisation.or(of_token).unwrap_or_default(),
            token,
        })
    }
}

impl Target {
    /// A target all of whose parts are known.
    pub(crate) fn of(ready: &Ready) -> Self {
        Self {
            tls: ClientTls::default(),
            ingest: Some(ready.ingest.clone()),
            results: Some(ready.results.clone()),
            token: ready.token.clone(),
            organisation: ready.organisation.clone(),
        }
    }

    /// The ingest service's URL.
    pub(crate) fn ingest_url(&self) -> Result<&str, Failure> {
        let missing = "which ingest service? give --ingest or SLUICE_INGEST";
        self.ingest.as_deref().ok_or_else(|| Failure::unusable(missing))
    }

    /// The results service's URL.
    pub(crate) fn results_url(&self) -> Result<&str, Failure> {
        let missing = "which results service? give --results or SLUICE_RESULTS";
        self.results.as_deref().ok_or_else(|| Failure::unusable(missing))
    }

    /// Makes sure that somebody answers as the ingest service.
    ///
    /// # Errors
    /// If nobody does.
    pub(crate) async fn reach_ingest(&self) -> Result<(), Failure> {
        let url = self.ingest_url()?;
        if is_reachable(url, &self.tls).await? {
            return Ok(());
        }
        Err(Failure::unusable(format!("{url}: nobody answers")))
    }

    fn authorised(&self, url: &str) -> Result<Authorised, Failure> {
        Ok(Authorised::new(channel_with(url, &self.tls)?, token_interceptor(&self.token)?))
    }

    /// A client on a connection of its own.
    pub(crate) fn ingest(&self) -> Result<IngestServiceClient<Authorised>, Failure> {
        let channel = self.authorised(self.ingest_url()?)?;
        Ok(IngestServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// A client on a connection of its own.
    pub(crate) fn definitions(&self) -> Result<DefinitionServiceClient<Authorised>, Failure> {
        let channel = self.authorised(self.ingest_url()?)?;
        Ok(DefinitionServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// A client on a connection of its own.
    pub(crate) fn results(&self) -> Result<ResultsServiceClient<Authorised>, Failure> {
        let channel = self.authorised(self.results_url()?)?;
        Ok(ResultsServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// A client on a connection of its own.
    pub(crate) fn storage(&self) -> Result<StorageConfigServiceClient<Authorised>, Failure> {
        Ok(StorageConfigServiceClient::new(self.authorised(self.results_url()?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::Pids;

    fn ready() -> Ready {
        Ready {
            ingest: "http://local:1".into(),
            results: "http://local:2".into(),
            organisation: "acme".into(),
            token: "local".into(),
            other_organisation: "globex".into(),
            other_token: "other".into(),
            admin_token: "admin".into(),
            pids: Pids::default(),
        }
    }

    #[test]
    fn a_running_dev_is_enough() {
        let target = TargetArgs::default().resolve_with(Some(&ready())).unwrap();
        assert_eq!((target.token.as_str(), target.organisation.as_str()), ("local", "acme"));
        assert_eq!(target.ingest_url().unwrap(), "http://local:1");
    }

    #[test]
    fn another_token_does_not_inherit_the_organisation() {
        let args = TargetArgs { token: Some("other".into()), ..TargetArgs::default() };
        let target = args.resolve_with(Some(&ready())).unwrap();
        assert_eq!((target.organisation.as_str(), target.results_url().unwrap()), ("", "http://local:2"));
    }

    #[test]
    fn a_local_token_is_never_sent_elsewhere() {
        let args = TargetArgs { ingest: Some("https://elsewhere".into()), ..TargetArgs::default() };
        let failure = args.resolve_with(Some(&ready())).unwrap_err();
        assert!(failure.to_string().contains("token") && failure.exit() == 2);
    }

    #[test]
    fn nothing_at_all_is_an_error_that_says_what_to_do() {
        let failure = TargetArgs::default().resolve_with(None).unwrap_err();
        assert!(failure.to_string().contains("sluice dev"));
    }
}
