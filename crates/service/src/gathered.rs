//! Fewer and larger writes.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Runs a connection's task, which goes on only after what was ready to run before: a
/// commit answers many calls at once, and each wakes the connection that carries it. So
/// their answers leave in one write, and not in one for each, which costs a system call
/// and wakes the other side. (grpc-go's writer gives way in the same manner.)
pub async fn gathered<F: Future>(connection: F) -> F::Output {
    let mut connection = pin!(connection);
    let mut gave_way = false;
    poll_fn(|context| {
        gave_way = !gave_way;
        if gave_way {
            // A task that wakes itself comes last.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        connection.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// How many answers leave in each write of a connection, of eight that are ready at the
    /// same moment, on one thread.
    fn writes() -> Vec<usize> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let (idle, is_idle) = oneshot::channel();
        let connection = runtime.spawn(gathered(async move {
            let (mut writes, mut answers) = (Vec::new(), Vec::new());
            idle.send(()).unwrap();
            loop {
                match answered.recv_many(&mut answers, 100).await {
                    0 => return writes,
                    answers => writes.push(answers),
                }
            }
        }));
        let calls = async move {
            for call in 0..8 {
                let answers = answers.clone();
                tokio::spawn(async move { answers.send(call).unwrap() });
            }
        };
        runtime.block_on(async {
            is_idle.await.unwrap();
            runtime.spawn(calls).await.unwrap();
            connection.await.unwrap()
        })
    }

    #[test]
    fn answers_that_are_ready_leave_together() {
        assert_eq!(writes(), [8]);
    }
}
