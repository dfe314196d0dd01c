//! Against hand-made cases, and against a small model.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { jobs_max: 20, bytes_max: 1000, batch_items_max: 100, batch_bytes_max: 400 };

fn named(name: usize) -> OrganisationId {
    format!("org-{name}").parse().unwrap()
}

/// A job that may overtake all others.
fn push<T>(queue: &mut Lines<T>, name: usize, job: T, size: Size) -> Result<(), Full> {
    queue.push(&named(name), job, size, vec![])
}

fn items(items: usize) -> Size {
    Size { items, bytes: items }
}

#[test]
fn one_that_floods_leaves_room_and_others_are_in_the_next_batch() {
    let mut queue = Lines::new(BOUNDS);
    let mut taken = 0;
    while push(&mut queue, 0, 0, items(40)).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, 10, "half of the jobs");
    push(&mut queue, 1, 1, items(1)).unwrap();
    let batch = queue.take_batch();
    assert_eq!((batch.jobs, batch.size), (vec![1, 0, 0], items(81)));
}

#[test]
fn a_large_job_gets_its_turn_and_small_ones_theirs_before_it() {
    let mut queue = Lines::new(BOUNDS);
    push(&mut queue, 0, "large", items(100)).unwrap();
    push(&mut queue, 1, "small", items(10)).unwrap();
    push(&mut queue, 1, "small", items(10)).unwrap();
    assert_eq!(queue.take_batch().jobs, ["small", "small"]);
    assert_eq!(queue.take_batch().jobs, ["large"]);
    assert_eq!(queue.take_batch().jobs.len(), 0);
}

/// An organisation is turned away, alone with what waits.
fn alone(of: Of) -> Full {
    Full { of, is_its_own_doing: false }
}

#[test]
fn who_is_turned_away_by_its_own_doing_is_told_apart() {
    let bytes = |bytes| Size { items: 1, bytes };
    let turned_away = |waiting: &[usize]| {
        let mut queue = Lines::new(BOUNDS);
        for (name, has) in waiting.iter().enumerate() {
            push(&mut queue, name, 0, bytes(*has)).unwrap();
        }
        push(&mut queue, 0, 0, bytes(900)).unwrap_err().is_its_own_doing
    };
    assert!(turned_away(&[400, 398, 1]));
    assert!(!turned_away(&[400, 399, 1]), "others have as much");
    assert!(!turned_away(&[400]), "too much comes of all there are");
}

#[test]
fn bounds_hold_on_both_sides() {
    let mut queue = Lines::new(BOUNDS);
    let bytes = |bytes| Size { items: 1, bytes };
    assert_eq!(push(&mut queue, 0, 0, bytes(5000)), Ok(()), "a first one of any size");
    assert_eq!(push(&mut queue, 0, 0, bytes(1)), Err(alone(Of::Bytes)));
    assert_eq!(push(&mut queue, 1, 0, bytes(1)), Ok(()), "a newcomer always");
    let mut queue = Lines::new(BOUNDS);
    assert_eq!(push(&mut queue, 0, 0, bytes(400)), Ok(()));
    assert_eq!(push(&mut queue, 0, 0, bytes(201)), Err(alone(Of::Bytes)));
    assert_eq!(push(&mut queue, 0, 0, bytes(200)), Ok(()));
    let mut queue = Lines::new(BOUNDS);
    for _ in 0..10 {
        assert_eq!(push(&mut queue, 0, 0, bytes(0)), Ok(()));
    }
    assert_eq!(push(&mut queue, 0, 0, bytes(0)), Err(alone(Of::Jobs)));
    assert_eq!(queue.waiting(), 10);
}

