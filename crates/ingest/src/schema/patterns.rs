//! What it takes to match a pattern. An engine of linear time goes over a text once,
//! but by the byte it may take as long as the pattern has states: `a[ab]{500}[^ab]`
//! takes five hundred times as long as `a[ab]*`. It does so unless its automaton fits
//! in the cache that the engine has for it, which is tried out here.

use std::collections::HashSet;

use regex_automata::{
    Anchored,
    hybrid::dfa::{Cache, DFA},
    nfa::thompson::{NFA, WhichCaptures},
    util::start,
};

/// Following a pattern's automaton over 16 bytes, in nanoseconds.
const AUTOMATON: u64 = 32;
/// Following one state of a pattern over 16 bytes, in nanoseconds.
const STATE: u64 = 16 * 25;
/// Bytes of caches, times the classes of bytes, that are looked at for all patterns of
/// a schema, and for one of them.
const TRIED_MAX: usize = 64 << 20;
const TRIED_EACH_MAX: usize = 8 << 20;

/// Compiled patterns have no more than this, whoever compiles them.
const NFA_BYTES_MAX: usize = 4 << 20;

/// What one pattern takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// For 16 bytes of text, in nanoseconds.
    pub(super) text: u64,
    /// Of memory, its caches.
    pub(super) bytes: usize,
}

impl Pattern {
    /// Measures one of so many patterns of a schema, each with a cache of so many bytes.
    /// One that can't be compiled takes nothing: its schema is refused.
    pub(super) fn measure(pattern: &str, patterns: usize, cache_bytes: usize) -> Self {
        let caches = 2 * cache_bytes;
        let Some((forwards, backwards)) = compiled(pattern) else {
            return Self { text: AUTOMATON, bytes: caches };
        };
        let states = forwards.states().len() as u64;
        let tried_max = TRIED_EACH_MAX.min(TRIED_MAX / patterns.max(1));
        let fits = |nfa| automaton_bytes(nfa, cache_bytes, tried_max);
        match fits(forwards).zip(fits(backwards)) {
            Some((forwards, backwards)) => Self { text: AUTOMATON, bytes: forwards + backwards },
            None => Self { text: states * STATE, bytes: caches },
        }
    }

    /// The largest that one may have which is put now: a thousand states, or any
    /// number whose automaton fits.
    pub(super) const TEXT_MAX: u64 = 1000 * STATE;
}

/// A pattern as the engine has it, to be read in either direction.
fn compiled(pattern: &str) -> Option<(NFA, NFA)> {
    let translated = jsonschema_regex::to_rust_regex(pattern).ok()?;
    let read = |backwards| {
        let config = NFA::config()
            .reverse(backwards)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(NFA_BYTES_MAX));
        NFA::compiler().configure(config).build(&translated).ok()
    };
    Some((read(false)?, read(true)?))
}

/// What the whole of a pattern's automaton takes; `None` if that doesn't fit, or takes
/// too long to find out.
fn automaton_bytes(nfa: NFA, cache_bytes: usize, tried_max: usize) -> Option<usize> {
    // The engine leaves it where the text is not ASCII.
    if nfa.look_set_any().contains_word_unicode() {
        return None;
    }
    // What doesn't fit ends it, instead of making room for itself.
    let config = DFA::config().cache_capacity(cache_bytes).minimum_cache_clear_count(Some(0));
    let automaton = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
    let mut cache = automaton.create_cache();
    let bytes: Vec<u8> =
        automaton.byte_classes().representatives(0..=255).filter_map(|unit| unit.as_u8()).collect();
    let (mut seen, mut next) = (HashSet::new(), starts(&automaton, &mut cache)?);
    while let Some(state) = next.pop() {
        if state.is_dead() || state.is_quit() || !seen.insert(state) {
            continue;
        }
        if bytes.len() * cache.memory_usage() > tried_max {
            return None;
        }
        for byte in &bytes {
            next.push(automaton.next_state(&mut cache, state, *byte).ok()?);
        }
        next.push(automaton.next_eoi_state(&mut cache, state).ok()?);
    }
    Some(cache.memory_usage())
}

/// Where a search may begin, whatever is before it.
fn starts(automaton: &DFA, cache: &mut Cache) -> Option<Vec<regex_automata::hybrid::LazyStateID>> {
    let mut starts = Vec::new();
    for anchored in [Anchored::No, Anchored::Yes] {
        for before in [None, Some(b'\n'), Some(b'\r'), Some(b'a'), Some(b' ')] {
            let config = start::Config::new().look_behind(before).anchored(anchored);
            starts.push(automaton.start_state(cache, &config).ok()?);
        }
    }
    Some(starts)
}
