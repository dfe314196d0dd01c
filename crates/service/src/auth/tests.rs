//! Tokens, scopes and the keys file.

use std::{
    collections::BTreeSet,
    io,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, Stream, StreamExt, stream};

use super::{keys_file::parse_key, *};
use crate::metrics::Registry;

fn entry(organisation: Option<&str>, scopes: &[&str]) -> KeyEntry {
    KeyEntry {
        id: "k1".into(),
        secret_sha256: secret_sha256("s3cret"),
        organisation: organisation.map(str::to_owned),
        all_organisations: organisation.is_none(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        expires: None,
    }
}

fn keys(entry: KeyEntry) -> Arc<Keys> {
    let text = toml::to_string(&KeysFile { token: vec![entry] }).unwrap();
    let table = parse_keys(&text).unwrap();
    let requests = Requests::register(&mut Registry::new("sluice-test", "0"));
    Arc::new(Keys {
        rates: None,
        refusals: requests.refusals,
        strangers: audit::Strangers::default(),
        path: PathBuf::new(),
        table: ArcSwap::from_pointee(table),
        changed: watch::Sender::new(()),
    })
}

fn call(keys: &Arc<Keys>, path: &str, header: Option<(&'static str, &str)>) -> Result<Access, &'static str> {
    let mut request = http::Request::builder().uri(path);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let mut request = request.body(()).unwrap();
    authorised(keys, &mut request)?;
    request.extensions().get::<Access>().cloned().ok_or("open")
}

/// As a request that comes past both layers.
fn authorised(keys: &Arc<Keys>, request: &mut http::Request<()>) -> Result<(), &'static str> {
    let caller = keys.caller(request.headers());
    request.extensions_mut().insert(caller);
    authorise(keys, request).map_err(|error| error.reason())
}

const GET: &str = "/sluice.results.v1.ResultsService/GetResult";
const GOOD: &str = "sluice_k1_s3cret";

#[test]
fn every_scope_in_the_contract_is_known_and_used() {
    let used: BTreeSet<&str> = sluice_proto::RPCS.iter().map(|rpc| rpc.scope).collect();
    assert_eq!(used, BTreeSet::from(SCOPES));
}

#[test]
fn the_table_covers_every_rpc_of_the_descriptor_set() {
    for known in sluice_proto::RPCS {
        assert_eq!(rpc(known.path), Some(known));
    }
    assert_eq!(rpc("/sluice.results.v1.ResultsService/Nonsense"), None);
}

#[test]
fn all_three_headers_are_understood() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    for header in [
        ("authorization", "Bearer sluice_k1_s3cret"),
        ("authorization", "token sluice_k1_s3cret"),
        ("x-aims-auth-token", GOOD),
    ] {
        assert!(call(&keys, GET, Some(header)).is_ok(), "{header:?}");
    }
}

#[tokio::test]
async fn credentials_of_another_scheme_hide_no_token() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let both = |authorization: &str| {
        let request = http::Request::builder().uri(GET).header("authorization", authorization);
        let mut request = request.header("x-aims-auth-token", GOOD).body(()).unwrap();
        authorised(&keys, &mut request)
    };
    assert_eq!(both("Basic dXNlcjpwYXNz"), Ok(()));
    // What says that it is a token is the one that counts.
    assert_eq!(both("Bearer sluice_k1_wrong"), Err("UNAUTHENTICATED"));
}

#[tokio::test]
async fn wrong_tokens_all_answer_the_same() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let long = "x".repeat(300);
    for value in ["sluice_k1_wrong", "sluice_k2_s3cret", "sluice_k1", "k1_s3cret", "", &long] {
        assert_eq!(call(&keys, GET, Some(("x-aims-auth-token", value))).unwrap_err(), "UNAUTHENTICATED");
    }
    assert_eq!(call(&keys, GET, None).unwrap_err(), "UNAUTHENTICATED");
    assert_eq!(call(&keys, GET, Some(("authorization", GOOD))).unwrap_err(), "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_token_has_up_to_256_bytes() {
    for (bytes, is_known) in [(256, true), (257, false)] {
        let secret = "s".repeat(bytes - token_text("k1", "").len());
        let entry =
            KeyEntry { secret_sha256: secret_sha256(&secret), ..entry(Some("acme"), &["results.read"]) };
        let token = token_text("k1", &secret);
        assert_eq!(call(&keys(entry), GET, Some(("x-aims-auth-token", &token))).is_ok(), is_known, "{bytes}");
    }
}

