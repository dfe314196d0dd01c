use super::*;

mod peaks;
mod recursion;
mod references;

fn compile(text: &str) -> Result<(), String> {
    Schema::compile(text).map(drop)
}

fn check(schema: &str, content: &str) -> Result<(), Broken> {
    let schema = Schema::compile(schema).unwrap();
    schema.check(&json::parse(content.as_bytes()).unwrap())
}

#[test]
fn patterns_are_bounded_in_number_and_size() {
    let each = |count: usize, pattern: &str| {
        let properties: Vec<String> =
            (0..count).map(|n| format!(r#""p{n}":{{"pattern":"{pattern}"}}"#)).collect();
        format!(r#"{{"properties":{{{}}}}}"#, properties.join(","))
    };
    assert!(compile(&each(512, "^a+$")).is_ok());
    assert_eq!(compile(&each(513, "^a+$")), Err("has more than 512 patterns".into()));
    // A letter is one of 140,000: five of them in a row take more than 16 KiB.
    let (medium, large) = (r"\\p{L}{5}", r"\\p{L}{20}");
    for (most, pattern) in [(32, medium), (8, large)] {
        assert_eq!(compile(&each(most, pattern)).err(), None);
        let refused = compile(&each(most + 1, pattern)).unwrap_err();
        assert!(refused.contains("bytes compiled each"), "{refused}");
    }
    assert!(compile(&each(1, r"\\p{L}{40}")).is_err());
    let names: Vec<String> = (0..513).map(|n| format!(r#""^{n}":{{}}"#)).collect();
    let by_name = format!(r#"{{"patternProperties":{{{}}}}}"#, names.join(","));
    assert_eq!(compile(&by_name), Err("has more than 512 patterns".into()));
}

/// `a`, so many of `a` and `b`, and something else: no automaton of it fits anywhere.
fn slow(states: usize) -> String {
    format!(r#"{{"pattern":"a[ab]{{{}}}[^ab]"}}"#, states - 12)
}

#[test]
fn a_pattern_is_put_with_up_to_a_thousand_states_or_if_its_automaton_fits() {
    assert_eq!(Schema::accept(&slow(1000)), Ok(()));
    let refused = Schema::accept(&slow(1001)).unwrap_err();
    assert!(refused.contains("takes too long to match"), "{refused}");
    for usual in [
        r"^.{1,255}$",
        r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]{2,63}$",
        r"^[^\s@]+@[^\s@]+\.[^\s@]+$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$",
        r"^https?://([a-z0-9.-]{1,255})(:\d{1,5})?(/\S*)?$",
    ] {
        let schema = serde_json::json!({"pattern": usual}).to_string();
        assert_eq!(Schema::accept(&schema), Ok(()), "{usual}");
        let schema = Schema::compile(&schema).unwrap();
        assert!(schema.slowest < 100, "{usual} takes as long as others: {}", schema.slowest);
    }
}

/// It was put by a build that let it in.
#[test]
fn a_kept_pattern_that_is_slow_is_served_within_bounds() {
    let schema = slow(12_000);
    assert!(Schema::accept(&schema).is_err());
    let unmatched =
        |broken: &Broken| matches!(broken, Broken::Rule(rule, _) if rule.contains("does not match"));
    assert!(check(&schema, r#""xaab""#).is_err_and(|broken| unmatched(&broken)));
    assert_eq!(check(&schema, &format!("\"{}\"", "ab".repeat(10_000))), Err(Broken::TooMuchWork));
}

#[test]
fn strings_under_a_slow_pattern_are_bounded_on_both_sides() {
    let slow = Schema::compile(&slow(1000)).unwrap();
    // A visit, a keyword, and a match; and each 16 bytes, the last ones as if full.
    let pieces = usize::try_from((WORK_MAX - 140) / slow.slowest).unwrap();
    let check =
        |bytes: usize| slow.check(&json::parse(format!("\"{}\"", "x".repeat(bytes)).as_bytes()).unwrap());
    assert!(matches!(check(16 * pieces - 1), Err(Broken::Rule(..))));
    assert_eq!(check(16 * pieces), Err(Broken::TooMuchWork));
    // A megabyte that the pattern is not for is nothing.
    let elsewhere = r#"{"properties":{"a":{"pattern":"a[ab]{900}[^ab]"}}}"#;
    let content = format!(r#"{{"b":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(self::check(elsewhere, &content), Ok(()));
    assert_eq!(self::check(elsewhere, &content.replace(r#""b""#, r#""a""#)), Err(Broken::TooMuchWork));
}

#[test]
fn values_that_a_schema_names_are_work_unless_they_are_told_apart_at_once() {
    let named = |value: &dyn Fn(usize) -> String| {
        let values: Vec<String> = (0..5000).map(value).collect();
        format!(r#"{{"items":{{"enum":[{}]}}}}"#, values.join(","))
    };
    let content = |item: &str, items: usize| format!("[{}]", vec![item; items].join(","));
    // Each item takes two visits with a keyword, and 5,000 comparisons.
    let most = usize::try_from((WORK_MAX - 40) / (40 + 20 * 5000)).unwrap();
    let fractions = named(&|n| format!("{n}.5"));
    assert_eq!(check(&fractions, &content("0.5", most)), Ok(()));
    assert_eq!(check(&fractions, &content("0.5", most + 1)), Err(Broken::TooMuchWork));
    let integers = named(&|n| n.to_string());
    assert_eq!(check(&integers, &content("7", 20 * most)), Ok(()));
    assert_eq!(check(&integers, &content("7.0", 20 * most)), Err(Broken::TooMuchWork));
    assert_eq!(check(&named(&|n| format!("\"{n}\"")), &content("\"7\"", 20 * most)), Ok(()));
    let objects = r#"{"items":{"const":{"a":[1,2,3]}}}"#;
    assert_eq!(check(objects, &content(r#"{"a":[1,2,3]}"#, 1000)), Ok(()));
}

#[test]
fn what_is_gone_through_again_and_again_is_counted_as_often() {
    for (keyword, rest) in [("allOf", "unevaluatedProperties"), ("anyOf", "unevaluatedProperties")] {
        let nested = |levels: usize| {
            let inner = r#"{"properties":{"a":{"type":"integer"}}}"#.to_owned();
            (0..levels).fold(inner, |inner, _| format!(r#"{{"{rest}":false,"{keyword}":[{inner}]}}"#))
        };
        assert_eq!(check(&nested(6), r#"{"a":1}"#), Ok(()));
        assert_eq!(check(&nested(30), r#"{"a":1}"#), Err(Broken::TooMuchWork));
        assert_eq!(check(&nested(30), "1"), Err(Broken::TooMuchWork));
    }
    let items = |levels: usize| {
        let inner = r#"{"prefixItems":[{"type":"integer"}]}"#.to_owned();
        (0..levels).fold(inner, |inner, _| format!(r#"{{"unevaluatedItems":false,"oneOf":[{inner}]}}"#))
    };
    assert_eq!(check(&items(6), "[1]"), Ok(()));
    assert_eq!(check(&items(30), "[1]"), Err(Broken::TooMuchWork));
}

#[test]
fn where_a_content_fails_is_told_unless_too_much_would_be_gathered_for_it() {
    let strings = vec![r#"{"type":"string"}"#; 50].join(",");
    let (each, all) = (
        format!(r#"{{"items":{{"anyOf":[{strings}]}}}}"#),
        format!(r#"{{"anyOf":[{{"items":{{"anyOf":[{strings}]}}}}]}}"#),
    );
    let content = |items: usize| format!("[{}]", vec!["1"; items].join(","));
    assert!(matches!(check(&each, &content(10_000)), Err(Broken::Rule(_, place)) if place == "/0"));
    // Of an item: 40, and 40 for each of the 50; around them a visit with a keyword.
    let most = usize::try_from((GATHERED_MAX - 40) / (40 + 50 * 40)).unwrap();
    assert!(matches!(check(&all, &content(most)), Err(Broken::Rule(_, place)) if place.is_empty()));
    assert_eq!(check(&all, &content(most + 1)), Err(Broken::Untold));
    // Each fault says where it is: with a name that takes as much as a fault itself there
    // may be half as many.
    let named = format!(r#"{{"anyOf":[{{"additionalProperties":{{"items":{{"anyOf":[{strings}]}}}}}}]}}"#);
    let below = |name: usize, items: usize| format!(r#"{{"{}":{}}}"#, "n".repeat(name), content(items));
    let fault_bytes = usize::try_from(FAULT_BYTES).unwrap();
    assert!(matches!(check(&named, &below(fault_bytes - 1, most - 1)), Err(Broken::Rule(..))));
    assert_eq!(check(&named, &below(fault_bytes, most - 1)), Err(Broken::Untold));
    assert!(matches!(check(&named, &below(fault_bytes, most / 2 - 1)), Err(Broken::Rule(..))));
}
