//! Whoever gives way to what is ready to run finds more to do in one go: fewer and larger
//! writes, and fewer and larger commits.

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

/// Ends when what was ready to run before has run.
pub async fn after_the_ready() {
    let mut gave_way = false;
    poll_fn(|context| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        // As above. (`yield_now` would wait for the next look at sockets and timers, too.)
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
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

    /// The first of eight tasks that are ready at the same moment wakes one that waits.
    #[test]
    fn whoever_is_woken_comes_after_what_was_ready() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (called, mut calls) = mpsc::unbounded_channel();
        let (idle, is_idle) = oneshot::channel();
        let woken = runtime.spawn(async move {
            idle.send(()).unwrap();
            calls.recv().await.unwrap();
            after_the_ready().await;
            1 + calls.len()
        });
        let calling = async move {
            for call in 0..8 {
                let called = called.clone();
                tokio::spawn(async move { called.send(call).unwrap() });
            }
        };
        runtime.block_on(async {
            is_idle.await.unwrap();
            runtime.spawn(calling).await.unwrap();
            assert_eq!(woken.await.unwrap(), 8);
        });
    }
}
