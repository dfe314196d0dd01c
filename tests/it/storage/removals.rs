//! What uploads left behind is removed, and nothing else: however many replicas do it,
//! however late, and whatever tries there were before the one that was recorded. A bucket
//! that does not do it holds up nothing else.

use std::time::Duration;

use sluice_proto::results::v1::{
    NewResult, ReconcileStorageConfigRequest, StorageConfig, reconcile_storage_config_response::Finding,
    record_results_response::Recording,
};
use sluice_tests::{
    Answers, Database, PairBuilder, S3Server, Service, Tenant, eventually, eventually_within,
};
use tokio_postgres::SimpleQueryMessage;
use uuid::Uuid;

use crate::{
    results::shelf::{ACME, new, record},
    storage::cleanup::looked_again,
    storage::clouds::{allowing, s3, with_s3},
    storage::files::discard,
    storage::support::{Storage, upload},
    telemetry::exposition::scrape,
};

/// Less than a bucket has for a removal.
const MEANWHILE: Duration = Duration::from_secs(12);

/// Leaves what a try leaves that ended before the record: a row long without a sign of
/// life, in some state.
async fn tried(storage: &Storage, result: &NewResult, config: &StorageConfig, state: i16) {
    let sql = storage.shelf.0.results_database.sql().await;
    let row = "INSERT INTO upload (organisation, id, storage_config, state, date_touched)
               VALUES ('acme', $1, $2, $3, '-infinity')";
    sql.execute(row, &[&id(&result.id), &id(&config.id), &state]).await.unwrap();
}

