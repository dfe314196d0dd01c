//! `/metrics` of both services under load: well-formed, described, bounded, and
//! adding up.

use std::collections::BTreeSet;

use http::Method;
use sluice::connection::Clients;
use sluice_proto::{
    ingest::v1::{Outcome, PublicationOutcome},
    results::v1::{BatchAcknowledgeResultsRequest, ListResultsRequest, StorageConfig},
};
use sluice_tests::{Pair, Service, Tenant, eventually};

use super::exposition::{Exposition, ask, scrape};
use crate::{
    http::support::Http,
    results::shelf::{ACME, record},
    storage::support::{Storage, stored, upload},
    support::*,
};

async fn start(builder: sluice_tests::PairBuilder) -> (Pair, Clients) {
    let pair = builder.admin().start().await;
    let acme = pair.clients(Tenant::Acme);
    (pair, acme)
}

/// Something of everything; what was told of each observation.
async fn load(acme: &Clients) -> Vec<PublicationOutcome> {
    put(acme, unique("load/unique")).await;
    put(acme, throttled("load/throttled", 5)).await;
    let mut told = Vec::new();
    for round in 0..5 {
        let mut batch = vec![
            json("load/unique", &format!("{{\"keys\":{round}}}")),
            json("load/unique", "{\"keys\":\"the same\"}"),
            json("load/nobody", "{}"),
            json("load/unique", "no JSON"),
            marked("load/throttled", "once", "{}"),
        ];
        batch.extend((0..2).map(|n| json("load/throttled", &n.to_string())));
        told.extend(publish(acme, batch).await);
    }
    told
}

fn name(outcome: Outcome) -> String {
    outcome.as_str_name().trim_start_matches("OUTCOME_").to_lowercase()
}

async fn of_both(pair: &Pair) -> (Exposition, Exposition) {
    (scrape(pair.ingest[0].admin()).await, scrape(pair.results[0].admin()).await)
}

#[tokio::test]
async fn inputs_are_the_sum_of_outcomes_and_outcomes_are_those_told() {
    let (pair, acme) = start(builder()).await;
    let told = load(&acme).await;
    let ingest = scrape(pair.ingest[0].admin()).await;
    assert_eq!(ingest.sum("sluice_observations_total", &[]), told.len() as f64);
    assert_eq!(ingest.sum("sluice_outcomes_total", &[]), told.len() as f64);
    for outcome in [
        Outcome::Success,
        Outcome::Duplicate,
        Outcome::Suppressed,
        Outcome::Throttled,
        Outcome::Error,
        Outcome::Retry,
    ] {
        let expected = told.iter().filter(|t| t.outcome() == outcome).count();
        assert!(expected > 0 || outcome == Outcome::Retry, "the load has no {outcome:?}");
        let counted = ingest.sum("sluice_outcomes_total", &[("outcome", &name(outcome))]);
        assert_eq!(counted, expected as f64, "{outcome:?}");
    }
    let definitions = ingest.values("sluice_outcomes_total", "definition");
    assert_eq!(definitions.into_iter().collect::<Vec<_>>(), ["(unknown)", "load/throttled", "load/unique"]);
    assert_eq!(ingest.sum("sluice_outcomes_total", &[("definition", "(unknown)")]), 5.0);
}

#[tokio::test]
async fn what_was_accepted_is_seen_all_the_way_to_its_end() {
    let (pair, acme) = start(builder()).await;
    let told = load(&acme).await;
    let successes: Vec<_> = told.iter().filter(|told| told.outcome() == Outcome::Success).collect();
    let count = successes.len() as f64;
    drained(&pair).await;
    let size = download(&acme, &successes[0].ingest_id).await.len() as f64;
    let page = ListResultsRequest { page_size: 1000, ..Default::default() };
    let listed = acme.results.clone().list_results(page).await.unwrap().into_inner().results;
    let ids: Vec<String> = successes.iter().map(|success| success.ingest_id.clone()).collect();
    for _ in 0..2 {
        let request = BatchAcknowledgeResultsRequest { ids: ids.clone(), ..Default::default() };
        acme.results.clone().batch_acknowledge_results(request).await.unwrap();
    }
    let settled = || async {
        let ingest = scrape(pair.ingest[0].admin()).await;
        // Measured now and then.
        (ingest.sum("sluice_emission_results_total", &[("handover", "recorded")]) == count).then_some(ingest)
    };
    let ingest = eventually("all handed over", settled).await;
    let results = scrape(pair.results[0].admin()).await;
    assert_eq!(
        ingest.sum("sluice_commits_total", &[("result", "committed")]),
        ingest.sum("sluice_commit_duration_seconds_count", &[])
    );
    // Errors of the check are never committed.
    let errors = ingest.sum("sluice_outcomes_total", &[("outcome", "error")]);
    assert_eq!(ingest.sum("sluice_commit_observations_sum", &[]), told.len() as f64 - errors);
    assert_eq!(ingest.sum("sluice_lane_waiting_requests", &[]), 0.0);
    assert_eq!(ingest.sum("sluice_lane_waiting_bytes", &[]), 0.0);
    let batches = ingest.sum("sluice_emission_batches_total", &[("handover", "recorded")]);
    assert_eq!(ingest.sum("sluice_emission_lag_seconds_count", &[]), batches);
    assert!(ingest.sum("sluice_emission_calls_total", &[("code", "OK")]) >= 1.0);
    assert_eq!(results.sum("sluice_recordings_total", &[("recording", "recorded")]), count);
    assert_eq!(results.sum("sluice_recording_results_sum", &[]), count);
    assert_eq!(results.sum("sluice_recording_waiting_calls", &[]), 0.0);
    assert_eq!(results.sum("sluice_acknowledged_results_total", &[]), count);
    assert_eq!(listed.len(), successes.len());
    assert_eq!(results.sum("sluice_listed_results_total", &[("source", "memory")]), count);
    assert_eq!(results.sum("sluice_listed_results_total", &[("source", "database")]), 0.0);
    assert_eq!(results.sum("sluice_downloads_total", &[]), 1.0);
    assert_eq!(results.sum("sluice_downloaded_bytes_total", &[]), size);
    for exposed in [&ingest, &results] {
        assert!(exposed.sum("process_resident_memory_bytes", &[]) > 1e6);
        assert!(exposed.sum("sluice_pool_sessions_max", &[]) >= 1.0);
        assert_eq!(exposed.sum("sluice_build_info", &[]), 1.0);
    }
}

