//! What the `results_*` tests share: a results service alone, fed through its
//! intake as the ingest service does.

use sluice::connection::Authorised;
use sluice_proto::{
    limits::ANSWER_BYTES_MAX,
    results::v1::{
        ListResultsRequest, NewResult, RecordResultsRequest, Result as Record, ResultBatch,
        record_results_response::Recording, results_intake_service_client::ResultsIntakeServiceClient,
        results_service_client::ResultsServiceClient,
    },
};
use sluice_tests::{Pair, Service, Tenant};
use tonic::{Code, Status};
use uuid::Uuid;

pub const ACME: &str = "acme";

pub type Results = ResultsServiceClient<Authorised>;
pub type Intake = ResultsIntakeServiceClient<Authorised>;

/// One or more replicas of the results service on one database.
pub struct Shelf(pub Pair);

impl Shelf {
    pub async fn start() -> Self {
        Self::with_replicas(1).await
    }

    pub async fn with_replicas(replicas: u32) -> Self {
        Self(Pair::builder().ingest_replicas(0).results_replicas(replicas).start().await)
    }

    /// One that reads everything from its database.
    pub async fn without_memory() -> Self {
        let pair = Pair::builder().ingest_replicas(0).results_replicas(1);
        Self(pair.flag(Service::Results, "recent-bytes-max", "0").start().await)
    }

    pub fn results(&self, tenant: Tenant) -> Results {
        self.results_of(tenant, 0)
    }

    pub fn results_of(&self, tenant: Tenant, replica: usize) -> Results {
        ResultsServiceClient::new(self.0.authorised(tenant, &self.0.results[replica]))
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub fn intake(&self, replica: usize) -> Intake {
        ResultsIntakeServiceClient::new(self.0.authorised(Tenant::Intake, &self.0.results[replica]))
    }

    /// Records results of `acme` and expects that all are taken.
    pub async fn record(&self, results: &[NewResult]) {
        for batch in results.chunks(1000) {
            let told = record(&mut self.intake(0), ACME, batch.to_vec()).await.unwrap();
            assert_eq!(told, vec![Recording::Recorded; batch.len()]);
        }
    }

    /// Does to a result what the clean-up does.
    pub async fn expire(&self, id: &str) {
        let sql = self.0.results_database.sql().await;
        let id: Uuid = id.parse().unwrap();
        let statements = format!(
            "UPDATE available SET ids = array_remove(ids, '{id}') WHERE organisation = '{ACME}';
             DELETE FROM available WHERE ids = '{{}}';
             INSERT INTO expired (date_created, date_deleted, first_id, storage_config, organisation, poll, ids)
             SELECT date_created, now(), id, coalesce(storage_config, '00000000-0000-0000-0000-000000000000'), organisation, poll, ARRAY[id] FROM result
             WHERE organisation = '{ACME}' AND id = '{id}'"
        );
        sql.batch_execute(&statements).await.unwrap();
    }
}

/// A result as ingest hands it over.
pub fn new(data: impl Into<Vec<u8>>) -> NewResult {
    NewResult {
        id: Uuid::now_v7().to_string(),
        definition: "security/ssh/login".into(),
        poll: "poll".into(),
        task: String::new(),
        identifier: "identifier".into(),
        r#type: "application/json".into(),
        storage_config: String::new(),
        data: data.into().into(),
        stored_file: false,
    }
}

pub async fn record(
    intake: &mut Intake,
    organisation: &str,
    results: Vec<NewResult>,
) -> Result<Vec<Recording>, Status> {
    let batch = ResultBatch { organisation: organisation.into(), results, ..ResultBatch::default() };
    let answer = intake.record_results(RecordResultsRequest { batches: vec![batch] }).await?;
    Ok(answer.into_inner().recordings().collect())
}

/// All pages of a list.
pub async fn walk(results: &mut Results, mut request: ListResultsRequest) -> Vec<Record> {
    let mut found = vec![];
    loop {
        let page = results.list_results(request.clone()).await.unwrap().into_inner();
        found.extend(page.results);
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

pub fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}

/// What tells a failure from another: code, text and details.
pub fn face<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String, Vec<u8>) {
    let status = outcome.unwrap_err();
    (status.code(), status.message().to_owned(), status.details().to_vec())
}
