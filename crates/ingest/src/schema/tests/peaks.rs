use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

#[test]
fn what_a_content_takes_is_never_more_than_was_said_of_its_size() {
    let (pattern, large) = (r#"{"pattern":"a[ab]{300}[^ab]"}"#, r#"{"enum":[1.5,2.5,[3,4],{"a":5}]}"#);
    let schemas = [
        pattern.to_owned(),
        large.to_owned(),
        format!(r#"{{"items":{pattern},"uniqueItems":true}}"#),
        r#"{"uniqueItems":true,"items":{"uniqueItems":true,"items":{"uniqueItems":true}}}"#.to_owned(),
        format!(r#"{{"prefixItems":[{large},{pattern}],"items":{large},"unevaluatedItems":false}}"#),
        format!(r#"{{"properties":{{"a":{pattern},"b":{large}}},"additionalProperties":{pattern}}}"#),
        format!(r#"{{"patternProperties":{{"[ab]{{9}}x":{large}}},"propertyNames":{pattern}}}"#),
        format!(r#"{{"allOf":[{{"properties":{{"a":{large}}}}}],"unevaluatedProperties":{pattern}}}"#),
        format!(r#"{{"required":["a","b"],"if":{pattern},"then":{large},"anyOf":[{pattern},{large}]}}"#),
        format!(r##"{{"$defs":{{"x":{pattern}}},"items":{{"oneOf":[{{"$ref":"#/$defs/x"}},{large}]}}}}"##),
    ];
    let contents = [
        "1",
        r#""""#,
        r#""abab""#,
        "[]",
        "[1,1,1]",
        r#"["a","b","a"]"#,
        r#"{"a":"ab","b":1,"c":"ba"}"#,
        "{}",
    ];
    for schema in &schemas {
        let schema = Schema::compile(schema).unwrap();
        for content in contents {
            let document = json::parse(content.as_bytes()).unwrap();
            let price = Price::of(document.root(), &schema.rules, WORK_MAX).total;
            assert!(price <= schema.work(content.len()), "{content} under {schema:?}");
        }
    }
}

/// Parts that refer to others in all the ways that there are.
fn part() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        3 => (0..PARTS).prop_map(|n| json!({"$ref": format!("#/$defs/d{n}")})),
        1 => Just(json!(true)),
        1 => Just(json!({"type": ["integer", "object", "array"]})),
        1 => Just(json!({"pattern": "^a+$"})),
        1 => Just(json!({"enum": [1.5, [3, 4], {"a": 5}]})),
        1 => Just(json!({"required": ["a"], "minLength": 1, "multipleOf": 2, "uniqueItems": true})),
    ];
    let one = prop::sample::select(vec![
        "not",
        "if",
        "then",
        "items",
        "contains",
        "additionalProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    ]);
    let list = prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]);
    let map = prop::sample::select(vec!["properties", "properties", "patternProperties", "dependentSchemas"]);
    leaf.prop_recursive(3, 16, 4, move |part| {
        let keyword = prop_oneof![
            3 => (one.clone(), part.clone()),
            1 => (list.clone(), prop::collection::vec(part.clone(), 1..3).prop_map(Json::from)),
            2 => (map.clone(), (part.clone(), part).prop_map(|(a, b)| json!({"a": a, "b": b}))),
        ];
        prop::collection::vec(keyword, 1..4)
            .prop_map(|keywords| Json::Object(keywords.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
    })
}

const PARTS: usize = 3;

fn content() -> impl Strategy<Value = Json> {
    let leaf =
        prop_oneof![Just(json!(1)), Just(json!(1.5)), Just(json!("")), "[a-c]{0,40}".prop_map(Json::from)];
    leaf.prop_recursive(4, 30, 4, |value| {
        prop_oneof![
            prop::collection::vec(value.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-c]|c{20}", value, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_told_of_a_size_holds_wherever_references_lead(
        parts in prop::collection::vec(part(), PARTS),
        contents in prop::collection::vec(content(), 1..10),
    ) {
        let parts: serde_json::Map<_, _> = (0..).zip(parts).map(|(n, part)| (format!("d{n}"), part)).collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": parts}).to_string();
        // Those that lead back without going into the value are many.
        let Ok(schema) = Schema::compile(&schema) else { return Ok(()) };
        for content in contents {
            let content = content.to_string();
            let document = json::parse(content.as_bytes()).unwrap();
            let at_most = schema.peak.at_most(document.len() as u64, content.len() as u64);
            let price = Price::of(document.root(), &schema.rules, WORK_MAX).total;
            prop_assert!(price <= at_most || price > WORK_MAX, "{}: {} of {}", content, price, at_most);
            let valid = schema.validator.is_valid(&document.root().to_serde());
            let checked = schema.check(&document);
            prop_assert!(valid == checked.is_ok() || checked == Err(Broken::TooMuchWork));
        }
    }
}