#[tokio::test]
async fn downloads_by_signed_urls_are_counted_too_and_uploads() {
    let storage = Storage::with(|builder| builder.admin()).await;
    let terms =
        StorageConfig { signed_urls_enabled: true, signed_urls_expiry: seconds(600), ..Default::default() };
    storage.default_folder(terms).await;
    let file = upload();
    storage.store(file.clone(), vec!["0123456789".into()]).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    let url = storage.get(&file.id).await.unwrap().signed_url.unwrap().url;
    let pair = &storage.shelf.0;
    let http = Http::results(pair, Tenant::Acme);
    let path = url.strip_prefix(&format!("http://{}", http.address)).unwrap();
    assert_eq!(http.get(path).await.body, "0123456789");
    let part = http.request(Method::GET, path).header("range", "bytes=0-2");
    assert_eq!(http.send(part, "").await.body, "012");
    // This gives nothing out.
    http.send(http.request(Method::HEAD, path), "").await;
    let results = scrape(pair.results[0].admin()).await;
    assert_eq!(results.sum("sluice_downloads_total", &[]), 2.0);
    assert_eq!(results.sum("sluice_downloaded_bytes_total", &[]), 13.0);
    assert_eq!(results.sum("sluice_uploads_total", &[("upload", "sealed")]), 1.0);
    assert_eq!(results.sum("sluice_uploaded_bytes_total", &[]), 10.0);
}

#[tokio::test]
async fn a_backlog_is_seen_while_it_lasts() {
    let (pair, acme) = start(builder().proxied(sluice_tests::Link::Intake)).await;
    put(&acme, definition("plain")).await;
    pair.proxy(sluice_tests::Link::Intake).refuse();
    publish_one(&acme, json("plain", "1")).await;
    let waiting = || async {
        let ingest = scrape(pair.ingest[0].admin()).await;
        let sum = |metric| ingest.sum(metric, &[]);
        let seen = sum("sluice_outbox_rows") == 1.0
            && sum("sluice_outbox_bytes") > 0.0
            && sum("sluice_outbox_oldest_age_seconds") > 0.0
            && ingest.sum("sluice_emission_batches_total", &[("handover", "failed")]) > 0.0;
        seen.then_some(())
    };
    eventually("a backlog", waiting).await;
    let sql = pair.ingest_database.sql().await;
    sql.batch_execute("UPDATE outbox SET set_aside = 'a test'").await.unwrap();
    let aside = || async {
        let ingest = scrape(pair.ingest[0].admin()).await;
        let alone = ingest.sum("sluice_outbox_oldest_age_seconds", &[]) == 0.0;
        (ingest.sum("sluice_outbox_set_aside_rows", &[]) == 1.0 && alone).then_some(())
    };
    eventually("a row set aside", aside).await;
}

/// The gate inserts as if nothing were known. Where something is, that try was in
/// vain, and for the next hundred it looks first.
#[tokio::test]
async fn what_is_known_costs_a_try_in_a_hundred() {
    let (pair, acme) = start(builder().flag(Service::Ingest, "lanes", "1")).await;
    put(&acme, definition("plain")).await;
    let again = marked("plain", "again", "1");
    let publish_again = async |times| {
        for _ in 0..times {
            assert_eq!(publish_one(&acme, again.clone()).await.outcome(), Outcome::Duplicate);
        }
    };
    let vain = async || {
        let ingest = scrape(pair.ingest[0].admin()).await;
        ingest.sum("sluice_commits_total", &[("result", "known")])
    };
    publish_one(&acme, again.clone()).await;
    assert_eq!(vain().await, 0.0);
    publish_again(3).await;
    assert_eq!(vain().await, 1.0);
    for n in 0..100 {
        publish_one(&acme, marked("plain", &n.to_string(), "1")).await;
    }
    publish_again(3).await;
    assert_eq!(vain().await, 2.0);
}

