//! An S3-compatible server in this process. It keeps objects as files, refuses
//! requests whose signature does not verify or whose time is over, and answers
//! badly when it is told to.

use std::{
    convert::Infallible,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::{
    Body,
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{gs::ServiceAccount, install_tls};
use crate::cluster::scratch;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// As S3 does.
    Well,
    /// 503 to everything: it is overloaded.
    Unavailable,
    /// 403 to everything: the credentials are not valid any more.
    Denied,
    /// Not at all: requests hang.
    Never,
    /// As S3 does, after so long.
    Slowly(Duration),
    /// As S3 does, but that what is to be removed hangs until it answers otherwise.
    HoldsRemovals,
    /// As S3 does whose credentials may remove nothing.
    DeniesRemovals,
}

/// A running server. Ends when dropped, or with the test's runtime.
pub struct S3Server {
    address: SocketAddr,
    root: PathBuf,
    answers: watch::Sender<Answers>,
    requests: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

impl S3Server {
    /// The key it knows.
    pub const ACCESS_KEY_ID: &str = "AKIATESTTESTTESTTEST";
    /// That key's secret.
    pub const SECRET_ACCESS_KEY: &str = "a/secret+that-only/tests+know=";

    /// Starts one without buckets.
    ///
    /// # Panics
    /// If it doesn't come up.
    pub async fn start() -> Self {
        Self::start_for(None).await
    }

    /// Starts one that lets in whom Google would, if that is given.
    pub(super) async fn start_for(account: Option<Arc<ServiceAccount>>) -> Self {
        let root = scratch("s3");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let server = Self {
            address,
            answers: watch::Sender::new(Answers::Well),
            requests: Arc::default(),
            stop: CancellationToken::new(),
            root,
        };
        server.serve(listener, account);
        server
    }

    fn serve(&self, listener: TcpListener, account: Option<Arc<ServiceAccount>>) {
        let mut builder = S3ServiceBuilder::new(FileSystem::new(&self.root).expect("its folder"));
        if account.is_none() {
            builder.set_auth(SimpleAuth::from_single(Self::ACCESS_KEY_ID, Self::SECRET_ACCESS_KEY));
        }
        let service = builder.build();
        let (answers, requests) = (self.answers.subscribe(), self.requests.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let mut answers = answers.clone();
            let line = format!("{} {}", request.method(), request.uri());
            requests.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            let (service, account) = (service.clone(), account.clone());
            async move {
                let now = *answers.borrow_and_update();
                if now == Answers::HoldsRemovals && removes(&request) {
                    let _ended = answers.changed().await;
                }
                let answered = match now {
                    Answers::Well | Answers::HoldsRemovals => {
                        well(&service, account.as_deref(), request).await
                    }
                    Answers::Slowly(delay) => {
                        tokio::time::sleep(delay).await;
                        well(&service, account.as_deref(), request).await
                    }
                    Answers::DeniesRemovals if removes(&request) => Err(StatusCode::FORBIDDEN),
                    Answers::DeniesRemovals => well(&service, account.as_deref(), request).await,
                    Answers::Unavailable => Err(StatusCode::SERVICE_UNAVAILABLE),
                    Answers::Denied => Err(StatusCode::FORBIDDEN),
                    Answers::Never => std::future::pending().await,
                };
                Ok::<_, Infallible>(answered.unwrap_or_else(plain))
            }
        });
        let stop = self.stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, stop) = (answer.clone(), stop.clone());
                tokio::spawn(stop.run_until_cancelled_owned(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), answer).await);
                }));
            }
        }));
    }

    /// Its URL: path style, without TLS.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How it answers from now on.
    pub fn answer(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    /// The requests so far, such as `DELETE /bucket/key`, in the order in which they
    /// came.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// If it can't.
    pub fn create_bucket(&self, bucket: &str) {
        fs::create_dir_all(self.root.join(bucket)).expect("a bucket");
    }

    /// The keys of a bucket's objects, sorted.
    ///
    /// # Panics
    /// If there is no such bucket.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let bucket = self.root.join(bucket);
        let mut keys = vec![];
        collect(&bucket, &bucket, &mut keys).expect("a bucket");
        keys.sort();
        keys
    }

    /// An object's bytes, if it is there.
    #[must_use]
    pub fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(bucket).join(key)).ok()
    }

    /// Puts an object there behind the service's back.
    ///
    /// # Panics
    /// If it can't.
    pub fn write(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let path = self.root.join(bucket).join(key);
        fs::create_dir_all(path.parent().expect("in a bucket")).expect("its folder");
        fs::write(path, bytes).expect("an object");
    }

    /// Removes an object behind the service's back.
    ///
    /// # Panics
    /// If there is none.
    pub fn delete(&self, bucket: &str, key: &str) {
        fs::remove_file(self.root.join(bucket).join(key)).expect("an object");
    }

    /// How many multipart uploads were begun and neither completed nor aborted.
    ///
    /// # Panics
    /// If its folder is gone.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        let is_upload = |name: &str| name.starts_with(".upload-") && name.ends_with(".json");
        let entries = fs::read_dir(&self.root).expect("its folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        names.filter(|name| name.to_str().is_some_and(is_upload)).count()
    }

    /// A client of one bucket.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client(&self, bucket: &str) -> AmazonS3 {
        self.client_with(bucket, Self::SECRET_ACCESS_KEY)
    }

    /// A client that may have another secret.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client_with(&self, bucket: &str, secret: &str) -> AmazonS3 {
        install_tls();
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(bucket)
            .with_access_key_id(Self::ACCESS_KEY_ID)
            .with_secret_access_key(secret)
            .build()
            .expect("a client")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Of one object, or of several.
fn removes(request: &Request<Incoming>) -> bool {
    request.method() == Method::DELETE || request.uri().query() == Some("delete")
}

async fn well(
    service: &S3Service,
    account: Option<&ServiceAccount>,
    request: Request<Incoming>,
) -> Result<Response<Body>, StatusCode> {
    let request = match account {
        Some(account) => account.admit(request)?,
        None => request,
    };
    service.call(request.map(Body::from)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

fn collect(bucket: &Path, folder: &Path, keys: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // An object may go while we look.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(bucket, &entry.path(), keys)?,
            Ok(_) => {
                let path = entry.path();
                let key = path.strip_prefix(bucket).map_err(io::Error::other)?;
                keys.push(key.to_string_lossy().into_owned());
            }
            Err(_) => {}
        }
    }
    Ok(())
}
