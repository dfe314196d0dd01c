//! The databases as `deploy/databases/create.sh` makes them: migrated as the Jobs of
//! the manifests do it, served as their pods do it, in as many sessions as
//! `deploy/README.md` says.

use std::{path::Path, process::Command};

use sluice_proto::{
    ingest::v1::{GetDefinitionRequest, Outcome},
    results::v1::{AcknowledgeResultRequest, ListResultsRequest},
};
use sluice_service::postgres::state;
use sluice_tests::{Database, OwnServer, Pair, Service, Tenant, connect, program};
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::{
    files::support::{file, outcome},
    support::*,
    telemetry::exposition::scrape,
};

const SETTINGS: &str = include_str!("../../../deploy/SETTINGS.md");
const DEPLOYMENT: &str = include_str!("../../../deploy/README.md");
const AUTOSCALING: &str = include_str!("../../../deploy/kubernetes/components/autoscaling/autoscalers.yaml");

/// A password for each role that the script makes, by the variable it asks for.
const PASSWORDS: [(&str, &str); 4] =
    [("INGEST_OWNER", "a1"), ("INGEST_LOGIN", "b2"), ("RESULTS_OWNER", "c3"), ("RESULTS_LOGIN", "d4")];

fn url(server: &OwnServer, role: &str, service: Service) -> String {
    let variable = role.trim_start_matches("sluice_").to_uppercase();
    let variable = if variable.ends_with("OWNER") { variable } else { format!("{variable}_LOGIN") };
    let (_, password) = PASSWORDS.into_iter().find(|(name, _)| *name == variable).expect("a password");
    format!("postgres://{role}:{password}@127.0.0.1:{}/sluice_{}", server.port(), service.name())
}

/// The script, run by a superuser.
fn create(server: &OwnServer, passwords: &[(&str, &str)]) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/databases/create.sh");
    let mut command = Command::new("sh");
    command.arg(script).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let superuser: tokio_postgres::Config = server.url("postgres").parse().unwrap();
    command.env("PGHOST", "127.0.0.1").env("PGPORT", server.port().to_string());
    command.env("PGUSER", superuser.get_user().unwrap());
    command.env("PGPASSWORD", std::str::from_utf8(superuser.get_password().unwrap()).unwrap());
    command.envs(passwords.iter().copied()).status().unwrap().success()
}

/// What the Job of a service does: its only secret is the owner's URL.
fn migrate(server: &OwnServer, service: Service) {
    let owner = url(server, &format!("sluice_{}_owner", service.name()), service);
    let mut command = Command::new(program());
    command.args(["serve", service.name(), "migrate"]).env("SLUICE_DATABASE_OWNER_URL", owner);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test]
async fn what_the_script_makes_is_migrated_by_owners_and_served_by_logins() {
    let server = OwnServer::start().await;
    assert!(!create(&server, &PASSWORDS[..3]), "a password is missing");
    assert!(create(&server, &PASSWORDS.map(|(name, _)| (name, "of before"))));
    let sql = connect(&server.url("postgres")).await;
    for half in ["DROP DATABASE sluice_results", "DROP ROLE sluice_ingest"] {
        sql.batch_execute(half).await.unwrap();
    }
    assert!(create(&server, &PASSWORDS), "what a first try left is completed");
    let [ingest, results] = [Service::Ingest, Service::Results].map(|service| {
        migrate(&server, service);
        let (owner, login) =
            (format!("sluice_{}_owner", service.name()), format!("sluice_{}", service.name()));
        Database::at(url(&server, &owner, service), url(&server, &login, service))
    });
    let pair = Pair::builder().processes().on(ingest, results).start().await;

    // The first result, and every way it goes.
    let acme = pair.clients(Tenant::Acme);
    put(&acme, definition("plain")).await;
    let said = publish_one(&acme, marked("plain", "m", "1")).await;
    assert_eq!(said.outcome(), Outcome::Success);
    let sealed = outcome(&acme, file("plain"), b"a file").await;
    assert_eq!(sealed.outcome(), Outcome::Success);
    let all = [(said.ingest_id.clone(), "1".into()), (sealed.ingest_id, "a file".into())].into();
    adds_up(&pair, &acme, &all).await;
    let request = AcknowledgeResultRequest { id: said.ingest_id, ..Default::default() };
    assert!(acme.results.clone().acknowledge_result(request).await.unwrap().into_inner().changed);

    // Neither login sees the other's database, nor changes its own schema.
    for (service, other) in [(Service::Ingest, Service::Results), (Service::Results, Service::Ingest)] {
        let login = format!("sluice_{}", service.name());
        let own = url(&server, &login, service);
        let (on_server, _) = own.rsplit_once('/').unwrap();
        let elsewhere = format!("{on_server}/sluice_{}", other.name());
        let refused = tokio_postgres::connect(&elsewhere, NoTls).await.err().expect("no session");
        assert_eq!(state(&refused), "42501", "{refused:?}");
        let refused = connect(&own).await.batch_execute("CREATE TABLE mine ()").await.unwrap_err();
        assert_eq!(state(&refused), "42501", "{refused:?}");
    }
}

