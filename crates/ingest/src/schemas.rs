//! Compiled schemas: those used lately stay in memory, up to a bound, whoever has how
//! many definitions. The others are compiled again when they are needed. That a schema
//! can't be used is remembered, too.

use std::{convert::Infallible, sync::Arc};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use crate::schema::Schema;

/// Bytes of all compiled schemas together, about. The largest takes a third of them.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// As many of a common size are expected.
const USUALLY: usize = 1000;

/// Compiled schemas by the etag of their definition.
#[derive(Clone, Debug)]
pub struct Schemas(Arc<Cache<String, Compiled, Bytes>>);

type Compiled = Result<Arc<Schema>, String>;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<String, Compiled> for Bytes {
    fn weight(&self, etag: &String, compiled: &Compiled) -> u64 {
        let bytes = compiled.as_ref().map_or_else(|fault| fault.len() as u64, |schema| schema.bytes());
        etag.len() as u64 + bytes
    }
}

impl Schemas {
    /// Room for so many bytes.
    fn with_room(bytes_max: u64) -> Self {
        // One shard: the bound is that of all.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(USUALLY)
            .weight_capacity(bytes_max)
            .build()
            .expect("all that has to be given is given");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(Arc::new(Cache::with_options(options, Bytes, hasher, lifecycle)))
    }

    /// The schema of a definition's version, by its etag and its text; compiled if it
    /// is not at hand.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn of(&self, etag: &str, text: &str) -> Compiled {
        let compile = || Ok::<_, Infallible>(Schema::compile(text).map(Arc::new));
        let Ok(compiled) = self.0.get_or_insert_with(etag, compile);
        compiled
    }

    /// What a content of so many bytes may take under a schema that is at hand, by the
    /// etag of its definition; see [`Schema::work`].
    pub fn work_at_hand(&self, etag: &str, bytes: usize) -> Option<u64> {
        self.0.get(etag).map(|compiled| compiled.map_or(0, |schema| schema.work(bytes)))
    }
}

impl Default for Schemas {
    fn default() -> Self {
        Self::with_room(BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(n: usize) -> String {
        format!(r#"{{"const":{n}}}"#)
    }

    #[test]
    fn what_is_used_is_at_hand_and_there_is_a_bound() {
        let schemas = Schemas::with_room(100_000);
        let of = |n: usize| schemas.of(&n.to_string(), &text(n)).unwrap();
        let (often, bytes) = (of(0), of(0).bytes());
        for n in 1..10_000 {
            assert!(Arc::ptr_eq(&often, &of(0)), "it is at hand");
            assert!(of(n).bytes() > 0);
        }
        let most = usize::try_from(100_000 / bytes).unwrap();
        assert!((most / 2..=most).contains(&schemas.0.len()), "{} of {most}", schemas.0.len());
        assert!(schemas.0.weight() <= 100_000);
        assert!(schemas.of("bad", "{").is_err());
        assert_eq!((schemas.work_at_hand("bad", 10), schemas.work_at_hand("absent", 10)), (Some(0), None));
        assert!(schemas.work_at_hand("0", 10) > Some(0));
    }

    #[test]
    fn one_that_has_no_room_works_all_the_same() {
        let schemas = Schemas::with_room(10);
        assert!(schemas.of("a", &text(1)).is_ok());
        assert_eq!(schemas.0.len(), 0);
        assert_eq!(schemas.work_at_hand("a", 10), None);
    }
}
