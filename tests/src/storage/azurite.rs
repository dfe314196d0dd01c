//! Azurite, Microsoft's emulator of Azure Blob Storage, as a process of its own
//! that ends with the test process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use object_store::{
    azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder},
    client::HttpRequestBody,
};

use super::{install_tls, tools::Tool};
use crate::cluster::scratch;

const AZURITE: Tool = Tool { package: "azurite", version: "3.35.0", file: "dist/src/blob/main.js" };
/// How it says where it listens.
const LISTENS: &str = "successfully listens on ";
const UNTIL_STDIN_ENDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/storage/until_stdin_ends.cjs");

/// A running Azurite. Ends when dropped.
pub struct Azurite {
    child: Child,
    url: String,
}

impl Azurite {
    /// The account it knows.
    pub const ACCOUNT: &str = "sluicetests";
    /// That account's key.
    pub const ACCESS_KEY: &str = "c2VjcmV0IG9mIHRoZSBTbHVpY2UgdGVzdHMsIG5vd2hlcmUgZWxzZSE=";

    /// Starts one without containers; installs it first when it is missing.
    ///
    /// # Panics
    /// If it can't be installed, or doesn't come up.
    pub async fn start() -> Self {
        tokio::task::spawn_blocking(Self::start_now).await.expect("Azurite")
    }

    fn start_now() -> Self {
        let mut command = Command::new("node");
        command.args(["--require", UNTIL_STDIN_ENDS]).arg(AZURITE.path());
        command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--silent", "--disableTelemetry"]);
        // It knows fewer versions of the API than its clients.
        command.args(["--skipApiVersionCheck", "--location"]).arg(scratch("azurite"));
        command.env("AZURITE_ACCOUNTS", format!("{}:{}", Self::ACCOUNT, Self::ACCESS_KEY));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("node");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let url = loop {
            let line = lines.next().expect("Azurite says where it listens").expect("its output");
            if let Some((_, url)) = line.split_once(LISTENS) {
                break url.trim().to_owned();
            }
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// Its URL, with the account as Azurite has it, in the path.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}/{}", self.url, Self::ACCOUNT)
    }

    /// Makes a container.
    ///
    /// # Panics
    /// If it can't.
    pub async fn create_container(&self, container: &str) {
        install_tls();
        let uri = format!("{}/{container}?restype=container", self.endpoint());
        let mut request = http::Request::put(&uri).body(HttpRequestBody::empty()).expect("a request");
        let key = AzureAccessKey::try_new(Self::ACCESS_KEY).expect("a key");
        let credential = AzureCredential::AccessKey(key);
        AzureAuthorizer::new(&credential, Self::ACCOUNT).try_authorize(&mut request).expect("a signature");
        let sending = reqwest::Client::new().put(&uri).headers(request.headers().clone()).send();
        let answer = sending.await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// A client of one container.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client(&self, container: &str) -> MicrosoftAzure {
        self.client_with(container, Self::ACCESS_KEY)
    }

    /// A client that may have another key.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client_with(&self, container: &str, access_key: &str) -> MicrosoftAzure {
        install_tls();
        MicrosoftAzureBuilder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_account(Self::ACCOUNT)
            .with_access_key(access_key)
            .with_container_name(container)
            .build()
            .expect("a client")
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