#[test]
fn who_has_to_wait_is_next_then_and_holds_nobody_else_up() {
    let mut queue = Lines::new(BOUNDS);
    queue.push(&named(0), "a", items(1), vec![1, 2]).unwrap();
    let first = queue.take_batch();
    assert_eq!(first.jobs, ["a"]);
    queue.push(&named(0), "b", items(60), vec![2, 3]).unwrap();
    queue.push(&named(0), "c", items(1), vec![3]).unwrap();
    queue.push(&named(1), "d", items(60), vec![4]).unwrap();
    let second = queue.take_batch();
    assert_eq!(second.jobs, ["d"], "c would overtake b");
    queue.push(&named(0), "e", items(1), vec![5]).unwrap();
    assert_eq!((queue.waiting(), queue.ready()), (3, 0));
    assert!(queue.take_batch().jobs.is_empty());
    queue.push(&named(1), "f", items(60), vec![6]).unwrap();
    assert_eq!(queue.ready(), 1);
    queue.give_back(&second.keys);
    assert_eq!(queue.ready(), 1, "nobody waits for it");
    queue.give_back(&first.keys);
    assert_eq!(queue.ready(), 4);
    assert_eq!(queue.take_batch().jobs, ["b"], "f came later");
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, usize, Keys),
    Take,
    GiveBack(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop::collection::vec(0..3_u64, 1..3);
    let step = prop_oneof![
        3 => (0..4_usize, 1..120_usize, keys).prop_map(|(name, items, keys)| Step::Push(name, items, keys)),
        1 => Just(Step::Take),
        1 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 1..200)
}

/// The obvious: what waits of each organisation, and the keys of what is out.
#[derive(Default)]
struct Model {
    lines: HashMap<usize, VecDeque<(usize, usize, Keys)>>,
    out: Vec<Keys>,
}

impl Model {
    fn may_go(&self, keys: &Keys) -> bool {
        self.out.iter().flatten().all(|key| !keys.contains(key))
    }

    /// Takes a batch and compares it with what may go.
    fn take(&mut self, queue: &mut Lines<(usize, usize)>) -> Result<(), TestCaseError> {
        let goes = |line: &VecDeque<(usize, usize, Keys)>| {
            line.front().is_some_and(|(_, _, keys)| self.may_go(keys))
        };
        let some_go = self.lines.values().any(goes);
        prop_assert!(queue.ready() > 0 || !some_go);
        let batch = queue.take_batch();
        prop_assert_eq!(!batch.jobs.is_empty(), some_go);
        let (mut total, mut keys_of_all) = (0, Keys::new());
        for (name, number) in &batch.jobs {
            let first = self.lines.get_mut(name).and_then(VecDeque::pop_front);
            let (expected, count, keys) = first.expect("a job that waits");
            prop_assert_eq!(*number, expected);
            prop_assert!(self.may_go(&keys), "overtakes nothing that is out");
            total += count;
            keys_of_all.extend(keys);
        }
        prop_assert_eq!(batch.size, items(total));
        prop_assert!(total <= BOUNDS.batch_items_max || batch.jobs.len() == 1);
        prop_assert_eq!(&batch.keys, &keys_of_all);
        self.out.push(batch.keys);
        Ok(())
    }
}

proptest! {
    /// Every job taken comes out once, each organisation's in order, none beside one
    /// that has a key of its; batches keep their bounds.
    #[test]
    fn all_come_out_in_order(steps in steps()) {
        let (mut queue, mut model) = (Lines::new(BOUNDS), Model::default());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(name, count, keys) => {
                    // Of one organisation each, as those of definitions are.
                    let keys: Keys = keys.into_iter().map(|key| key * 4 + name as u64).collect();
                    if queue.push(&named(name), (name, number), items(count), keys.clone()).is_ok() {
                        model.lines.entry(name).or_default().push_back((number, count, keys));
                    }
                }
                Step::Take => model.take(&mut queue)?,
                Step::GiveBack(which) if !model.out.is_empty() => {
                    let keys = model.out.swap_remove(which.index(model.out.len()));
                    queue.give_back(&keys);
                }
                Step::GiveBack(_) => {}
            }
        }
        while model.lines.values().any(|line| !line.is_empty()) {
            model.out.drain(..).for_each(|keys| queue.give_back(&keys));
            model.take(&mut queue)?;
        }
        model.out.drain(..).for_each(|keys| queue.give_back(&keys));
        prop_assert_eq!((queue.waiting(), queue.ready(), queue.bytes), (0, 0, 0));
        prop_assert!(queue.lines.is_empty() && queue.turns.is_empty() && queue.out.is_empty());
    }
}
