//! Tokens, scopes and the keys file.

use super::*;

fn entry(organisation: Option<&str>, scopes: &[&str]) -> KeyEntry {
    KeyEntry {
        id: "k1".into(),
        secret_sha256: secret_sha256("s3cret"),
        organisation: organisation.map(str::to_owned),
        all_organisations: organisation.is_none(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    }
}

fn keys(entry: KeyEntry) -> Arc<Keys> {
    let text = toml::to_string(&KeysFile { token: vec![entry] }).unwrap();
    let table = parse_keys(&text).unwrap();
    Arc::new(Keys {
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
    authorise(keys, &mut request).map_err(|error| error.reason())?;
    request.extensions().get::<Access>().cloned().ok_or("open")
}

const GET: &str = "/sluice.results.v1.ResultsService/GetResult";
const GOOD: &str = "sluice_k1_s3cret";

#[test]
fn every_scope_in_the_contract_is_known_and_used() {
    let used: BTreeSet<&str> = sluice_proto::REQUIRED_SCOPES.iter().map(|(_, scope)| *scope).collect();
    assert_eq!(used, BTreeSet::from(SCOPES));
}

#[test]
fn the_table_covers_every_rpc_of_the_descriptor_set() {
    for (path, _) in sluice_proto::REQUIRED_SCOPES {
        assert!(required_scope(path).is_some(), "{path}");
    }
    assert_eq!(required_scope("/sluice.results.v1.ResultsService/Nonsense"), None);
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

#[test]
fn wrong_tokens_all_answer_the_same() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let long = "x".repeat(300);
    for value in ["sluice_k1_wrong", "sluice_k2_s3cret", "sluice_k1", "k1_s3cret", "", &long] {
        assert_eq!(call(&keys, GET, Some(("x-aims-auth-token", value))).unwrap_err(), "UNAUTHENTICATED");
    }
    assert_eq!(call(&keys, GET, None).unwrap_err(), "UNAUTHENTICATED");
    assert_eq!(call(&keys, GET, Some(("authorization", GOOD))).unwrap_err(), "UNAUTHENTICATED");
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

#[test]
fn a_revoked_token_is_noticed_by_streams() {
    let keys = keys(entry(Some("acme"), &["results.read"]));
    let access = call(&keys, GET, Some(("x-aims-auth-token", GOOD))).unwrap();
    assert!(access.still_valid().is_ok());
    keys.table.store(Arc::new(KeyTable::new()));
    assert_eq!(access.still_valid().unwrap_err().reason(), "TOKEN_REVOKED");
}

#[test]
fn a_keys_file_that_is_unclear_is_refused() {
    let tenant_intake = entry(Some("acme"), &[INTAKE_SCOPE]);
    let unknown_scope = entry(None, &["everything"]);
    let both = KeyEntry { all_organisations: true, ..entry(Some("acme"), &[]) };
    let short_hash = KeyEntry { secret_sha256: "abcd".into(), ..entry(None, &[]) };
    for bad in [tenant_intake, unknown_scope, both, short_hash] {
        assert!(parse_key(bad.clone()).is_err(), "{bad:?}");
    }
}