#[tokio::test]
async fn definitions_beyond_the_first_200_share_one_series() {
    let (pair, acme) = start(builder().flag(Service::Ingest, "lanes", "1")).await;
    for number in 0..300 {
        put(&acme, definition(&format!("many/{number}"))).await;
    }
    for hundred in 0..3 {
        let batch = (hundred * 100..(hundred + 1) * 100).map(|n| json(&format!("many/{n}"), "{}")).collect();
        publish(&acme, batch).await;
    }
    let nobody = (0..300).map(|n| json(&format!("nobody/{n}"), "{}")).collect();
    publish(&acme, nobody).await;
    let ingest = scrape(pair.ingest[0].admin()).await;
    let definitions = ingest.values("sluice_outcomes_total", "definition");
    assert_eq!(definitions.len(), 202, "{definitions:?}");
    let of = |definition| ingest.sum("sluice_outcomes_total", &[("definition", definition)]);
    assert_eq!((of("(other)"), of("(unknown)")), (100.0, 300.0));
    assert_eq!(ingest.sum("sluice_outcomes_total", &[]), 600.0);
    assert_eq!(ingest.sum("sluice_observations_total", &[]), 600.0);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status_on_both_surfaces() {
    let (pair, acme) = start(builder()).await;
    load(&acme).await;
    let wrong = acme.ingest.clone().publish_observations(request(vec![])).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
    let http = Http::results(&pair, Tenant::Acme);
    assert_eq!(http.get("/results").await.status, 200);
    assert_eq!(http.get("/no/such/route").await.status, 404);
    // A request ends a moment after its caller has the answer.
    let ended = || async {
        let (ingest, results) = of_both(&pair).await;
        let open = [&ingest, &results].iter().any(|told| told.sum("sluice_requests_open", &[]) > 0.0);
        (!open).then_some((ingest, results))
    };
    let (ingest, results) = eventually("the end of all requests", ended).await;
    let publish = "sluice.ingest.v1.IngestService/PublishObservations";
    let count = |exposed: &Exposition, route, method, code| {
        exposed.sum("sluice_requests_total", &[("route", route), ("method", method), ("code", code)])
    };
    assert_eq!(count(&ingest, publish, "", "OK"), 5.0);
    assert_eq!(count(&ingest, publish, "", "INVALID_ARGUMENT"), 1.0);
    assert_eq!(ingest.sum("sluice_request_duration_seconds_count", &[("route", publish)]), 6.0);
    assert!(count(&ingest, "grpc.health.v1.Health/Check", "", "OK") >= 1.0);
    assert_eq!(count(&results, "/results", "GET", "200"), 1.0);
    assert_eq!(count(&results, "_OTHER", "GET", "404"), 1.0);
}

/// The documents' table: metric with its labels, whose it is, its type.
fn documented() -> Vec<(String, String, String)> {
    let document = include_str!("../../../deploy/observability/README.md");
    let rows =
        document.lines().filter(|line| line.starts_with("| `sluice_") || line.starts_with("| `process_"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].trim_matches('`').to_owned(), cells[2].to_owned(), cells[3].to_owned())
    };
    rows.map(row).collect()
}

#[tokio::test]
async fn the_documents_name_what_is_exposed_and_nothing_else() {
    let (pair, acme) = start(builder()).await;
    load(&acme).await;
    drained(&pair).await;
    let (ingest, results) = of_both(&pair).await;
    for (service, exposed, other) in [("ingest", ingest, "results"), ("results", results, "ingest")] {
        let own = documented().into_iter().filter(|(_, of, _)| of != other);
        let documented: BTreeSet<_> = own.map(|(metric, _, kind)| format!("{metric} {kind}")).collect();
        let row = |(name, kind): (&String, &String)| {
            let labels: Vec<_> = exposed.labels.get(name).into_iter().flatten().cloned().collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("{name}{labels} {kind}")
        };
        let exposed: BTreeSet<_> = exposed.types.iter().map(row).collect();
        let differences: Vec<_> = documented.symmetric_difference(&exposed).collect();
        assert!(differences.is_empty(), "{service}: {differences:#?}");
    }
}

#[tokio::test]
async fn the_admin_port_tells_readiness_and_the_public_one_tells_no_metrics() {
    let (mut pair, _) = start(builder().processes()).await;
    for replica in pair.ingest.iter().chain(&pair.results) {
        assert_eq!(ask(replica.admin(), "/livez").await.status, 200);
        assert_eq!(ask(replica.admin(), "/readyz").await.status, 200);
        assert_eq!(ask(replica.address(), "/metrics").await.status, 404);
    }
    let sql = pair.results_database.sql().await;
    let revoke = "ALTER TABLE refinery_schema_history RENAME TO hidden";
    sql.batch_execute(revoke).await.unwrap();
    let admin = pair.results[0].admin();
    let unready = || async { (ask(admin, "/readyz").await.status == 503).then_some(()) };
    eventually("a replica that is not ready", unready).await;
    assert_eq!(ask(admin, "/livez").await.status, 200);
    pair.results[0].stop().await;
}
