//! Many publishers, marks and keys that meet, two replicas, a store that fails
//! now and then, callers who leave: afterwards every file that was begun is a
//! result or discarded, and the rules held.

use std::{collections::BTreeMap, time::Duration};

use sluice_proto::ingest::v1::{Definition, Outcome, PublicationOutcome};
use sluice_service::Kind;
use sluice_tests::{Tenant, eventually};
use tokio::task::JoinSet;

use crate::{files::support::*, ingest::definitions::reason, support::*};

const PUBLISHERS: usize = 6;
const FILES: usize = 25;
const SLOTS: u32 = 12;

/// What was sent, and what was told, if anything was.
struct Sent {
    definition: &'static str,
    chkpt: String,
    bytes: Vec<u8>,
    told: Option<PublicationOutcome>,
}

/// A file that meets many others.
fn sent(n: usize) -> Sent {
    let definition = ["plain", "once", "few"][n % 3];
    let chkpt = if n.is_multiple_of(5) { String::new() } else { format!("{}", (n * 7) % 30) };
    Sent { definition, chkpt, bytes: format!("{definition} {}", n % 11).into_bytes(), told: None }
}

async fn publish(clients: sluice::connection::Clients, publisher: usize) -> Vec<Sent> {
    let mut all = Vec::new();
    for round in 0..FILES {
        let n = publisher * 13 + round;
        let mut sent = sent(n);
        let sending = Sending::begin(&clients, marked_file(sent.definition, &sent.chkpt));
        // Refused or stuck ones take no more.
        if n % 9 == 4 {
            sending.break_off().await;
        } else {
            let half = sent.bytes.len() / 2;
            sending.try_chunk(sent.bytes[..half].to_vec()).await;
            tokio::time::sleep(Duration::from_millis((n % 4) as u64)).await;
            sending.try_chunk(sent.bytes[half..].to_vec()).await;
            sent.told = sending.end().await.ok().and_then(|said| said.outcome);
        }
        all.push(sent);
    }
    all
}

/// The manners of the store, one after the other, until the publishers are done.
async fn change_manners(intake: &Intake) {
    for manner in [
        Manner::Store,
        Manner::RefuseSealing(Kind::Unavailable, "UNAVAILABLE"),
        Manner::Store,
        Manner::WrongChecksum,
        Manner::Refuse(Kind::Internal, "INTERNAL"),
        Manner::HangSealed,
    ]
    .iter()
    .cycle()
    {
        intake.goes(manner.clone());
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// What is decided about a file. On a busy machine it may make no progress for a second: then
/// nothing of it is kept, and it is sent again.
async fn decided(clients: &sluice::connection::Clients, bytes: &[u8]) -> Outcome {
    eventually("a decision", || async {
        let messages = [metadata_message(file("few")), chunk_message(bytes.to_vec())];
        match send(clients, futures_util::stream::iter(messages)).await {
            Ok(said) => said.outcome.filter(|said| said.reason != "NOT_KEPT").map(|said| said.outcome()),
            Err(status) => {
                assert_eq!(reason(&status).1, "FILE_IDLE", "{status:?}");
                None
            }
        }
    })
    .await
}

#[tokio::test]
async fn whatever_happens_each_file_is_a_result_or_discarded_and_the_rules_hold() {
    let builder = builder().ingest_replicas(2).flag(sluice_tests::Service::Ingest, "file-idle-seconds", "1");
    let (intake, pair, acme) = start_with(builder).await;
    put(&acme, Definition { unique_by: vec![String::new()], ..unique("once") }).await;
    put(&acme, throttled("few", SLOTS)).await;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(pair.clients_of(Tenant::Acme, publisher % 2, 0), publisher));
    }
    let all: Vec<Sent> = tokio::select! {
        all = publishers.join_all() => all.into_iter().flatten().collect(),
        () = change_manners(&intake) => unreachable!("it goes on for ever"),
    };
    let successes: Vec<_> = all
        .iter()
        .filter_map(|sent| Some((sent, sent.told.as_ref()?)))
        .filter(|(_, told)| told.outcome() == Outcome::Success)
        .collect();
    assert!(successes.len() > 10, "{} of {}", successes.len(), all.len());
    let mut marks = BTreeMap::<_, usize>::new();
    let mut contents = BTreeMap::<_, usize>::new();
    for (sent, _) in &successes {
        if !sent.chkpt.is_empty() {
            *marks.entry((sent.definition, &sent.chkpt)).or_default() += 1;
        }
        if sent.definition == "once" {
            *contents.entry(&sent.bytes).or_default() += 1;
        }
    }
    assert!(marks.values().chain(contents.values()).all(|count| *count == 1), "{marks:?} {contents:?}");
    // Callers who left may have had one accepted that nobody was told of.
    intake.at_rest(&pair).await;
    intake.told(|told| {
        let results: Contents = told.results.keys().map(|id| (id.clone(), told.sealed[id].clone())).collect();
        for (sent, said) in &successes {
            assert_eq!(results[&said.ingest_id], sent.bytes);
        }
        let of_few = told.results.values().filter(|result| result.definition == "few").count();
        assert!(of_few <= SLOTS as usize, "{of_few} slots were taken");
        for upload in &told.begun {
            let (kept, gone) = (results.contains_key(&upload.id), told.discarded.contains(&upload.id));
            assert!(kept != gone, "{} was begun: a result {kept}, discarded {gone}", upload.id);
        }
    });
    // No slot was taken by a file that never became one.
    intake.goes(Manner::Store);
    let few = || intake.told(|told| told.results.values().filter(|r| r.definition == "few").count());
    let free = SLOTS as usize - few();
    for n in 0..=free {
        let decided = decided(&acme, format!("more {n}").as_bytes()).await;
        let expected = if n < free { Outcome::Success } else { Outcome::Throttled };
        assert_eq!(decided, expected, "{n} of {free}");
    }
}