#[test]
fn a_missing_scope_and_an_unknown_rpc_are_denied() {
    let keys = keys(entry(Some("acme"), &["results.ack"]));
    let header = Some(("x-aims-auth-token", GOOD));
    assert_eq!(call(&keys, GET, header).unwrap_err(), "MISSING_SCOPE");
    assert_eq!(
        call(&keys, "/sluice.results.v1.ResultsService/Nonsense", header).unwrap_err(),
        "UNKNOWN_METHOD"
    );
}

#[test]
fn health_and_reflection_need_no_token() {
    let keys = keys(entry(Some("acme"), &[]));
    assert_eq!(call(&keys, "/grpc.health.v1.Health/Check", None).unwrap_err(), "open");
    assert_eq!(call(&keys, "/grpc.health.v1.HealthX/Check", None).unwrap_err(), "UNKNOWN_METHOD");
}

#[test]
fn a_tenant_acts_only_for_itself() {
    let access =
        call(&keys(entry(Some("acme"), &["results.read"])), GET, Some(("x-aims-auth-token", GOOD))).unwrap();
    assert_eq!(access.organisation("").unwrap().as_str(), "acme");
    assert_eq!(access.organisation("acme").unwrap().as_str(), "acme");
    assert_eq!(access.organisation("other").unwrap_err().kind(), Kind::PermissionDenied);
}

#[test]
fn a_token_for_all_must_name_one() {
    let access = call(&keys(entry(None, &["results.read"])), GET, Some(("x-aims-auth-token", GOOD))).unwrap();
    assert_eq!(access.organisation("").unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(access.organisation_or_all("").unwrap(), None);
    assert_eq!(access.organisation("acme").unwrap().as_str(), "acme");
}

/// The items of a stream, and with what it ended if not well.
async fn items(stream: impl Stream<Item = Result<i32, Error>>) -> (Vec<i32>, Option<&'static str>) {
    let (mut items, mut stream) = (Vec::new(), std::pin::pin!(stream));
    while let Some(item) = stream.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => return (items, Some(error.reason())),
        }
    }
    (items, None)
}

#[tokio::test]
async fn a_stream_has_its_own_end_or_that_of_its_token() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let access = call(&keys, GET, Some(("x-aims-auth-token", GOOD))).unwrap();
    let three = || stream::iter([1, 2, 3].map(Ok));
    assert_eq!(items(access.clone().while_valid(three())).await, (vec![1, 2, 3], None));
    let mut waiting = std::pin::pin!(items(access.clone().while_valid(three().chain(stream::pending()))));
    assert!(waiting.as_mut().now_or_never().is_none());
    let table = keys.table.swap(Arc::new(KeyTable::new()));
    keys.changed.send_replace(());
    assert_eq!(waiting.await, (vec![1, 2, 3], Some("TOKEN_REVOKED")));
    // Nothing of what is there already, either.
    assert_eq!(items(access.clone().while_valid(three())).await, (vec![], Some("TOKEN_REVOKED")));
    keys.table.store(table);
    assert_eq!(items(access.while_valid(three())).await, (vec![1, 2, 3], None));
}

/// A time so many seconds from now, as the keys file has it.
fn from_now(seconds: i64) -> Option<String> {
    let now = prost_types::Timestamp::from(SystemTime::now());
    Some(prost_types::Timestamp { seconds: now.seconds + seconds, ..now }.to_string())
}