/// The number after some words of the deployment's README.
fn number(after: &str) -> i64 {
    let (_, rest) = DEPLOYMENT.split_once(after).unwrap_or_else(|| panic!("{after:?} in deploy/README.md"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test]
async fn a_replica_has_as_many_sessions_as_is_said_and_no_more() {
    let ingest_max = number("ingest `lanes` + 3 × `database_connections` + 6 = ");
    let results_max = number("2 × `database_connections` + 4 = ");
    let most = AUTOSCALING.lines().filter_map(|line| line.trim().strip_prefix("maxReplicas: "));
    let most: Vec<i64> = most.map(|count| count.parse().unwrap()).collect();
    let (before, _) = DEPLOYMENT.split_once(" replicas each that is ").expect("the sum");
    let said: i64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(most, [said; 2], "replicas of each");
    let more = number("count on ");
    let in_a_rollout = (most[0] + more) * ingest_max + (most[1] + more) * results_max;
    assert_eq!(number("replicas each that is "), in_a_rollout);

    let pair = builder().admin().start().await;
    let acme = pair.clients(Tenant::Acme);
    let paths: Vec<_> = (0..8).map(|n| format!("kind/{n}")).collect();
    for path in &paths {
        put(&acme, definition(path)).await;
    }
    // The pools and lanes are those of the formula.
    let (_, lanes) = SETTINGS.split_once("| `lanes` | ingest | `").expect("the setting");
    let lanes: i64 = lanes.split('`').next().unwrap().parse().unwrap();
    assert_eq!(ingest_max, lanes + 3 * 4 + 6);
    let (ingest, results) = (scrape(pair.ingest[0].admin()).await, scrape(pair.results[0].admin()).await);
    assert_eq!(ingest.sum("sluice_pool_sessions_max", &[]), 3.0 * 4.0);
    assert_eq!(results.sum("sluice_pool_sessions_max", &[]), 2.0 * 6.0);

    let [on_ingest, on_results] = [&pair.ingest_database, &pair.results_database];
    let mut calls = JoinSet::new();
    for n in 0..30 {
        let (acme, path) = (pair.clients(Tenant::Acme), paths[n % paths.len()].clone());
        calls.spawn(async move {
            let request = GetDefinitionRequest { path: path.clone(), ..Default::default() };
            let mut definitions = acme.definitions.clone();
            let (mut results, listing) = (acme.results.clone(), ListResultsRequest::default());
            let observation = marked(&path, &n.to_string(), "1");
            let (definition, list, _, _) = tokio::join!(
                definitions.get_definition(request),
                results.list_results(listing),
                publish(&acme, vec![observation]),
                outcome(&acme, file(&path), b"x"),
            );
            assert!(definition.is_ok() && list.is_ok());
        });
    }
    let sessions = async |of: &Database, login: &str| -> i64 {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = $1";
        of.sql().await.query_one(count, &[&login]).await.unwrap().get(0)
    };
    let (mut ingest, mut results) = (0, 0);
    while calls.join_next().await.is_some() {
        ingest = ingest.max(sessions(on_ingest, "sluice_ingest").await);
        results = results.max(sessions(on_results, "sluice_results").await);
    }
    assert!((1..=ingest_max).contains(&ingest), "{ingest} of {ingest_max}");
    assert!((1..=results_max).contains(&results), "{results} of {results_max}");
}