fn id(text: &str) -> Uuid {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_removal_that_gets_there_late_meets_no_object_that_was_written_anew() {
    let (storage, server, config) = with_s3().await;
    let sql = storage.shelf.0.results_database.sql().await;
    let result = new("written anew");
    server.answer(Answers::HoldsRemovals);
    let before = server.requests().len();
    tried(&storage, &result, &config, 1).await;
    eventually("a removal on its way, or none", || async {
        let removes = server.requests()[before..].iter().any(|request| request.ends_with("?delete"));
        let waits = "SELECT FROM upload WHERE date_touched > '-infinity'";
        (removes || sql.query_opt(waits, &[]).await.unwrap().is_some()).then_some(())
    })
    .await;
    // Another replica does the same, and is faster.
    let gone = include_str!("../../../crates/results/src/sql/uploads_gone.sql");
    sql.execute(gone, &[&[ACME].as_slice(), &[id(&result.id)].as_slice(), &[id(&config.id)].as_slice()])
        .await
        .unwrap();
    storage.shelf.record(std::slice::from_ref(&result)).await;
    server.answer(Answers::Well);
    looked_again(&storage).await;
    assert_eq!(storage.download(&result.id).await.unwrap(), b"written anew");
}

#[tokio::test]
async fn what_is_gone_is_told_in_the_order_of_the_key() {
    let database = Database::create(Service::Results).await;
    let (sql, other) = (database.sql().await, database.sql().await);
    let (first, last) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let left = "INSERT INTO upload (organisation, id, storage_config, state, date_touched)
                SELECT 'acme', id, '00000000-0000-0000-0000-000000000000', 3, 'epoch'
                FROM unnest($1::uuid[]) AS given(id)";
    sql.execute(left, &[&[first, last].as_slice()]).await.unwrap();
    let lock = "SELECT FROM upload WHERE id = $1 FOR UPDATE NOWAIT";
    sql.batch_execute("BEGIN").await.unwrap();
    sql.execute(lock, &[&first]).await.unwrap();
    let telling = tokio::spawn(async move {
        let gone = include_str!("../../../crates/results/src/sql/uploads_gone.sql");
        let (whose, which, where_to) = ([ACME; 2], [last, first], [Uuid::nil(); 2]);
        other.execute(gone, &[&whose.as_slice(), &which.as_slice(), &where_to.as_slice()]).await
    });
    let waits =
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("one that waits for the first", || async { sql.query_opt(waits, &[]).await.unwrap() }).await;
    sql.execute(lock, &[&last]).await.expect("it has not come to the last one");
    sql.batch_execute("COMMIT").await.unwrap();
    assert_eq!(telling.await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn what_an_earlier_build_removed_is_written_anew_an_hour_later() {
    let storage = Storage::start().await;
    let config = storage.default_folder(StorageConfig::default()).await;
    let result = new("rests");
    tried(&storage, &result, &config, 3).await;
    storage.no_uploads().await;
    let tell = async || record(&mut storage.shelf.intake(0), ACME, vec![result.clone()]).await.unwrap();
    assert_eq!(tell().await, [Recording::Deferred]);
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("UPDATE upload SET date_touched = date_touched - interval '1 hour'").await.unwrap();
    assert_eq!(tell().await, [Recording::Recorded]);
    assert_eq!(storage.download(&result.id).await.unwrap(), b"rests");
}

#[tokio::test]
async fn storage_configs_of_one_url_do_not_remove_each_others_objects() {
    let storage = Storage::with(|pair| pair.flag(Service::Results, "upload-idle-seconds", "1")).await;
    let terms = || StorageConfig { managed: true, ..StorageConfig::default() };
    let first = storage.default_folder(terms()).await;
    let (open, given_up) = (new("open"), new("given up"));
    // The same URL once more, and the default.
    let second = storage.default_folder(terms()).await;
    storage.shelf.record(&[open.clone(), given_up.clone()]).await;
    tried(&storage, &open, &first, 1).await;
    // An earlier build took this one for dead.
    tried(&storage, &given_up, &first, 3).await;
    storage.no_uploads().await;
    looked_again(&storage).await;
    for (result, data) in [(&open, "open"), (&given_up, "given up")] {
        assert_eq!(storage.get(&result.id).await.unwrap().storage_config, second.id);
        assert_eq!(storage.download(&result.id).await.unwrap(), data.as_bytes());
    }

    // An upload on its way is nobody's stray, either.
    let pending = upload();
    storage.store(pending, vec![b"on its way".to_vec()]).await.unwrap();
    for (config, records) in [(&first, 0), (&second, 2)] {
        let request = ReconcileStorageConfigRequest { organisation: String::new(), id: config.id.clone() };
        let mut configs = storage.configs(Tenant::Acme);
        let mut reports = configs.reconcile_storage_config(request).await.unwrap().into_inner();
        let told = reports.message().await.unwrap().unwrap();
        assert_eq!((told.finding(), told.objects, told.records), (Finding::Unspecified, 3, records));
    }
}

/// A file of `acme` in a bucket that hangs when it is to be removed, and which is; and
/// whatever else is done in the same moment.
async fn removal_that_hangs(storage: &Storage, server: &S3Server, and: &str) {
    storage.store(upload(), vec![b"goes".to_vec()]).await.unwrap();
    server.answer(Answers::HoldsRemovals);
    let before = server.requests().len();
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute(&format!("UPDATE upload SET state = 3; {and}")).await.unwrap();
    eventually("a removal on its way", || async {
        server.requests()[before..].iter().any(|request| request.ends_with("?delete")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_removal_that_hangs_holds_up_no_retention() {
    let (storage, server, _) = with_s3().await;
    record(&mut storage.shelf.intake(0), "globex", vec![new("of another")]).await.unwrap();
    removal_that_hangs(&storage, &server, "").await;
    storage.age(31).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let gone = "SELECT FROM expired WHERE organisation = 'globex' AND date_deleted IS NOT NULL";
    eventually_within(MEANWHILE, "its end", || async { sql.query_opt(gone, &[]).await.unwrap() }).await;
}

#[tokio::test]
async fn a_removal_that_hangs_holds_up_no_other_storage() {
    let (storage, server, _) = with_s3().await;
    // It comes after those of `acme`, and was there before any round that finds them.
    let other = "INSERT INTO upload (organisation, id, storage_config, state, date_touched, size)
                 SELECT 'globex', gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 3, 'epoch', 1";
    removal_that_hangs(&storage, &server, other).await;
    let sql = storage.shelf.0.results_database.sql().await;
    let gone = "SELECT FROM upload WHERE organisation = 'globex' AND state = 4";
    eventually_within(MEANWHILE, "its end", || async { sql.query_opt(gone, &[]).await.unwrap() }).await;
}

#[tokio::test]
async fn an_upload_that_can_not_be_removed_holds_up_no_other() {
    let storage = Storage::start().await;
    storage.default_folder(StorageConfig::default()).await;
    let (stuck, goes) = (upload(), upload());
    for file in [&stuck, &goes] {
        storage.store(file.clone(), vec![b"goes".to_vec()]).await.unwrap();
    }
    // The first that is looked at has something else in its place.
    let object = storage.files().into_iter().find(|file| file.ends_with(&stuck.id)).unwrap();
    std::fs::remove_file(&object).unwrap();
    std::fs::create_dir(&object).unwrap();
    std::fs::write(object.join("in the way"), "").unwrap();
    assert_eq!(discard(&storage, &[&stuck.id, &goes.id]).await, [Recording::Recorded; 2]);
    eventually("the other to go", || async { (storage.uploads().await == 1).then_some(()) }).await;
    std::fs::remove_dir_all(&object).unwrap();
    storage.no_uploads().await;
}

#[tokio::test]
async fn a_round_of_removals_looks_at_what_was_there_when_it_began() {
    let sql = Database::create(Service::Results).await.sql().await;
    let two = "INSERT INTO upload (organisation, id, storage_config, state, date_touched, size)
               SELECT 'acme', gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 3, moment, 1
               FROM unnest(ARRAY['2026-01-01Z', '2026-01-02Z']::timestamptz[]) AS given(moment)";
    sql.execute(two, &[]).await.unwrap();
    let statement = include_str!("../../../crates/results/src/sql/uploads_left.sql");
    let mut found = Vec::new();
    for began in ["2026-01-01Z", "2026-01-02Z", "2026-01-03Z"] {
        sql.batch_execute(&format!("PREPARE looks AS {statement}")).await.unwrap();
        let nil = Uuid::nil();
        let rows = sql
            .simple_query(&format!("EXECUTE looks ('', '{nil}', '{nil}', 1, '{began}'); DEALLOCATE looks"))
            .await
            .unwrap();
        let is_row = |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
        found.push(rows.iter().filter(is_row).count());
    }
    assert_eq!(found, [0, 1, 2]);
}

#[tokio::test]
async fn ids_are_forgotten_after_a_day_so_many_at_a_time() {
    let sql = Database::create(Service::Results).await.sql().await;
    let used = "INSERT INTO upload (organisation, id, storage_config, state, date_touched)
                SELECT 'acme', gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 4,
                       now() - make_interval(hours => CASE WHEN number > 5001 THEN 23 ELSE 25 END)
                FROM generate_series(1, 5003) AS given(number)";
    sql.execute(used, &[]).await.unwrap();
    let statement = include_str!("../../../crates/results/src/sql/uploads_forget.sql").replace("$1", "now()");
    let forgotten = async || sql.execute(&statement, &[]).await.unwrap();
    assert_eq!((forgotten().await, forgotten().await, forgotten().await), (5000, 1, 0));
}

#[tokio::test]
async fn a_bucket_that_fails_so_often_is_left_alone_until_the_next_round() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    // Its rounds are those of a start.
    let rarely = |pair: PairBuilder| {
        allowing(&server.endpoint(), pair).admin().flag(Service::Results, "cleanup-interval-seconds", "86400")
    };
    let mut storage = Storage::with(rarely).await;
    let config = storage.create(s3(&server, S3Server::SECRET_ACCESS_KEY)).await.unwrap();
    storage.shelf.0.results[0].stop().await;
    // More than are looked at together.
    let sql = storage.shelf.0.results_database.sql().await;
    let left = "INSERT INTO upload (organisation, id, storage_config, state, date_touched, size)
                SELECT 'acme', gen_random_uuid(), $1, 3, 'epoch', 1 FROM generate_series(1, 1100)";
    sql.execute(left, &[&id(&config.id)]).await.unwrap();
    server.answer(Answers::Denied);
    storage.shelf.0.results[0].restart(false).await;
    let exposed = async || scrape(storage.shelf.0.results[0].admin()).await;
    eventually("the rounds of both kinds", || async {
        (exposed().await.sum("sluice_cleanup_rounds_total", &[]) >= 2.0).then_some(())
    })
    .await;
    let failed = exposed().await.sum("sluice_cleanup_objects_total", &[("removal", "failed")]);
    assert_eq!((failed, storage.uploads().await), (16.0, 1100));
}
