//! Sends one batch until every observation has its final outcome, or until its
//! time is over. Resending is safe: the request id stays the same.

use std::time::{Duration, Instant};

use sluice_proto::ingest::v1::{
    Outcome, PublicationOutcome, PublishObservationsRequest, ingest_service_client::IngestServiceClient,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    lines::{Item, resend},
    summary::Ended,
};
use crate::{
    connection::Authorised,
    retry::{Backoff, NOT_KEPT, OUTCOME_UNKNOWN, is_refused, may_pass, still, undecided},
    text::proto_seconds,
};

/// A call that takes longer is given up and sent again.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What all batches have in common.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: IngestServiceClient<Authorised>,
    pub(super) organisation: String,
    /// How long a batch is tried before its open observations are given up.
    pub(super) retry_for: Duration,
    /// Cancelled by the first call that fails for good: the others would meet the
    /// same fault. No call begins after that.
    pub(super) stop: CancellationToken,
}

impl Sender {
    /// Sends a batch to its end, and tells how each line ended, as soon as it
    /// did.
    ///
    /// # Errors
    /// If a call fails for good. Each line has been told then, too.
    pub(super) async fn send(&mut self, items: &[Item], mut told: impl FnMut(Ended)) -> Result<(), Status> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let deadline = Instant::now() + self.retry_for;
        let mut open = vec![true; items.len()];
        let mut last = vec![PublicationOutcome::default(); items.len()];
        let mut backoff = Backoff::new();
        loop {
            let sent = resend(items, &open);
            let wait = match self.call(&request_id, items, &sent).await {
                Ok(outcomes) => {
                    backoff = Backoff::new();
                    let mut wait = Duration::ZERO;
                    for (at, outcome) in sent.into_iter().zip(outcomes) {
                        if !open[at] {
                            continue;
                        }
                        if outcome.outcome() == Outcome::Retry {
                            let delay = proto_seconds(outcome.delay.as_ref()).unwrap_or(1);
                            wait = wait.max(Duration::from_secs(delay));
                            last[at] = still(std::mem::take(&mut last[at]), outcome);
                        } else {
                            open[at] = false;
                            told(Ended::of(items[at].line, outcome));
                        }
                    }
                    wait
                }
                Err(status) if may_pass(&status) => {
                    // The call may have been decided and only its answer lost.
                    last.fill(undecided(&status, OUTCOME_UNKNOWN));
                    backoff.after(&status)
                }
                Err(status) => {
                    self.stop.cancel();
                    let reason = if is_refused(&status) { NOT_KEPT } else { OUTCOME_UNKNOWN };
                    for at in (0..items.len()).filter(|at| open[*at]) {
                        let known = still(std::mem::take(&mut last[at]), undecided(&status, reason));
                        told(Ended::of(items[at].line, known));
                    }
                    return Err(status);
                }
            };
            if !open.contains(&true) {
                return Ok(());
            }
            let waits = Instant::now() + wait <= deadline
                && self.stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some();
            if !waits {
                for at in (0..items.len()).filter(|at| open[*at]) {
                    told(Ended::of(items[at].line, std::mem::take(&mut last[at])));
                }
                return Ok(());
            }
        }
    }

    async fn call(
        &mut self,
        request_id: &str,
        items: &[Item],
        sent: &[usize],
    ) -> Result<Vec<PublicationOutcome>, Status> {
        let mut request = tonic::Request::new(PublishObservationsRequest {
            organisation: self.organisation.clone(),
            request_id: request_id.into(),
            observations: sent.iter().map(|at| items[*at].observation.clone()).collect(),
        });
        request.set_timeout(CALL_TIMEOUT);
        let answer = self.client.publish_observations(request).await?.into_inner();
        if answer.observations.len() == sent.len() {
            Ok(answer.observations)
        } else {
            Err(Status::internal("the answer has another length than the request"))
        }
    }
}
