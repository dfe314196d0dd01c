//! The clean-up: what is past its retention expires, nothing else does, and a crash
//! at any point leaves nothing half done.

use sluice_proto::results::v1::{
    AcknowledgeResultRequest, BatchAcknowledgeResultsRequest, NewResult, StorageConfig,
    record_results_response::Recording, result::State,
};
use sluice_tests::{Answers, Database, PairBuilder, S3Server, Service, Tenant, eventually};
use tonic::Code;
use uuid::Uuid;

use crate::{
    results::shelf::{ACME, new, record},
    storage::clouds::{allowing, s3},
    storage::files::discard,
    storage::support::{Storage, seconds, stored, upload},
    telemetry::exposition::scrape,
};

pub fn managed(days: i64) -> StorageConfig {
    StorageConfig { managed: true, retention: seconds(days * 86_400), ..StorageConfig::default() }
}

pub async fn state(storage: &Storage, id: &str) -> State {
    storage.get(id).await.unwrap().state()
}

pub async fn expired(storage: &Storage, ids: &[&str]) {
    eventually("the end of the retention", || async {
        for id in ids {
            let record = storage.get(id).await.unwrap();
            if record.state() != State::Expired || record.date_deleted.is_none() {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// Waits until the clean-up has looked at everything once more.
pub async fn looked_again(storage: &Storage) {
    let sql = storage.shelf.0.results_database.sql().await;
    let oldest = "SELECT min(date_leased)::text, bool_and(lease IS NULL) FROM cleanup_progress";
    let now: String = sql.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
    eventually("another look", || async {
        let row = sql.query_one(oldest, &[]).await.unwrap();
        // There is nothing to see before the first look.
        let seen: Option<String> = row.get(0);
        (seen.is_some_and(|seen| seen > now) && row.get(1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn data_in_the_database_goes_after_its_retention() {
    let storage = Storage::start().await;
    let results: Vec<NewResult> = (0..5).map(|_| new("inline")).collect();
    storage.shelf.record(&results).await;
    let file = upload();
    storage.store(file.clone(), vec![vec![1; 600_000]]).await.unwrap();
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&file.id)]).await.unwrap();
    let consumed = AcknowledgeResultRequest { organisation: String::new(), id: results[0].id.clone() };
    storage.shelf.results(Tenant::Acme).acknowledge_result(consumed.clone()).await.unwrap();
    storage.age(29).await;
    looked_again(&storage).await;
    assert_eq!(state(&storage, &results[1].id).await, State::Available);
    storage.age(2).await;
    let ids: Vec<&str> = results.iter().map(|result| result.id.as_str()).chain([file.id.as_str()]).collect();
    expired(&storage, &ids).await;
    for id in &ids {
        assert_eq!(storage.download(id).await.unwrap_err().code(), Code::FailedPrecondition);
    }
    let sql = storage.shelf.0.results_database.sql().await;
    let left = "SELECT (SELECT count(*) FROM data_block) + (SELECT count(*) FROM file_chunk)
                     + (SELECT count(*) FROM available)";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
    // What was acknowledged before stays so; what was not no longer can be.
    let mut results_client = storage.shelf.results(Tenant::Acme);
    assert!(!results_client.acknowledge_result(consumed).await.unwrap().into_inner().changed);
    let late = AcknowledgeResultRequest { organisation: String::new(), id: results[1].id.clone() };
    assert_eq!(results_client.acknowledge_result(late).await.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn what_its_progress_was_lost_of_is_cleaned_up_all_the_same() {
    let storage = Storage::start().await;
    storage.shelf.record(&[new("before")]).await;
    looked_again(&storage).await;
    // As a database has it that was restored to an earlier time.
    let sql = storage.shelf.0.results_database.sql().await;
    sql.batch_execute("DELETE FROM cleanup_progress").await.unwrap();
    let result = new("after");
    storage.shelf.record(std::slice::from_ref(&result)).await;
    storage.age(31).await;
    expired(&storage, &[&result.id]).await;
}

/// Nobody removes more chunks in one statement than what its time is enough for.
const SO_MANY_AT_ONCE: &str = "
    CREATE FUNCTION so_many_at_once() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (SELECT count(*) FROM gone) > 256 THEN
            RAISE 'too many chunks in one statement';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER so_many_at_once AFTER DELETE ON file_chunk REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION so_many_at_once()";

#[tokio::test]
async fn a_file_of_any_size_goes_in_steps() {
    let storage = Storage::start().await;
    let [even, odd, discarded] = [(); 3].map(|()| upload());
    for file in [&even, &odd, &discarded] {
        storage.store(file.clone(), vec![vec![1]]).await.unwrap();
    }
    record(&mut storage.shelf.intake(0), ACME, vec![stored(&even.id), stored(&odd.id)]).await.unwrap();
    // Two steps, and one chunk more.
    let sql = storage.shelf.0.results_database.sql().await;
    let more = format!(
        "INSERT INTO file_chunk (id, number, organisation, bytes)
         SELECT id, more, organisation, '' FROM file_chunk
         CROSS JOIN generate_series(1, CASE WHEN id = '{}' THEN 511 ELSE 512 END) AS given(more)",
        even.id
    );
    assert_eq!(sql.execute(&more, &[]).await.unwrap(), 511 + 512 + 512);
    sql.batch_execute(SO_MANY_AT_ONCE).await.unwrap();
    assert_eq!(discard(&storage, &[&discarded.id]).await, [Recording::Recorded]);
    storage.no_uploads().await;
    let left = "SELECT count(*) FROM file_chunk";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 512 + 513);
    storage.age(31).await;
    expired(&storage, &[&even.id, &odd.id]).await;
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_block_stays_as_long_as_one_record_needs_it() {
    let storage = Storage::start().await;
    let short = storage.create(StorageConfig { url: "db://results".into(), ..managed(1) }).await.unwrap();
    let (goes, stays) = (NewResult { storage_config: short.id, ..new("same") }, new("same"));
    storage.shelf.record(&[goes.clone(), stays.clone()]).await;
    // As earlier builds left it: what both keep is in one block.
    let sql = storage.shelf.0.results_database.sql().await;
    let shared = format!("(SELECT block FROM result WHERE id = '{}')", goes.id);
    let statements = format!(
        "UPDATE result SET block = {shared} WHERE id = '{id}';
         UPDATE batch SET block = {shared} WHERE first_id = '{id}';
         DELETE FROM data_block WHERE id <> {shared}",
        id = stays.id
    );
    sql.batch_execute(&statements).await.unwrap();
    storage.age(2).await;
    expired(&storage, &[&goes.id]).await;
    looked_again(&storage).await;
    assert_eq!(storage.download(&stays.id).await.unwrap(), b"same");
    storage.age(29).await;
    expired(&storage, &[&stays.id]).await;
    let blocks: i64 = sql.query_one("SELECT count(*) FROM data_block", &[]).await.unwrap().get(0);
    assert_eq!(blocks, 0);
}

#[tokio::test]
async fn objects_go_after_their_retention_and_only_managed_ones() {
    let storage = Storage::start().await;
    let config = storage.default_folder(managed(1)).await;
    let own =
        storage.create(StorageConfig { url: "local://own".into(), ..Default::default() }).await.unwrap();
    let for_ever = StorageConfig {
        url: "local://ever".into(),
        managed: true,
        retention: seconds(0),
        ..Default::default()
    };
    let for_ever = storage.create(for_ever).await.unwrap();
    let goes = new("goes");
    let kept: Vec<NewResult> =
        [own.id, for_ever.id].into_iter().map(|id| NewResult { storage_config: id, ..new("kept") }).collect();
    storage.shelf.record(std::slice::from_ref(&goes)).await;
    storage.shelf.record(&kept).await;
    storage.age(400).await;
    expired(&storage, &[&goes.id]).await;
    looked_again(&storage).await;
    for result in &kept {
        assert_eq!(storage.download(&result.id).await.unwrap(), b"kept");
    }
    let files = storage.files();
    assert!(files.len() == 2 && !files.iter().any(|file| file.ends_with(&goes.id)), "{files:?}");
    let told = storage.get(&goes.id).await.unwrap();
    assert_eq!((told.storage_config, told.signed_url), (config.id, None));
}

#[tokio::test]
async fn a_bucket_that_fails_is_cleaned_up_when_it_works_again() {
    let storage = Storage::start().await;
    storage.default_folder(managed(1)).await;
    let result = new("goes");
    storage.shelf.record(std::slice::from_ref(&result)).await;
    storage.forbid(true);
    storage.age(2).await;
    eventually("the mark", || async { (state(&storage, &result.id).await == State::Expired).then_some(()) })
        .await;
    looked_again(&storage).await;
    let told = storage.get(&result.id).await.unwrap();
    assert_eq!(told.date_deleted, None, "its object is not confirmed to be gone");
    storage.forbid(false);
    expired(&storage, &[&result.id]).await;
    assert!(storage.files().is_empty());
}

#[tokio::test]
async fn an_object_that_can_not_be_removed_stops_only_its_batch() {
    let storage = Storage::with(|pair| pair.admin()).await;
    storage.default_folder(managed(1)).await;
    let (stuck, beside, after) = (new("stuck"), new("beside"), new("after"));
    storage.shelf.record(&[stuck.clone(), beside.clone()]).await;
    storage.shelf.record(std::slice::from_ref(&after)).await;
    let url = storage.get(&stuck.id).await.unwrap().url;
    let object = storage.root.join(url.strip_prefix("local://").unwrap());
    std::fs::remove_file(&object).unwrap();
    std::fs::create_dir(&object).unwrap();
    std::fs::write(object.join("in the way"), "").unwrap();
    storage.age(2).await;
    expired(&storage, &[&after.id]).await;
    looked_again(&storage).await;
    for result in [&stuck, &beside] {
        let told = storage.get(&result.id).await.unwrap();
        assert_eq!((told.state(), told.date_deleted), (State::Expired, None), "not all of it is gone");
    }
    // It should have gone a day ago, and whoever runs the service hears of it.
    let late =
        async || scrape(storage.shelf.0.results[0].admin()).await.sum("sluice_cleanup_lag_seconds", &[]);
    eventually("a day", || async { (late().await >= 86_400.0).then_some(()) }).await;
    std::fs::remove_dir_all(&object).unwrap();
    expired(&storage, &[&stuck.id, &beside.id]).await;
    eventually("nothing left", || async { (late().await < 3600.0).then_some(()) }).await;
}

#[tokio::test]
async fn any_number_of_replicas_may_be_killed_at_any_time() {
    let server = S3Server::start().await;
    server.create_bucket("bucket");
    let replicas = |pair: PairBuilder| allowing(&server.endpoint(), pair.processes().results_replicas(2));
    let mut storage = Storage::with(replicas).await;
    let config = storage.create(s3(&server, S3Server::SECRET_ACCESS_KEY)).await.unwrap();
    storage.set_default(&config.id).await.unwrap();
    let results: Vec<NewResult> = (0..300).map(|_| new("goes")).collect();
    storage.shelf.record(&results).await;
    assert_eq!(server.keys("bucket").len(), 300);
    let sql = storage.shelf.0.results_database.sql().await;
    let gone = async || -> i64 {
        let count =
            "SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM expired WHERE date_deleted IS NOT NULL";
        sql.query_one(count, &[]).await.unwrap().get(0)
    };
    server.answer(Answers::HoldsRemovals);
    let before = server.requests().len();
    storage.age(2).await;
    eventually("a removal on its way", || async {
        server.requests()[before..].iter().any(|request| request.ends_with("?delete")).then_some(())
    })
    .await;
    for replica in &mut storage.shelf.0.results {
        replica.kill();
    }
    assert_eq!(gone().await, 0, "killed in the middle of it");
    server.answer(Answers::Well);
    storage.shelf.0.results[0].restart(true).await;
    // Whoever has a lease and is dead is waited for: as if that time had passed.
    let silent = "UPDATE cleanup_progress SET date_leased = date_leased - interval '31 seconds'";
    sql.batch_execute(silent).await.unwrap();
    eventually("all to expire", || async { (gone().await == 300).then_some(()) }).await;
    assert!(server.keys("bucket").is_empty(), "{:?}", server.keys("bucket"));
}

#[tokio::test]
async fn what_somebody_works_on_is_taken_after_so_long_a_silence() {
    let sql = Database::create(Service::Results).await.sql().await;
    let leased = "INSERT INTO cleanup_progress (organisation, storage_config, lease, date_leased)
                  VALUES ('acme', gen_random_uuid(), gen_random_uuid(), '2026-01-01Z')";
    sql.batch_execute(leased).await.unwrap();
    let mut taken = Vec::new();
    for now in ["2026-01-01 00:00:29Z", "2026-01-01 00:00:30Z"] {
        let statement = include_str!("../../../crates/results/src/sql/cleanup_lease.sql")
            .replace("clock_timestamp()", &format!("'{now}'::timestamptz"))
            .replace("$3", "'infinity'");
        taken.push(sql.execute(&statement, &[&Uuid::new_v4(), &0.0_f64]).await.unwrap());
    }
    assert_eq!(taken, [0, 1]);
}

#[tokio::test]
async fn what_expired_a_year_ago_is_forgotten() {
    let storage = Storage::start().await;
    let (old, young) = (new("old"), new("young"));
    storage.shelf.record(&[old.clone(), young.clone()]).await;
    for result in [&old, &young] {
        storage.shelf.expire(&result.id).await;
    }
    let sql = storage.shelf.0.results_database.sql().await;
    let ago = "UPDATE expired SET date_deleted = now() - make_interval(days => $2) WHERE first_id = $1";
    for (result, days) in [(&old, 366), (&young, 364)] {
        sql.execute(ago, &[&result.id.parse::<Uuid>().unwrap(), &days]).await.unwrap();
    }
    let statement = include_str!("../../../crates/results/src/sql/forget.sql");
    let forgotten = async || -> i64 { sql.query_one(statement, &[]).await.unwrap().get("forgotten") };
    assert_eq!((forgotten().await, forgotten().await), (1, 0));
    assert_eq!(storage.get(&old.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(state(&storage, &young.id).await, State::Expired);
    let dropped: i32 =
        sql.query_one("SELECT drop_empty_weeks(now() + interval '8 days')", &[]).await.unwrap().get(0);
    assert!(dropped > 0, "the weeks of data blocks and of consumed results are empty");
    assert_eq!(state(&storage, &young.id).await, State::Expired, "weeks with rows stay");
}

#[tokio::test]
async fn what_one_forgets_nobody_else_waits_for() {
    let database = Database::create(Service::Results).await;
    let (one, other) = (database.sql().await, database.sql().await);
    let left =
        "INSERT INTO expired (date_created, date_deleted, first_id, storage_config, organisation, poll, ids)
                VALUES ('2020-01-01Z', '2020-02-01Z', gen_random_uuid(), gen_random_uuid(), 'acme', 'poll',
                        ARRAY[gen_random_uuid()])";
    one.batch_execute(left).await.unwrap();
    let statement = include_str!("../../../crates/results/src/sql/forget.sql");
    other.batch_execute("SET lock_timeout = '1s'").await.unwrap();
    one.batch_execute("BEGIN").await.unwrap();
    let mut forgotten = Vec::new();
    for session in [&one, &other] {
        forgotten.push(session.query_one(statement, &[]).await.unwrap().get::<_, i64>("forgotten"));
    }
    assert_eq!(forgotten, [1, 0]);
}

#[tokio::test]
async fn weeks_that_can_not_be_dropped_are_not_tried_at_each_look() {
    let (ingest, results) =
        (Database::create(Service::Ingest).await, Database::create(Service::Results).await);
    let sql = results.sql().await;
    // Sequences count what is rolled back, too.
    let failing = "CREATE SEQUENCE tries; GRANT USAGE ON SEQUENCE tries TO PUBLIC;
        CREATE OR REPLACE FUNCTION drop_empty_weeks(moment timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM nextval('tries');
            RAISE 'no';
        END $$";
    sql.batch_execute(failing).await.unwrap();
    let storage = Storage::with(|builder| builder.on(ingest, results)).await;
    storage.shelf.record(&[new("x")]).await;
    let tries = async || -> (i64, bool) {
        let row = sql.query_one("SELECT last_value, is_called FROM tries", &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    eventually("a try", || async { tries().await.1.then_some(()) }).await;
    for _ in 0..3 {
        looked_again(&storage).await;
    }
    assert_eq!(tries().await, (1, true));
}

#[tokio::test]
async fn a_batch_is_forgotten_with_the_last_of_its_records() {
    let storage = Storage::start().await;
    let results: Vec<NewResult> = ["first", "second", "third"].map(new).into();
    storage.shelf.record(&results).await;
    let mut client = storage.shelf.results(Tenant::Acme);
    let ids = results[..2].iter().map(|result| result.id.clone()).collect();
    let request = BatchAcknowledgeResultsRequest { organisation: String::new(), ids };
    client.batch_acknowledge_results(request).await.unwrap();
    let sql = storage.shelf.0.results_database.sql().await;
    let statement = include_str!("../../../crates/results/src/sql/forget.sql");
    let rows =
        "SELECT (SELECT count(*) FROM result), (SELECT count(*) FROM consumed), (SELECT count(*) FROM batch)";
    let mut left = Vec::new();
    for result in &results {
        storage.shelf.expire(&result.id).await;
        sql.batch_execute("UPDATE expired SET date_deleted = now() - interval '366 days'").await.unwrap();
        sql.query_one(statement, &[]).await.unwrap();
        let row = sql.query_one(rows, &[]).await.unwrap();
        left.push((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)));
    }
    assert_eq!(left, [(2, 1, 1), (1, 0, 1), (0, 0, 0)]);
}
