use super::*;

const TREE: &str = r##"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"},
    "children":{"type":"array","items":{"$ref":"#"}}}}"##;
/// Any JSON without `null`.
const VALUE: &str = r##"{"anyOf":[{"type":["string","number","boolean"]},{"type":"array","items":{"$ref":"#"}},
    {"type":"object","additionalProperties":{"$ref":"#"}}]}"##;

#[test]
fn a_schema_may_refer_to_itself() {
    assert_eq!(check(TREE, r#"{"n":1,"children":[{"n":2},{"n":3,"children":[{"n":4}]}]}"#), Ok(()));
    let leaf = check(TREE, r#"{"n":1,"children":[{"n":2},{"n":3,"children":[{"n":"4"}]}]}"#);
    assert!(matches!(&leaf, Err(Broken::Rule(_, place)) if place == "/children/1/children/0/n"), "{leaf:?}");
    assert_eq!(check(VALUE, r#"[{"a":[1,"b",{}]},true]"#), Ok(()));
    assert!(check(VALUE, r#"[{"a":[1,"b",{"c":null}]},true]"#).is_err());
    let mutual = r##"{"$ref":"#/$defs/even","$defs":{
        "even":{"prefixItems":[{"$ref":"#/$defs/odd"}]},
        "odd":{"type":"array","minItems":1,"prefixItems":[{"$ref":"#/$defs/even"}]}}}"##;
    assert_eq!(check(mutual, "[[[[[]]]]]"), Ok(()));
    assert!(matches!(check(mutual, "[[[[]]]]"), Err(Broken::Rule(_, place)) if place == "/0/0/0"));
    let extended = r##"{"$ref":"#/$defs/base","properties":{"kind":{}},"unevaluatedProperties":false,
        "$defs":{"base":{"properties":{"children":{"items":{"$ref":"#"}}}}}}"##;
    assert_eq!(check(extended, r#"{"kind":1,"children":[{"kind":2,"children":[{}]}]}"#), Ok(()));
    let unknown = check(extended, r#"{"kind":1,"children":[{"kind":2,"children":[{"x":1}]}]}"#);
    assert!(
        matches!(&unknown, Err(Broken::Rule(_, place)) if place == "/children/0/children/0"),
        "{unknown:?}"
    );
}

/// A schema that refers to itself wherever it says so.
fn rooted(schema: &str) -> String {
    schema.replace("ROOT", r##"{"$ref":"#"}"##)
}

#[test]
fn a_reference_leads_back_only_by_way_of_what_is_in_the_value() {
    for inside in [
        r#"{"properties":{"a":ROOT}}"#,
        r#"{"patternProperties":{"a":ROOT}}"#,
        r#"{"additionalProperties":ROOT}"#,
        r#"{"unevaluatedProperties":ROOT}"#,
        r#"{"propertyNames":ROOT}"#,
        r#"{"items":ROOT}"#,
        r#"{"prefixItems":[ROOT]}"#,
        r#"{"contains":ROOT}"#,
        r#"{"unevaluatedItems":ROOT}"#,
        r#"{"allOf":[{"if":{"dependentSchemas":{"a":{"items":ROOT}}}}]}"#,
        r##"{"$defs":{"a":ROOT},"items":{"$ref":"#/$defs/a"}}"##,
    ] {
        let inside = rooted(inside);
        assert_eq!(compile(&inside), Ok(()), "{inside}");
        assert_eq!(check(&inside, r#"{"a":{"a":{}},"b":[[],{}]}"#), Ok(()), "{inside}");
    }
    let refused = "a $ref leads back to where it came from without going into the value, \
                   as properties and items do";
    for endless in [
        "ROOT",
        r#"{"allOf":[ROOT]}"#,
        r#"{"anyOf":[{},ROOT]}"#,
        r#"{"oneOf":[ROOT]}"#,
        r#"{"not":ROOT}"#,
        r#"{"if":ROOT}"#,
        r#"{"if":{},"then":ROOT}"#,
        r#"{"if":{},"else":ROOT}"#,
        r#"{"dependentSchemas":{"a":ROOT}}"#,
        r#"{"items":ROOT,"allOf":[{"not":ROOT}]}"#,
        r##"{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
        r##"{"items":{"$ref":"#/$defs/a"},
            "$defs":{"a":{"anyOf":[{"$ref":"#/$defs/b"}]},"b":{"not":{"$ref":"#/$defs/a"}}}}"##,
    ] {
        assert_eq!(compile(&rooted(endless)), Err(refused.into()), "{endless}");
    }
}

fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    [open.repeat(levels), inner.to_owned(), close.repeat(levels)].concat()
}

/// Of what is gathered about a fault there may be twice as much with each level, too.
#[test]
fn what_doubles_with_each_level_is_refused_at_once() {
    let twice = r##"{"anyOf":[{"type":"integer"},
        {"type":"object","properties":{"x":{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}}}]}"##;
    let check = |levels, leaf| check(twice, &nested(levels, r#"{"x":"#, leaf, "}"));
    assert_eq!(check(16, "1"), Ok(()));
    assert!(matches!(check(5, "false"), Err(Broken::Rule(_, place)) if place.is_empty()));
    assert_eq!(check(16, "false"), Err(Broken::Untold));
    assert_eq!(check(40, "false"), Err(Broken::TooMuchWork));
    assert_eq!(check(120, "1"), Err(Broken::TooMuchWork));
}

#[test]
fn what_a_value_may_meet_is_bounded_where_it_does_not_multiply() {
    for bounded in [
        TREE,
        VALUE,
        r#"{"items":ROOT,"additionalProperties":ROOT}"#,
        r#"{"properties":{"x":ROOT,"y":{"items":ROOT}},"additionalProperties":ROOT}"#,
        r#"{"prefixItems":[ROOT],"items":ROOT}"#,
        // Hashed once more with each level.
        r#"{"properties":{"x":ROOT},"items":ROOT,"uniqueItems":true}"#,
        // What leads back has another name than what else is deep.
        r#"{"allOf":[{"properties":{"by":{"properties":{"x":{"required":["y"]}}}}}],
            "properties":{"x":ROOT}}"#,
        r#"{"oneOf":[{"properties":{"x":ROOT}},{"properties":{"y":ROOT}}]}"#,
        r#"{"properties":{"x":ROOT},"unevaluatedProperties":false}"#,
        r##"{"$ref":"#/$defs/a","$defs":{"a":{"properties":{"x":ROOT}}},"unevaluatedProperties":false}"##,
    ] {
        let bounded = rooted(bounded);
        let work = Schema::compile(&bounded).unwrap().work(500);
        assert!(work < 3_000_000, "{bounded}: {work}");
        let deep = nested(60, r#"{"x":"#, "1", "}");
        assert_ne!(check(&bounded, &deep), Err(Broken::TooMuchWork), "{bounded}");
    }
    for multiplied in [
        r#"{"patternProperties":{"x":ROOT,"^x":ROOT}}"#,
        r#"{"properties":{"x":{"allOf":[ROOT,ROOT]}}}"#,
        r#"{"anyOf":[{"properties":{"x":ROOT}},{"properties":{"x":ROOT}}]}"#,
        r#"{"allOf":[{"properties":{"x":ROOT}}],"unevaluatedProperties":false}"#,
        r##"{"allOf":[{"properties":{"x":{"$ref":"#/$defs/a"}}}],"properties":{"x":ROOT},
            "$defs":{"a":{"allOf":[ROOT]}}}"##,
    ] {
        let multiplied = rooted(multiplied);
        assert_eq!(Schema::compile(&multiplied).unwrap().work(500), WORK_MAX, "{multiplied}");
        let content = |levels| nested(levels, r#"{"x":"#, "1", "}");
        assert_eq!(check(&multiplied, &content(8)), Ok(()), "{multiplied}");
    }
}

/// As those that tokio has.
fn on_a_small_stack(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, run);
        thread.unwrap().join().unwrap();
    });
}

#[test]
fn a_check_goes_as_deep_as_the_stack_has_room_for() {
    let part = r##"{"properties":{"a":{"$ref":"#"}},"type":["object","array"]}"##;
    // How many parts of the schema are underway at a level, and at the last one.
    for (schema, each, last) in [
        ("PART", 2, 0),
        (r#"{"allOf":[{},PART]}"#, 3, 1),
        (r#"{"anyOf":[false,PART]}"#, 3, 1),
        (r#"{"oneOf":[false,PART]}"#, 3, 1),
        (r#"{"if":{},"then":PART}"#, 3, 1),
        (r#"{"type":"object","dependentSchemas":{"a":PART}}"#, 3, 1),
        (r#"{"oneOf":[{"oneOf":[{"anyOf":[{"allOf":[PART]}]}]}]}"#, 6, 4),
    ] {
        let schema = Schema::compile(&schema.replace("PART", part)).unwrap();
        let most = (weigh::DEPTH_MAX - last) / each;
        on_a_small_stack(|| {
            let check = |levels, leaf: &str| {
                let content = nested(levels, r#"{"a":"#, leaf, "}");
                schema.check(&json::parse(content.as_bytes()).unwrap())
            };
            assert_eq!(check(most.min(127), "{}"), Ok(()), "{most}");
            assert!(!matches!(check(most.min(127), "7"), Ok(()) | Err(Broken::TooMuchWork)), "{most}");
            if most < 127 {
                assert_eq!(check(most + 1, "{}"), Err(Broken::TooMuchWork), "{most}");
            }
        });
    }
    // It is bounded likewise where only a reference of many is met.
    let refs: Vec<String> = (0..15).map(|n| format!(r##""d{n}":{{"$ref":"#/$defs/d{}"}}"##, n + 1)).collect();
    let chain = format!(
        r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d15":{{"items":{{"$ref":"#"}}}}}}}}"##,
        refs.join(",")
    );
    let schema = Schema::compile(&chain).unwrap();
    on_a_small_stack(|| {
        for (levels, checked) in [(13, Ok(())), (14, Err(Broken::TooMuchWork))] {
            let content = nested(levels, "[", "1", "]");
            assert_eq!(schema.check(&json::parse(content.as_bytes()).unwrap()), checked, "{levels}");
        }
    });
}

#[test]
fn a_recursive_schema_weighs_what_the_library_makes_of_it() {
    let wide = |n: u64| {
        let parts = vec!["{}"; usize::try_from(n).unwrap()].join(",");
        format!(r##"{{"items":{{"$ref":"#"}},"anyOf":[{parts}]}}"##)
    };
    assert_eq!(compile(&wide(WEIGHT_MAX - 2)), Ok(()));
    let refused = Err(format!("unfolds to more than {WEIGHT_MAX} subschemas"));
    assert_eq!(compile(&wide(WEIGHT_MAX - 1)), refused);
    // To find out what was looked at, it compiles the parts of others once more, and in
    // these again the parts of others: as many as there are ways through all of them.
    let marks = |parts: usize| {
        let all: Vec<String> = (0..parts).map(|n| format!(r##"{{"$ref":"#/$defs/d{n}"}}"##)).collect();
        let asks = format!(r#"{{"unevaluatedProperties":false,"allOf":[{}]}}"#, all.join(","));
        let part = format!(r#"{{"allOf":[{{"properties":{{"p":{asks}}}}}]}}"#);
        let defs: Vec<String> = (0..parts).map(|n| format!(r#""d{n}":{part}"#)).collect();
        format!(r##"{{"$defs":{{{}}},"$ref":"#/$defs/d0"}}"##, defs.join(","))
    };
    assert_eq!(compile(&marks(3)), Ok(()));
    assert_eq!(compile(&marks(7)), refused);
    // Data in a part is copied as often as the part is compiled.
    let data = |values: usize| {
        let copied = format!(r#"{{"allOf":[{{"const":[{}]}}]}}"#, vec!["0"; values].join(","));
        let asks: Vec<String> = (0..100)
            .map(|n| format!(r##""p{n}":{{"unevaluatedItems":false,"$ref":"#/$defs/a"}}"##))
            .collect();
        format!(
            r##"{{"$defs":{{"a":{copied}}},"items":{{"$ref":"#"}},"properties":{{{}}}}}"##,
            asks.join(",")
        )
    };
    assert_eq!(compile(&data(100)), Ok(()));
    assert_eq!(compile(&data(10_000)), refused);
}

/// The library follows references while it compiles what refers to them.
#[test]
fn how_deep_a_recursive_schema_is_compiled_is_bounded() {
    let ring = |parts: usize, levels: usize| {
        let part = |n: usize| {
            let next = format!(r##"{{"items":{{"$ref":"#/$defs/d{}"}}}}"##, (n + 1) % parts);
            format!(r#""d{n}":{}"#, nested(levels, r#"{"not":"#, &next, "}"))
        };
        let defs: Vec<String> = (0..parts).map(part).collect();
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{}}}}}"##, defs.join(","))
    };
    on_a_small_stack(|| {
        assert_eq!(compile(&ring(9, 26)), Ok(()));
        assert_eq!(compile(&ring(100, 26)), Ok(()));
    });
    let refused = Err("nested and referred deeper than 256 levels".into());
    assert_eq!(compile(&ring(9, 27)), refused);
    assert_eq!(compile(&ring(2, 100)), refused);
}

/// Compiled as it is, it has lost d04 when that is asked for.
const LOST: &str = r##"{"anyOf":[{"$ref":"#/$defs/d09"}],"$defs":{
    "d04":{"$ref":"#/$defs/d10"},
    "d08":{"$ref":"#/$defs/d09","unevaluatedProperties":false},
    "d09":{"if":{"$ref":"#/$defs/d11"},"then":{"$ref":"#/$defs/d10"}},
    "d10":{"type":"object","patternProperties":{"^a":{"$ref":"#/$defs/d04"}}},
    "d11":{"$ref":"#/$defs/d12"},
    "d12":{"properties":{"b":{"$ref":"#/$defs/d08"}}}}}"##;

#[test]
fn what_references_lead_back_to_is_held() {
    assert_eq!(check(LOST, r#"{"a":{"a":{}}}"#), Ok(()));
    assert!(check(LOST, r#"{"a":{"a":1}}"#).is_err());
    let strict = r##"{"$ref":"#/$defs/a","unevaluatedProperties":false,
        "$defs":{"a":{"properties":{"x":{"$ref":"#"}}}}}"##;
    assert_eq!(check(strict, r#"{"x":{"x":{}}}"#), Ok(()));
    assert!(matches!(check(strict, r#"{"x":{"y":1}}"#), Err(Broken::Rule(_, place)) if place == "/x"));
}

#[test]
fn a_content_that_the_library_fails_at_fails_alone() {
    let (validator, _) = build(&serde_json::from_str(LOST).unwrap(), 1, 1 << 16).unwrap();
    let schema = Schema { validator, ..Schema::compile(LOST).unwrap() };
    let check = |content: &str| schema.check(&json::parse(content.as_bytes()).unwrap());
    let lost = check(r#"{"a":{}}"#);
    assert!(matches!(&lost, Err(Broken::Rule(rule, _)) if rule.contains("not followed")), "{lost:?}");
    assert!(matches!(check("1"), Err(Broken::Rule(rule, _)) if rule.contains("not valid")));
}
