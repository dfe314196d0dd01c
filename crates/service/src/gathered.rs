//! Whoever gives way to what is ready to run finds more to do in one go: fewer and larger
//! writes, and fewer and larger commits.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, ready},
};

/// Runs a connection's task, which goes on only after what was ready to run before: a
/// commit answers many calls at once, and each wakes the connection that carries it. So
/// their answers leave in one write, and not in one for each, which costs a system call
/// and wakes the other side. (grpc-go's writer gives way in the same manner.)
pub async fn gathered<F: Future>(connection: F) -> F::Output {
    let (mut connection, mut gave_way) = (pin!(connection), false);
    poll_fn(|context| {
        ready!(give_way(&mut gave_way, context));
        connection.as_mut().poll(context)
    })
    .await
}

/// Ends when what was ready to run before has run.
pub async fn after_the_ready() {
    let mut gave_way = false;
    poll_fn(|context| give_way(&mut gave_way, context)).await;
}

/// Pending at every other poll. A task that wakes itself comes last. (`yield_now` would wait
/// for the next look at sockets and timers, too.)
fn give_way(gave_way: &mut bool, context: &Context<'_>) -> Poll<()> {
    *gave_way = !*gave_way;
    if *gave_way {
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::{
        mpsc::{UnboundedReceiver, unbounded_channel},
        oneshot,
    };

    use super::*;

    /// What becomes of a task that is idle, and then is called by eight that are ready at the
    /// same moment, on one thread. The task says when it is idle.
    fn called_by_eight<F: Future<Output: Send> + Send + 'static>(
        task: impl FnOnce(oneshot::Sender<()>, UnboundedReceiver<u8>) -> F,
    ) -> F::Output {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (called, calls) = unbounded_channel();
        let (idle, is_idle) = oneshot::channel();
        let called_task = runtime.spawn(task(idle, calls));
        let calling = async move {
            for call in 0..8 {
                let called = called.clone();
                tokio::spawn(async move { called.send(call).unwrap() });
            }
        };
        runtime.block_on(async {
            is_idle.await.unwrap();
            runtime.spawn(calling).await.unwrap();
            called_task.await.unwrap()
        })
    }

    #[test]
    fn answers_that_are_ready_leave_together() {
        let connection = |idle: oneshot::Sender<()>, mut answered: UnboundedReceiver<u8>| {
            gathered(async move {
                let (mut writes, mut answers) = (Vec::new(), Vec::new());
                idle.send(()).unwrap();
                loop {
                    match answered.recv_many(&mut answers, 100).await {
                        0 => return writes,
                        answers => writes.push(answers),
                    }
                }
            })
        };
        assert_eq!(called_by_eight(connection), [8]);
    }

    #[test]
    fn whoever_is_woken_comes_after_what_was_ready() {
        let lane = async |idle: oneshot::Sender<()>, mut calls: UnboundedReceiver<u8>| {
            idle.send(()).unwrap();
            calls.recv().await.unwrap();
            after_the_ready().await;
            1 + calls.len()
        };
        assert_eq!(called_by_eight(lane), 8);
    }
}
