//! The reader against the RFC, against the contract's stricter rules, and
//! against serde_json as a model.

use proptest::prelude::*;

use super::*;

fn hash(text: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    parse(text.as_bytes()).unwrap().root().hash_into(&mut hasher);
    hasher.finalize()
}

fn broken(text: &str) -> (&'static str, String) {
    let error = parse(text.as_bytes()).expect_err(text);
    assert_eq!(error.too_large, error.rule.starts_with("nested"), "{text}");
    let rule = match error.rule {
        Cow::Borrowed(rule) => rule,
        Cow::Owned(rule) => rule.leak(),
    };
    (rule, error.pointer)
}

#[test]
fn spelling_makes_no_difference_to_the_value() {
    for (a, b) in [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("0.1E1", "1"),
        ("-0", "0"),
        ("100", "1e2"),
        (r#"{"a":1,"b":[2,3]}"#, " { \"b\" : [ 2 , 3 ] , \"a\" : 1.0 } "),
        (r#""\u0061\/""#, r#""a/""#),
        (r#""\ud83d\ude00""#, "\"\u{1f600}\""),
    ] {
        assert_eq!(hash(a), hash(b), "{a} and {b}");
    }
}

#[test]
fn different_values_differ() {
    for (a, b) in [
        ("1", "-1"),
        ("1", "10"),
        ("1", r#""1""#),
        ("12345678901234567890123", "12345678901234567890124"),
        ("0.1", "0.10000000000000000001"),
        ("[1,2]", "[2,1]"),
        ("[[1],2]", "[[1,2]]"),
        (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
        ("null", "false"),
        ("[]", "{}"),
    ] {
        assert_ne!(hash(a), hash(b), "{a} and {b}");
    }
}

#[test]
fn what_the_contract_refuses_is_refused_with_its_place() {
    assert_eq!(broken(r#"{"a":{"b/c":1,"b/c":2}}"#), ("a key stands twice", "/a/b~1c".into()));
    assert_eq!(broken(r#"{"a":1,"\u0061":2}"#), ("a key stands twice", "/a".into()));
    assert_eq!(broken(r#"{"a":["x","\u0000"]}"#), ("U+0000 stands in a string", "/a/1".into()));
    assert_eq!(broken(r#"["\ud800"]"#), ("a lone surrogate stands in a string", "/0".into()));
    assert_eq!(broken(r#"["\ude00"]"#), ("a lone surrogate stands in a string", "/0".into()));
    assert_eq!(broken(r#"["\ud800\u0041"]"#), ("a lone surrogate stands in a string", "/0".into()));
    assert_eq!(broken("[1e400]"), ("a number is out of range", "/0".into()));
    assert_eq!(broken("[1e-99999999999]"), ("a number is out of range", "/0".into()));
    assert_eq!(broken(&"9".repeat(400)).0, "a number is out of range");
    assert_eq!(broken("\"a\u{1}\"").0, "a control character stands in a string");
    assert_eq!(parse(b"\"\xff\"").unwrap_err().rule, "not UTF-8");
}

#[test]
fn keys_and_strings_are_bounded_on_both_sides() {
    let bounds = Bounds { depth_max: 2, keys_max: 3, string_bytes_max: 4 };
    let rule = |text: &str| {
        let error = parse_within(text.as_bytes(), bounds).err()?;
        assert!(error.too_large, "{text}");
        Some(error.rule.into_owned())
    };
    for good in [r#"{"a":{"b":1,"c":2}}"#, r#"{"abcd":"efgh"}"#, r#"["\n\n","éé"]"#, "[[]]"] {
        let good = good.replace("[]}}", "1}}");
        assert_eq!(rule(&good), None, "{good}");
    }
    for (bad, broken) in [
        (r#"{"a":{"b":1,"c":2},"d":3}"#, "more than 3 keys"),
        (r#"{"abcde":1}"#, "a string of more than 4 bytes"),
        (r#"["\n\n1"]"#, "a string of more than 4 bytes"),
        (r#"["ééé"]"#, "a string of more than 4 bytes"),
        ("[[[]]]", "nested deeper than 2 levels"),
    ] {
        assert_eq!(rule(bad).as_deref(), Some(broken), "{bad}");
    }
}

#[test]
fn nesting_is_bounded_on_both_sides() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
    assert_eq!(broken(&nested(DEPTH_MAX + 1)).0, "nested deeper than 128 levels");
    assert_eq!(broken(&"[".repeat(1_000_000)).0, "nested deeper than 128 levels");
}

#[test]
fn pointers_follow_rfc_6901() {
    // The RFC's own example document, section 5.
    let text =
        r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
    let document = parse(text.as_bytes()).unwrap();
    let found = |pointer: &str| {
        assert!(is_pointer(pointer), "{pointer}");
        document.root().at(pointer).map(Value::raw)
    };
    assert_eq!(found(""), Some(text));
    assert_eq!(found("/foo"), Some(r#"["bar","baz"]"#));
    assert_eq!(found("/foo/0"), Some("bar"));
    assert_eq!(found("/"), Some("0"));
    assert_eq!(found("/a~1b"), Some("1"));
    assert_eq!(found("/i\\j"), Some("5"));
    assert_eq!(found("/k\"l"), Some("6"));
    assert_eq!(found("/m~0n"), Some("8"));
    for absent in ["/foo/2", "/foo/00", "/foo/+1", "/foo/-", "/nothing", "/a~1b/x"] {
        assert_eq!(found(absent), None, "{absent}");
    }
    for malformed in ["foo", "/a~2", "/a~"] {
        assert!(!is_pointer(malformed), "{malformed}");
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        (-1e300..1e300).prop_map(serde_json::Value::from),
        "[^\u{0}]{0,8}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[^\u{0}]{0,4}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_document_is_read_as_serde_reads_it(value in any_json()) {
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let read = parse(text.as_bytes()).unwrap().root().to_serde();
            prop_assert_eq!(read, serde_json::from_str::<serde_json::Value>(&text).unwrap());
        }
    }

    #[test]
    fn what_serde_refuses_is_refused(text in r#"[\[\]{}",:0-9eE+.tfn\\u \-]{0,24}"#) {
        if serde_json::from_str::<serde_json::Value>(&text).is_err() {
            prop_assert!(parse(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
    }
}
