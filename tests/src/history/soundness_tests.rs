//! Whatever a right service does, the checker finds nothing wrong with it.

use proptest::prelude::*;

use super::{
    Event, History, check,
    model::{Fate, Item, KINDS, Model, POLLS, Step},
};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Told),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::NotKept),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    (0..KINDS.len(), proptest::option::of(0..6_u8), 0..3_u8).prop_map(|(kind, chkpt, key)| Item {
        kind,
        chkpt,
        key,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let items = proptest::collection::vec(item(), 1..6);
    let publish = (0..2_usize, proptest::option::of(0..3_u8), items, fate()).prop_map(
        |(organisation, request, items, fate)| Step::Publish { organisation, request, items, fate },
    );
    let picks = proptest::collection::vec(0..200_usize, 1..6);
    prop_oneof![
        6 => publish,
        3 => (0..100_usize, fate()).prop_map(|(pick, fate)| Step::Resend { pick, fate }),
        2 => (0..2_usize, any::<bool>(), proptest::option::of(0..POLLS as u8))
            .prop_map(|(organisation, all, poll)| Step::List { organisation, all, poll }),
        2 => (0..2_usize, 0..200_usize, any::<bool>())
            .prop_map(|(organisation, pick, download)| Step::Look { organisation, pick, download }),
        3 => (0..2_usize, picks, fate())
            .prop_map(|(organisation, picks, fate)| Step::Acknowledge { organisation, picks, fate }),
    ]
}

/// The same history as callers alone know it.
fn from_outside(history: &History) -> History {
    let mut events = history.events.clone();
    events.retain(|event| !matches!(event, Event::Gate(_)));
    for event in &mut events {
        if let Event::Rules(rules) = event {
            rules.counter = None;
        }
    }
    History { events }
}

fn finds_nothing(history: &History) -> Result<(), TestCaseError> {
    let found = check(history);
    let explained: Vec<_> = found.iter().map(|violation| violation.explain(history)).collect();
    prop_assert!(found.is_empty(), "{}", explained.join("\n"));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn right_histories_pass(steps in proptest::collection::vec((step(), 0..900_i64, 0..400_i64), 1..60)) {
        let history = Model::run(&steps);
        finds_nothing(&history)?;
        finds_nothing(&from_outside(&history))?;
    }

    #[test]
    fn a_history_is_read_as_it_was_written(
        steps in proptest::collection::vec((step(), 0..900_i64, 0..400_i64), 1..20)
    ) {
        let history = Model::run(&steps);
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        prop_assert_eq!(History::read(&written[..]).unwrap(), history);
    }
}
