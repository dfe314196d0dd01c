//! From a storage config to a store: the client of its provider, with its
//! credentials, within what the operator allows.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions, RetryConfig,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector},
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
};
use rustls_platform_verifier::BuilderVerifierExt;

use super::{
    credentials::Credentials,
    guard::{Policy, public_addresses},
    place::{Place, Provider},
    store::{SigningLimit, Store},
};

/// How long a connection to a provider may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a provider may be silent, the sending of a part included.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A request is tried again for this long; then whoever asked tries again later.
const RETRY_TIME_MAX: Duration = Duration::from_secs(20);
const RETRIES_MAX: usize = 3;
/// Longest signature of S3 and Google.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The service's own identity has short-lived credentials, whose end is not told
/// here; they are renewed when less than this is left.
const IDENTITY_LIFE_MIN: Duration = Duration::from_secs(5 * 60);

/// Opens a place. Nothing is sent yet.
///
/// # Errors
/// Why it can't be, for the one who configured it; no credentials are in it.
pub fn open(place: &Place, credentials: &Credentials, policy: &Policy) -> Result<Store, String> {
    check(place, credentials, policy)?;
    let unusable = |_| "the client of this provider can't be set up with these credentials".to_owned();
    // What the operator allowed by name may be anywhere; all else is public.
    let guarded = !credentials.is_empty() && credentials.endpoint().is_none();
    let connector = Connector { guarded };
    match place.provider() {
        Provider::Db => Err("type db has no store".into()),
        Provider::Local => {
            let root = policy.local_root.as_deref().ok_or("local storage is not allowed here")?;
            let base = folder(root, place)?;
            let files = LocalFileSystem::new_with_prefix(&base).map_err(unusable)?;
            Ok(Store::local(place.clone(), files.with_fsync(true).with_automatic_cleanup(false), base))
        }
        Provider::S3 => {
            let store = s3(place, credentials).with_http_connector(connector).build().map_err(unusable)?;
            Ok(Store::cloud(place.clone(), Arc::new(store), limit(credentials)))
        }
        Provider::Gs => {
            let store = gs(place, credentials)?.with_http_connector(connector).build().map_err(unusable)?;
            Ok(Store::cloud(place.clone(), Arc::new(store), limit(credentials)))
        }
        Provider::Az => {
            let store = az(place, credentials).with_http_connector(connector).build().map_err(unusable)?;
            Ok(Store::cloud(place.clone(), Arc::new(store), limit(credentials)))
        }
    }
}

/// Whether the operator allows it, and the provider's client can do with it.
///
/// # Errors
/// Why not.
pub fn check(place: &Place, credentials: &Credentials, policy: &Policy) -> Result<(), String> {
    // What is kept may be of an earlier build, which took more.
    credentials.check(place.provider())?;
    if let Some(endpoint) = called(place, credentials) {
        policy.allows_endpoint(&endpoint).map_err(|fault| format!("endpoint {endpoint}: {fault}"))?;
    }
    match place.provider() {
        Provider::Db => Ok(()),
        Provider::Local if policy.local_root.is_none() => Err("local storage is not allowed here".into()),
        Provider::Local => Ok(()),
        _ if credentials.is_empty() && !policy.allows_identity(place) => {
            Err("credentials are needed: the service's own identity is not for this bucket".into())
        }
        Provider::S3 if reqwest::Url::parse(&amazons(place, credentials)).is_err() => {
            Err("region, and bucket in virtual-hosted style, must be able to be parts of a host's name"
                .into())
        }
        _ => Ok(()),
    }
}

/// The endpoint that requests go to, if the credentials name one. In S3's virtual-hosted style
/// the bucket is a part of the host's name.
fn called(place: &Place, credentials: &Credentials) -> Option<String> {
    let endpoint = credentials.endpoint()?;
    Some(match endpoint.split_once("://") {
        Some((scheme, host)) if is_virtual_hosted(credentials) => {
            format!("{scheme}://{}.{host}", place.bucket())
        }
        _ => endpoint.to_owned(),
    })
}

