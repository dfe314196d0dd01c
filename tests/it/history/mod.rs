//! Crashes and races, in the manner of Jepsen: publishers and consumers of two
//! organisations work on two replicas of each service, while a nemesis kills,
//! pauses and cuts. Every call and answer goes into a history; in the end the
//! checker (`sluice_tests::history`) proves the invariants of the design from it
//! and from the databases, or shows what breaks them.
//!
//! `SLUICE_HISTORY_SEED` replays what is sent and broken (not the timing),
//! `SLUICE_HISTORY_SECONDS` makes a run a long one, and `SLUICE_HISTORY_FILE` checks a
//! history that was kept once more.

mod batches;
mod consumer;
mod evidence;
mod kept;
mod nemesis;
mod observations;
mod points;
mod progress;
mod publisher;
mod random;
mod recorder;
mod saboteurs;
mod ways;

use std::time::{Duration, Instant};

use sluice_tests::{
    Link, Pair,
    history::{Event, GateRow, History, Kind},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    batches::Batches,
    consumer::Consumer,
    kept::{Evidence, GATHERED, check_again, violations},
    nemesis::Nemesis,
    observations::{ORGANISATIONS, PATHS},
    points::Point,
    progress::{Moment, Progress, Served, until_nothing},
    publisher::Publisher,
    random::Random,
    recorder::Recorder,
    ways::{Ways, token},
};

/// How long the nemesis rages at least.
const SECONDS: u64 = 10;
/// Answers that a service must never give that are printed at most.
const SHOWN_MAX: usize = 5;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Everybody who works, until told to end.
fn work(
    pair: &Pair,
    ways: &Ways,
    (recorder, served): (&Recorder, &Served),
    (seed, random): (u64, &mut Random),
) -> (JoinSet<()>, CancellationToken) {
    let ending = CancellationToken::new();
    let mut all = JoinSet::new();
    for organisation in ORGANISATIONS {
        let clients = ways.clients(token(pair, organisation));
        let mut publisher = |process| Publisher {
            batches: Batches::new(seed, organisation, process),
            random: random.fork(),
            recorder: recorder.clone(),
            served: served.clone(),
            clients: clients.clone(),
            ending: ending.clone(),
        };
        all.spawn(publisher("batch-0").single_calls());
        all.spawn(publisher("batch-1").single_calls());
        all.spawn(publisher("stream").streams());
        all.spawn(publisher("file").files());
        for process in ["consumer-0", "consumer-1"] {
            let consumer = Consumer {
                process: process.into(),
                organisation,
                random: random.fork(),
                recorder: recorder.clone(),
                clients: clients.clone(),
                signing: ways.signing(token(pair, organisation)),
                ending: ending.clone(),
            };
            all.spawn(consumer.consume());
        }
    }
    (all, ending)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_and_no_race_breaks_an_invariant() {
    if let Ok(path) = std::env::var("SLUICE_HISTORY_FILE") {
        return check_again(&path);
    }
    let seed = number("SLUICE_HISTORY_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    let seconds = number("SLUICE_HISTORY_SECONDS").unwrap_or(SECONDS);
    println!("SLUICE_HISTORY_SEED={seed}");
    let mut random = Random::new(seed);
    let mut pair = Pair::builder()
        .own_servers()
        .processes()
        .ingest_replicas(2)
        .results_replicas(2)
        .proxied(Link::IngestDatabase)
        .proxied(Link::ResultsDatabase)
        .proxied(Link::Intake)
        .start()
        .await;
    let ways = Ways::to(&pair).await;
    let recorder = Recorder::new();
    let mut evidence = Evidence { recorder: recorder.clone(), seed, ended_well: false };
    let direct = ORGANISATIONS.map(|organisation| {
        let (ingest, results) = (pair.ingest[0].url(), pair.results[1].url());
        sluice::connection::Clients::new(&ingest, &results, token(&pair, organisation)).unwrap()
    });
    evidence::prepare(&pair, &recorder, &direct).await;

    let served = Served::default();
    let progress = Progress::new(&recorder, &served);
    let (mut all, ending) = work(&pair, &ways, (&recorder, &served), (seed, &mut random));
    let until = Instant::now() + Duration::from_secs(seconds);
    let (nemesis, told) = (random.fork(), recorder.clone());
    let nemesis =
        Nemesis { pair: &mut pair, ways: &ways, random: nemesis, recorder: told, progress: &progress, until };
    let raging = async {
        nemesis.rage().await;
        until_nothing(|| progress.moment().too_few()).await;
    };
    tokio::select! {
        () = raging => {}
        Some(ended) = all.join_next() => panic!("somebody stopped working: {ended:?}"),
    }
    ending.cancel();
    all.join_all().await;
    let worked = progress.moment();
    evidence::ask_again(&recorder, &direct).await;
    evidence::gather(&pair, &recorder, &direct).await;
    recorder.fault(GATHERED);

    let history = recorder.history();
    summarise(&history, &worked);
    let (violations, wrong) = (violations(&history), recorder.wrong());
    assert!(
        violations == 0 && wrong.is_empty(),
        "{violations} violation(s), {} wrong answer(s) {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(SHOWN_MAX)],
    );
    evidence.ended_well = true;
}

/// Says what happened, and fails if it was not what was to happen.
fn summarise(history: &History, worked: &Moment) {
    let (mut windows, mut counters) = (0, 0);
    let mut faults = Vec::new();
    for event in &history.events {
        match event {
            Event::Gate(GateRow { row: Kind::Window { .. }, .. }) => windows += 1,
            Event::Gate(GateRow { row: Kind::Counter { .. }, .. }) => counters += 1,
            Event::Fault { at, did } => {
                println!("{at} {did}");
                faults.push(did.clone());
            }
            _ => {}
        }
    }
    println!("{worked}");
    for point in Point::ALL {
        assert!(faults.contains(&point.made()), "never made: {point:?}");
    }
    // Each acceptance opened a window; and took a slot, of which a window has five at most.
    let [_, once, few, both] = PATHS.map(|path| worked.successes_of(path));
    assert!(windows >= once + both, "{windows} windows of {once} and {both} acceptances");
    assert!(counters * 5 >= few + both, "{counters} counters of {few} and {both} acceptances");
}
