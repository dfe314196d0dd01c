//! A stand-in for Google Cloud Storage: no emulator that is to be had speaks the
//! XML API, which clients use, and that API's requests are those of S3. So the S3
//! server answers them, behind Google's own two ways to say who calls: a token that
//! a service account signed itself, and signed URLs of the fourth version.

use std::{
    ops::Deref,
    process::{Command, Stdio},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Request, StatusCode, Uri, header::AUTHORIZATION};
use object_store::{
    ClientOptions,
    gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder},
};
use ring::{
    digest::{SHA256, digest},
    signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use serde_json::{Value, json};

use super::{install_tls, s3::S3Server};

/// Makes a key pair; `ring` can use RSA keys and not make them.
const MAKE_KEYS: &str = r#"
const spki = { type: "pkcs1", format: "der" }, pkcs8 = { type: "pkcs8", format: "pem" };
const pair = crypto.generateKeyPairSync("rsa", {
  modulusLength: 2048, publicKeyEncoding: spki, privateKeyEncoding: pkcs8 });
console.log(JSON.stringify({ public: pair.publicKey.toString("base64url"), private: pair.privateKey }));
"#;
/// What signed URLs name as their host, wherever the server is.
const HOST: &str = "storage.googleapis.com";
const EMAIL: &str = "tests@sluice.iam.gserviceaccount.com";

/// A running server. Ends when dropped. It shows its objects as an [`S3Server`]
/// does.
pub struct GsServer {
    server: S3Server,
    key: String,
}

/// Who may call.
pub(super) struct ServiceAccount {
    public_key: Vec<u8>,
}

impl GsServer {
    /// Starts one without buckets.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start() -> Self {
        let (account, private_key) = tokio::task::spawn_blocking(ServiceAccount::make).await.expect("keys");
        let key = json!({
            "type": "service_account",
            "client_email": EMAIL,
            "private_key_id": "1",
            "private_key": private_key,
        });
        let server = S3Server::start_for(Some(Arc::new(account))).await;
        Self { server, key: key.to_string() }
    }

    /// The service account's key as Google hands it out: JSON.
    #[must_use]
    pub fn service_account_key(&self) -> &str {
        &self.key
    }

    /// A client of one bucket.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client(&self, bucket: &str) -> GoogleCloudStorage {
        self.client_with(bucket, &self.key)
    }

    /// A client that may have another key.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client_with(&self, bucket: &str, key: &str) -> GoogleCloudStorage {
        install_tls();
        GoogleCloudStorageBuilder::new()
            .with_base_url(&self.endpoint())
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_service_account_key(key)
            .with_bucket_name(bucket)
            .build()
            .expect("a client")
    }
}

impl Deref for GsServer {
    type Target = S3Server;

    fn deref(&self) -> &S3Server {
        &self.server
    }
}

impl ServiceAccount {
    /// A new one, and its private key.
    fn make() -> (Self, String) {
        let mut node = Command::new("node");
        let made = node.args(["-e", MAKE_KEYS]).stdin(Stdio::null()).output().expect("node");
        let made: Value = serde_json::from_slice(&made.stdout).expect("keys");
        let public_key = decode(made["public"].as_str().unwrap_or_default()).expect("a public key");
        (Self { public_key }, made["private"].as_str().expect("a private key").to_owned())
    }

    /// Lets a request pass without what it was authorised by, or says no.
    pub(super) fn admit<B>(&self, mut request: Request<B>) -> Result<Request<B>, StatusCode> {
        if request.uri().query().is_some_and(|query| query.contains("X-Goog-")) {
            let path = self.verify_url(request.method().as_str(), request.uri());
            *request.uri_mut() = path.ok_or(StatusCode::FORBIDDEN)?;
            return Ok(request);
        }
        let header = request.headers_mut().remove(AUTHORIZATION).ok_or(StatusCode::FORBIDDEN)?;
        let token = header.to_str().ok().and_then(|header| header.strip_prefix("Bearer "));
        token.and_then(|token| self.verify_token(token)).ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(request)
    }

    /// <https://google.aip.dev/auth/4111>
    fn verify_token(&self, token: &str) -> Option<()> {
        let (signed, signature) = token.rsplit_once('.')?;
        self.verify(signed, &decode(signature)?)?;
        let claims: Value = serde_json::from_slice(&decode(signed.split_once('.')?.1)?).ok()?;
        (claims["iss"] == EMAIL && claims["exp"].as_i64()? > now()?).then_some(())
    }

    /// Returns the path alone.
    /// <https://cloud.google.com/storage/docs/authentication/canonical-requests>
    fn verify_url(&self, method: &str, uri: &Uri) -> Option<Uri> {
        let mut pairs: Vec<(&str, &str)> =
            uri.query()?.split('&').filter_map(|pair| pair.split_once('=')).collect();
        pairs.sort_unstable();
        let value = |name: &str| Some(pairs.iter().find(|(found, _)| *found == name)?.1);
        let signature = hex::decode(value("X-Goog-Signature")?).ok()?;
        let (date, credential) = (value("X-Goog-Date")?, value("X-Goog-Credential")?.replace("%2F", "/"));
        let scope = credential.replace("%40", "@").strip_prefix(EMAIL)?.strip_prefix('/')?.to_owned();
        let of_signed = pairs.iter().filter(|(name, _)| *name != "X-Goog-Signature");
        let query: Vec<String> = of_signed.map(|(name, value)| format!("{name}={value}")).collect();
        let path = uri.path();
        let canonical =
            format!("{method}\n{path}\n{}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD", query.join("&"));
        let hash = hex::encode(digest(&SHA256, canonical.as_bytes()));
        self.verify(&format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{hash}"), &signature)?;
        let ends = seconds(date)? + value("X-Goog-Expires")?.parse::<i64>().ok()?;
        (now()? <= ends).then(|| path.parse().ok())?
    }

    fn verify(&self, signed: &str, signature: &[u8]) -> Option<()> {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key);
        key.verify(signed.as_bytes(), signature).ok()
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()
}

fn now() -> Option<i64> {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Reads a time such as `20260228T120000Z` as seconds since 1970.
fn seconds(date: &str) -> Option<i64> {
    let part = |range| date.get(range);
    let (year, month, day) = (part(0..4)?, part(4..6)?, part(6..8)?);
    let (hour, minute, second) = (part(9..11)?, part(11..13)?, part(13..15)?);
    let time = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    Some(time.parse::<prost_types::Timestamp>().ok()?.seconds)
}
