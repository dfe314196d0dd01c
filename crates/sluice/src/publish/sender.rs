//! Sends one batch until every observation has its final outcome, or until its
//! time is over. Resending is safe: the request id stays the same.

use std::time::{Duration, Instant};

use sluice_proto::ingest::v1::{
    Outcome, PublicationOutcome, PublishObservationsRequest, ingest_service_client::IngestServiceClient,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    lines::{Item, resend},
    summary::Ended,
};
use crate::{connection::Authorised, failure::Failure, text::proto_seconds};

/// The first wait after a call that failed; it doubles up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A call that takes longer is given up and sent again.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What all batches have in common.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) client: IngestServiceClient<Authorised>,
    pub(super) organisation: String,
    /// How long a batch is tried before its open observations are given up.
    pub(super) retry_for: Duration,
}

impl Sender {
    /// Sends a batch to its end, and tells how each line ended, as soon as it
    /// did.
    pub(super) async fn send(&mut self, items: &[Item], mut told: impl FnMut(Ended)) -> Result<(), Failure> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let deadline = Instant::now() + self.retry_for;
        let mut open = vec![true; items.len()];
        let mut last = vec![PublicationOutcome::default(); items.len()];
        let mut backoff = BACKOFF_FIRST;
        loop {
            let sent = resend(items, &open);
            let wait = match self.call(&request_id, items, &sent).await {
                Ok(outcomes) => {
                    backoff = BACKOFF_FIRST;
                    let mut wait = Duration::ZERO;
                    for (at, outcome) in sent.into_iter().zip(outcomes) {
                        if !open[at] {
                            continue;
                        }
                        if outcome.outcome() == Outcome::Retry {
                            let delay = proto_seconds(outcome.delay.as_ref()).unwrap_or(1);
                            wait = wait.max(Duration::from_secs(delay));
                            last[at] = outcome;
                        } else {
                            open[at] = false;
                            told(ended(items[at].line, outcome));
                        }
                    }
                    wait
                }
                Err(status) if may_pass(&status) => {
                    let advised = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
                    let wait = advised.unwrap_or_default().max(jittered(backoff));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    last.fill(undecided(&status));
                    wait
                }
                Err(status) => {
                    return Err(Failure::unusable(format!("{:?}: {}", status.code(), status.message())));
                }
            };
            if !open.contains(&true) {
                return Ok(());
            }
            if Instant::now() + wait > deadline {
                for at in (0..items.len()).filter(|at| open[*at]) {
                    told(ended(items[at].line, std::mem::take(&mut last[at])));
                }
                return Ok(());
            }
            tokio::time::sleep(wait).await;
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

/// Whether a call that failed so may succeed later. Resending is always safe,
/// so what a broken connection looks like counts too.
fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Cancelled
        | Code::Unknown => true,
        Code::Internal => status.message().contains("h2 protocol error"),
        _ => false,
    }
}

fn undecided(status: &Status) -> PublicationOutcome {
    PublicationOutcome {
        outcome: Outcome::Retry.into(),
        // The call may have been decided and only its answer lost.
        reason: "OUTCOME_UNKNOWN".into(),
        details: format!("{:?}: {}", status.code(), status.message()),
        ..PublicationOutcome::default()
    }
}

/// Half to all of a wait, so that many callers don't come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

fn ended(line: u64, outcome: PublicationOutcome) -> Ended {
    Ended {
        line,
        outcome: outcome.outcome(),
        original_outcome: outcome.original_outcome(),
        reason: outcome.reason,
        ingest_id: outcome.ingest_id,
        chkpt: outcome.chkpt,
        details: outcome.details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_own_faults_are_final_and_the_services_are_not() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Unknown] {
            assert!(may_pass(&Status::new(code, "")), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Internal] {
            assert!(!may_pass(&Status::new(code, "")), "{code:?}");
        }
    }

    #[test]
    fn a_wait_is_never_longer_than_said() {
        for _ in 0..100 {
            let wait = jittered(BACKOFF_MAX);
            assert!(wait <= BACKOFF_MAX && wait >= BACKOFF_MAX / 2);
        }
    }
}