/// Amazon's own endpoint, as the client makes it. It relies on that being a URL.
fn amazons(place: &Place, credentials: &Credentials) -> String {
    let bucket = if is_virtual_hosted(credentials) { format!("{}.", place.bucket()) } else { String::new() };
    format!("https://{bucket}s3.{}.amazonaws.com", region(credentials))
}

fn region(credentials: &Credentials) -> &str {
    credentials.get("region").unwrap_or("us-east-1")
}

fn is_virtual_hosted(credentials: &Credentials) -> bool {
    credentials.get("virtual_hosted_style") == Some("true")
}

fn limit(credentials: &Credentials) -> SigningLimit {
    SigningLimit {
        longest: if credentials.is_empty() { IDENTITY_LIFE_MIN } else { WEEK },
        credentials_end: credentials.date_expires(),
    }
}

/// What a tenant's credentials get; the service's own identity has what its
/// environment says.
fn options(endpoint: Option<&str>) -> ClientOptions {
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    ClientOptions::new().with_allow_http(plain)
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIME_MAX, ..RetryConfig::default() }
}

fn s3(place: &Place, credentials: &Credentials) -> AmazonS3Builder {
    let builder = if credentials.is_empty() { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    let mut builder = builder.with_bucket_name(place.bucket()).with_retry(retries());
    if !credentials.is_empty() {
        builder = builder.with_client_options(options(credentials.endpoint()));
    }
    builder = builder.with_virtual_hosted_style_request(is_virtual_hosted(credentials));
    if let Some(endpoint) = called(place, credentials) {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(id) = credentials.get("access_key_id") {
        builder = builder.with_access_key_id(id).with_region(region(credentials));
    }
    if let Some(secret) = credentials.get("secret_access_key") {
        builder = builder.with_secret_access_key(secret);
    }
    match credentials.get("session_token") {
        Some(token) => builder.with_token(token),
        None => builder,
    }
}

fn gs(place: &Place, credentials: &Credentials) -> Result<GoogleCloudStorageBuilder, String> {
    let mut builder = if credentials.is_empty() {
        GoogleCloudStorageBuilder::from_env()
    } else {
        let account = credentials.service_account()?;
        let key = serde_json::to_string(&account).map_err(|_| "service_account_key: can't be used")?;
        GoogleCloudStorageBuilder::new().with_service_account_key(key)
    };
    builder = builder.with_bucket_name(place.bucket()).with_retry(retries());
    if !credentials.is_empty() {
        builder = builder.with_client_options(options(credentials.endpoint()));
    }
    Ok(builder)
}

fn az(place: &Place, credentials: &Credentials) -> MicrosoftAzureBuilder {
    let builder =
        if credentials.is_empty() { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
    let mut builder = builder.with_container_name(place.bucket()).with_retry(retries());
    if !credentials.is_empty() {
        builder = builder.with_client_options(options(credentials.endpoint()));
    }
    if let Some(account) = credentials.get("account") {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = credentials.endpoint() {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    if let Some(key) = credentials.get("access_key") {
        builder = builder.with_access_key(key);
    }
    if let Some(token) = credentials.get("sas_token") {
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(token.trim_start_matches('?').as_bytes()).into_owned().collect();
        builder = builder.with_sas_authorization(pairs);
    }
    let client = ["client_id", "client_secret", "tenant_id"].map(|name| credentials.get(name));
    match client {
        [Some(id), Some(secret), Some(tenant)] => {
            builder.with_client_secret_authorization(id, secret, tenant)
        }
        _ => builder,
    }
}

/// The directory of a `local` bucket, made if it is missing. It must not be a link.
fn folder(root: &Path, place: &Place) -> Result<PathBuf, String> {
    let failed = |_| "the directory can't be used".to_owned();
    let folder = fs::canonicalize(root).map_err(failed)?.join(place.bucket());
    match fs::symlink_metadata(&folder) {
        Ok(found) if found.is_dir() => Ok(folder),
        Ok(_) => Err("the bucket is no directory".into()),
        Err(_) => match fs::create_dir(&folder) {
            Err(fault) if fault.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(fault)),
            _ => Ok(folder),
        },
    }
}

/// Makes the HTTP clients: no redirects, no proxy, and, unless the operator
/// allowed the endpoint by name, public addresses only.
#[derive(Debug)]
struct Connector {
    guarded: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "http",
            source,
        };
        let plain = options
            .get_config_value(&object_store::ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier)
            .map_err(|fault| failed(fault.into()))?
            .with_no_client_auth();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(!plain)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_MAX);
        if self.guarded {
            builder = builder.dns_resolver(PublicNames);
        }
        Ok(HttpClient::new(builder.build().map_err(|fault| failed(fault.into()))?))
    }
}

/// [`public_addresses`] as the HTTP client wants it.
#[derive(Debug)]
struct PublicNames;

impl reqwest::dns::Resolve for PublicNames {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let resolving = public_addresses(name.as_str().to_owned());
        Box::pin(async move {
            // The client puts the port in.
            let addresses = resolving.await?.into_iter().map(|ip| std::net::SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// Whether a bucket of S3 may be used by credentials with more than keys.
    fn checked(endpoints: &str, bucket: &str, more: &[(&str, &str)]) -> Result<(), String> {
        let given = [("access_key_id", "AK"), ("secret_access_key", "s")].iter().chain(more);
        let given = given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let place: Place = format!("s3://{bucket}").parse()?;
        let policy = Policy::new(None, endpoints, "").unwrap();
        check(&place, &Credentials::new(Provider::S3, given)?, &policy)
    }

    #[test]
    fn what_is_called_must_be_allowed_and_not_what_is_named() {
        const HOSTED: (&str, &str) = ("virtual_hosted_style", "true");
        let minio = ("endpoint", "http://minio:9000");
        let (named, hosted) = ("http://minio:9000", "http://*.minio:9000");
        assert!(checked(named, "admin", &[minio]).is_ok());
        let refused = checked(named, "admin", &[minio, HOSTED]).unwrap_err();
        assert!(refused.contains("http://admin.minio:9000"), "{refused}");
        assert!(checked(hosted, "admin", &[minio, HOSTED]).is_ok());
        // It says nothing of the name itself.
        assert!(checked(hosted, "admin", &[minio]).is_err());
        // A bucket whose name has a dot is two labels.
        assert!(checked(hosted, "my.admin", &[minio, HOSTED]).is_err());
        assert!(checked(hosted, "admin", &[minio, ("virtual_hosted_style", "false")]).is_err());
        // A provider's own endpoint is on no list.
        for style in [&[][..], &[HOSTED]] {
            assert!(checked("", "admin", style).is_ok() && checked("", "my.admin", style).is_ok());
        }
    }

    #[tokio::test]
    async fn a_signature_ends_when_it_is_to_end_and_at_the_limit_of_the_provider() {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let given = [("access_key_id", "AK"), ("secret_access_key", "s")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let credentials = Credentials::new(Provider::S3, given).unwrap();
        let place: Place = "s3://bucket".parse().unwrap();
        let store = open(&place, &credentials, &Policy::new(None, "", "").unwrap()).unwrap();
        let sign = async |until| {
            let (urls, end) = store.sign(&["a".into()], until).await.unwrap().unwrap();
            (urls[0].contains("X-Amz-Expires=604800&"), end)
        };
        let begun = SystemTime::now();
        let (is_longest, end) = sign(begun + WEEK - DAY).await;
        let early = (begun + WEEK - DAY).duration_since(end).unwrap();
        assert!(!is_longest && early < Duration::from_secs(1), "{early:?}");
        let (is_longest, end) = sign(begun + WEEK + DAY).await;
        assert!(is_longest && (begun + WEEK..=SystemTime::now() + WEEK).contains(&end));
    }

    #[test]
    fn what_makes_no_hosts_name_is_refused() {
        const HOSTED: (&str, &str) = ("virtual_hosted_style", "true");
        assert!(checked("", "xn--a", &[HOSTED]).is_err());
        assert!(checked("", "xn--a", &[]).is_ok(), "there it is a part of the path");
        assert!(checked("", "a", &[("region", "xn--a")]).is_err());
        assert!(checked("", "a_b..c", &[HOSTED, ("region", "eu-central-1")]).is_ok());
    }
}
