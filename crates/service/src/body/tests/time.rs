//! How long a stream waits for room, and how long its caller may take.

use std::time::Duration;

use super::*;
use crate::body::grpc::{PAUSE_MAX, ROOM_WAIT_MAX};

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_room_but_not_for_long() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut stream = call(&budget, STREAM, "application/grpc");
    let account = stream.account.clone().unwrap();
    stream.send_message(100 * KIB).await;
    stream.send_message(100 * KIB).await;
    stream.next().await.unwrap().unwrap();
    let share = account.of_message().unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(ROOM_WAIT_MAX / 2).await;
        drop(share);
    });
    let mut seen = 0;
    while seen < 100 * KIB + 5 {
        seen += stream.next().await.unwrap().unwrap();
    }
    let kept = account.of_message().unwrap();
    stream.send_message(100 * KIB).await;
    let before = tokio::time::Instant::now();
    assert_eq!(reason(&stream.refusal().await), "OVERLOADED");
    assert!(before.elapsed() >= ROOM_WAIT_MAX);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn who_pauses_within_a_message_is_refused_and_an_idle_stream_is_not() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut slow = call(&budget, PUBLISH, "application/grpc");
    slow.send(message(KIB * 20)[..100].to_vec()).await;
    assert_eq!(reason(&slow.refusal().await), "TOO_SLOW");
    let mut endless = call(&budget, PUBLISH, "application/grpc");
    endless.send_message(KIB * 20).await;
    assert_eq!(reason(&endless.refusal().await), "TOO_SLOW", "the end of a single message is awaited, too");
    let mut silent = call(&budget, "/grpc.health.v1.Health/Check", "application/grpc");
    assert_eq!(reason(&silent.refusal().await), "TOO_SLOW", "who needs no token, too");
    let mut idle = call(&budget, STREAM, "application/grpc");
    idle.send_message(KIB * 20).await;
    idle.next().await.unwrap().unwrap();
    let more = tokio::time::timeout(PAUSE_MAX * 10, idle.next()).await;
    assert!(more.is_err(), "still open");
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_so_long_and_no_longer() {
    let budget = Budget::new(BUDGET, Measures::default());
    let bytes = message(20 * KIB);
    let in_five_pieces = async |pause: u64| {
        let mut stream = call(&budget, STREAM, "application/grpc");
        for piece in bytes.chunks(bytes.len().div_ceil(5)) {
            stream.send(piece.to_vec()).await;
            let pause = tokio::time::timeout(Duration::from_secs(pause), stream.refusal());
            if let Ok(refused) = pause.await {
                return Some(reason(&refused));
            }
        }
        None
    };
    assert_eq!(in_five_pieces(14).await, None);
    assert_eq!(in_five_pieces(16).await.as_deref(), Some("TOO_SLOW"));
}

/// As a proxy cuts them that gathers what it passes on.
#[tokio::test(start_paused = true)]
async fn each_message_has_its_own_time_however_they_are_cut() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut stream = call(&budget, STREAM, "application/grpc");
    let bytes = message(20 * KIB).repeat(6);
    for piece in bytes[10 * KIB..].chunks(20 * KIB + 5) {
        let first = if piece.as_ptr() == bytes[10 * KIB..].as_ptr() { &bytes[..10 * KIB] } else { &[] };
        stream.send([first, piece].concat()).await;
        let pause = tokio::time::timeout(PAUSE_MAX / 4 * 3, stream.refusal());
        if let Ok(refused) = pause.await {
            panic!("{refused:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_message_waits_for_room_anew() {
    let budget = Budget::new(BUDGET, Measures::default());
    let mut stream = call(&budget, STREAM, "application/grpc");
    let account = stream.account.clone().unwrap();
    stream.send_message(100 * KIB).await;
    stream.next().await.unwrap().unwrap();
    let first = account.of_message().unwrap();
    stream.send([message(100 * KIB), message(100 * KIB)].concat()).await;
    let freed = tokio::spawn(async move {
        tokio::time::sleep(ROOM_WAIT_MAX / 4).await;
        drop(first);
    });
    let mut seen = 0;
    while seen < 100 * KIB + 5 {
        seen += stream.next().await.unwrap().unwrap();
    }
    freed.await.unwrap();
    let second = account.of_message().unwrap();
    tokio::time::sleep(ROOM_WAIT_MAX).await;
    tokio::spawn(async move {
        tokio::time::sleep(ROOM_WAIT_MAX / 2).await;
        drop(second);
    });
    while seen < 2 * (100 * KIB + 5) {
        seen += stream.next().await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn compressed_messages_that_wait_for_room_take_turns_and_no_time() {
    let (message, bytes) = compressed_observations(100);
    let budget = Budget::new(2 * bytes + message.len(), Measures::default());
    let other = Account::open(budget.clone(), Owner::Nobody);
    other.grow(bytes + bytes / 2).unwrap();
    let mut streams = [compressed_stream(&budget), compressed_stream(&budget)];
    let [first, second] = &mut streams;
    first.send(message.clone()).await;
    second.send(message).await;
    {
        let mut both = std::pin::pin!(async { tokio::join!(first.next(), second.next()) });
        // The clock goes on only once nobody has anything to do.
        assert!(tokio::time::timeout(ROOM_WAIT_MAX / 2, both.as_mut()).await.is_err(), "no room yet");
        drop(other);
        let went_on = tokio::time::timeout(ROOM_WAIT_MAX / 4, both).await.expect("room for both");
        assert!(matches!(went_on, (Some(Ok(5)), Some(Ok(5)))), "{went_on:?}");
    }
    assert_eq!(budget.used(), 2 * bytes);
}