#[tokio::test]
async fn an_expired_token_is_refused_and_only_who_knows_its_secret_is_told() {
    let entry = entry(Some("acme"), &["results.read"]);
    let later = keys(KeyEntry { expires: from_now(60), ..entry.clone() });
    assert!(call(&later, GET, Some(("x-aims-auth-token", GOOD))).is_ok());
    let earlier = keys(KeyEntry { expires: from_now(-1), ..entry });
    assert_eq!(call(&earlier, GET, Some(("x-aims-auth-token", GOOD))).unwrap_err(), "TOKEN_EXPIRED");
    let wrong = Some(("x-aims-auth-token", "sluice_k1_wrong"));
    assert_eq!(call(&earlier, GET, wrong).unwrap_err(), "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let keys = keys(KeyEntry { expires: from_now(1), ..entry(Some("acme"), &["results.read"]) });
    // Not by a call: on a busy machine the token has expired by then.
    let key = keys.table.load()["k1"].clone();
    let access = Access { id: "k1".into(), key, to: GET, keys };
    assert_eq!(items(access.while_valid(stream::pending())).await, (vec![], Some("TOKEN_EXPIRED")));
}

#[test]
fn a_keys_file_that_is_unclear_is_refused() {
    let tenant_intake = entry(Some("acme"), &[INTAKE_SCOPE]);
    let unknown_scope = entry(None, &["everything"]);
    let both = KeyEntry { all_organisations: true, ..entry(Some("acme"), &[]) };
    let short_hash = KeyEntry { secret_sha256: "abcd".into(), ..entry(None, &[]) };
    let no_time = KeyEntry { expires: Some("tomorrow".into()), ..entry(None, &[]) };
    for bad in [tenant_intake, unknown_scope, both, short_hash, no_time] {
        assert!(parse_key(bad.clone()).is_err(), "{bad:?}");
    }
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes what is logged on this thread, until what is returned is dropped.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let (log, format) = (self.clone(), tracing_subscriber::fmt().json().flatten_event(true));
        tracing::subscriber::set_default(format.with_writer(move || log.clone()).finish())
    }

    /// Lines with this text, and with this token if they have one.
    fn lines(&self, message: &str, token: Option<&str>) -> Vec<serde_json::Value> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["message"] == message && line["token"].as_str() == token).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn refused_calls_without_a_valid_token_are_a_few_lines_a_second_and_a_count() {
    let keys = keys(entry(Some("acme"), &["results.ack"]));
    let log = Log::default();
    let _listening = log.listen();
    for _ in 0..4 {
        for _ in 0..250 {
            assert_eq!(call(&keys, GET, None).unwrap_err(), "UNAUTHENTICATED");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let counts = log.lines("more calls refused without a valid token", None);
    let counts: Vec<_> = counts.iter().map(|line| line["calls"].as_u64().unwrap()).collect();
    assert_eq!((log.lines("refused", Some("")).len(), counts), (4 * 10, vec![240; 4]), "1000 in all");
}

#[tokio::test(start_paused = true)]
async fn refused_calls_of_known_tokens_are_a_line_each() {
    let keys = keys(entry(Some("acme"), &["results.ack"]));
    let log = Log::default();
    let _listening = log.listen();
    for _ in 0..100 {
        assert_eq!(call(&keys, GET, None).unwrap_err(), "UNAUTHENTICATED");
        assert_eq!(call(&keys, GET, Some(("x-aims-auth-token", GOOD))).unwrap_err(), "MISSING_SCOPE");
    }
    assert_eq!(log.lines("refused", Some("k1")).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn ten_refused_calls_in_a_second_are_ten_lines_and_no_count() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let log = Log::default();
    let _listening = log.listen();
    for _ in 0..10 {
        assert_eq!(call(&keys, GET, None).unwrap_err(), "UNAUTHENTICATED");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log.lines("refused", Some("")).len(), 10);
    assert!(log.lines("more calls refused without a valid token", None).is_empty());
}
