use super::*;

#[test]
fn references_within_the_document_are_followed() {
    let schema = r##"{"$defs":{"a b":{"type":"string"},"n":{"$anchor":"num","type":"number"}},
        "properties":{"x":{"$ref":"#/$defs/a%20b"},"y":{"$ref":"#num"}}}"##;
    assert!(check(schema, r#"{"x":"s","y":1}"#).is_ok());
    assert!(matches!(check(schema, r#"{"x":1}"#), Err(Broken::Rule(_, place)) if place == "/x"));
    assert!(check(schema, r#"{"y":"s"}"#).is_err());
}

#[test]
fn references_that_lead_outside_or_nowhere_are_refused() {
    for reference in [
        "https://example.com/schema.json",
        "file:///etc/passwd",
        "other.json",
        "#/$defs/absent",
        "#absent",
        "#/%zz",
    ] {
        assert!(compile(&format!(r#"{{"$ref":"{reference}"}}"#)).is_err(), "{reference}");
    }
    assert!(compile(r#"{"$ref":"https://json-schema.org/draft/2020-12/schema"}"#).is_err());
    assert!(compile(r##"{"$dynamicRef":"#x"}"##).is_err());
    assert!(compile(r#"{"$id":"https://example.com/top"}"#).is_ok());
    assert!(compile(r#"{"$defs":{"a":{"$id":"https://example.com/inner"}}}"#).is_err());
    // In draft 4, `id` says where references lead: the validator knows the drafts themselves.
    let part = r##"{"$schema":"http://json-schema.org/draft-NN/schema#","format":"email",
        "id":"https://json-schema.org/draft/2020-12/schema","properties":{"b":{"$ref":"#"}}}"##;
    let subschema = |draft: &str| format!(r#"{{"properties":{{"a":{}}}}}"#, part.replace("NN", draft));
    assert!(compile(&subschema("04")).is_err());
    assert_eq!(check(&part.replace("NN", "04"), r#"{"b":{"type":17}}"#), Ok(()));
    // Others are taken, but here no format is asserted.
    assert_eq!(check(&subschema("07"), r#"{"a":{"b":{"a":"x"}}}"#), Ok(()));
    // What they assert of an encoded content takes its time.
    let work = |schema: &str| Schema::compile(schema).unwrap().work(1000);
    let encoded =
        r#"{"$schema":"http://json-schema.org/draft-07/schema#","contentMediaType":"application/json"}"#;
    assert!(work(&format!(r#"{{"items":{encoded}}}"#)) > 5 * work(encoded));
}

#[test]
fn references_by_the_schemas_own_id_are_followed() {
    let schema = |id: &str, reference: &str| {
        format!(
            r#"{{"$id":"{id}","$defs":{{"a":{{"$anchor":"num","type":"integer"}}}},
                "properties":{{"x":{{"$ref":"{reference}"}}}}}}"#
        )
    };
    for id in ["https://example.com/s", "https://example.com/s#", "urn:example:s", "s.json"] {
        let own = id.trim_end_matches('#');
        for fragment in ["#/$defs/a", "#num"] {
            let schema = schema(id, &format!("{own}{fragment}"));
            assert_eq!(check(&schema, r#"{"x":1}"#), Ok(()), "{schema}");
            assert!(matches!(check(&schema, r#"{"x":"s"}"#), Err(Broken::Rule(_, place)) if place == "/x"));
        }
    }
    let itself = r#"{"$id":"https://example.com/s","properties":{"x":{"$ref":"https://example.com/s"}},
        "type":"object"}"#;
    assert_eq!(check(itself, r#"{"x":{"x":{}}}"#), Ok(()));
    assert!(matches!(check(itself, r#"{"x":{"x":1}}"#), Err(Broken::Rule(_, place)) if place == "/x/x"));
    for other in ["https://example.com/s2", "https://example.com/s/a", "https://example.com/", "#/$defs/a#b"]
    {
        assert!(compile(&schema("https://example.com/s", other)).is_err(), "{other}");
    }
    let doubled = schema("https://example.com/s", "https://example.com/s#/$defs/a#num");
    assert!(compile(&doubled).is_err(), "{doubled}");
    // The names of drafts are known to the validator, but here it is the schema's own.
    let draft = "https://json-schema.org/draft/2020-12/schema";
    assert_eq!(check(&schema(draft, &format!("{draft}#/$defs/a")), r#"{"x":1}"#), Ok(()));
    assert!(compile(&schema("", "")).is_err());
}

#[test]
fn data_in_a_schema_is_not_taken_for_schemas() {
    for data in [
        r#"{"$ref":"x"}"#,
        r##"{"$ref":"#/absent"}"##,
        r#"[{"$id":"https://example.com/a"}]"#,
        r##"{"a":{"$dynamicRef":"#x"}}"##,
        r#"{"pattern":"("}"#,
        r#"{"a":{"$schema":"http://json-schema.org/draft-04/schema#"}}"#,
    ] {
        for keyword in ["const", "default", "x-note"] {
            assert_eq!(compile(&format!(r#"{{"items":{{"{keyword}":{data}}}}}"#)), Ok(()), "{keyword}");
        }
        for keyword in ["enum", "examples"] {
            assert_eq!(compile(&format!(r#"{{"items":{{"{keyword}":[{data}]}}}}"#)), Ok(()), "{keyword}");
        }
    }
    assert_eq!(check(r#"{"const":{"$ref":"x"}}"#, r#"{"$ref":"x"}"#), Ok(()));
    assert!(check(r#"{"const":{"$ref":"x"}}"#, r#"{"$ref":"y"}"#).is_err());
    // As the name of a property or a definition it is a schema.
    for name in ["const", "enum", "default", "examples", "$ref"] {
        for keyword in ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"] {
            let schema = |part: &str| format!(r#"{{"items":{{"{keyword}":{{"{name}":{part}}}}}}}"#);
            assert!(compile(&schema(r#"{"$ref":"x"}"#)).is_err(), "{keyword} {name}");
            assert!(compile(&schema(r#"{"$id":"https://example.com/a"}"#)).is_err(), "{keyword} {name}");
            assert_eq!(compile(&schema(r#"{"type":"integer"}"#)), Ok(()), "{keyword} {name}");
        }
    }
}

#[test]
fn a_place_that_a_reference_leads_to_is_a_schema() {
    let referred = |data: &str| format!(r##"{{"x-parts":[{data}],"$ref":"#/x-parts/0"}}"##);
    assert!(check(&referred(r#"{"type":"integer"}"#), r#""s""#).is_err());
    assert!(compile(&referred(r#"{"$ref":"other.json"}"#)).is_err());
    assert!(compile(&referred(r#"{"not":{"$id":"https://example.com/a"}}"#)).is_err());
    assert!(compile(&referred(r##"{"allOf":[{"$ref":"#/x-parts/0"}]}"##)).is_err());
    // What holds schemas by name is another schema when it is referred to itself.
    let both = r##"{"properties":{"not":{"type":"integer"}},"items":{"$ref":"#/properties"}}"##;
    assert_eq!(check(both, r#"["s"]"#), Ok(()));
    assert!(matches!(check(both, "[1]"), Err(Broken::Rule(_, place)) if place == "/0"));
    assert!(matches!(check(both, r#"{"not":"s"}"#), Err(Broken::Rule(_, place)) if place == "/not"));
}

#[test]
fn an_anchor_leads_to_one_place() {
    let twice = r##""$defs":{"a":{"$anchor":"x"},"b":{"$anchor":"x"}}"##;
    assert_eq!(compile(&format!("{{{twice}}}")), Ok(()));
    assert!(compile(&format!(r##"{{{twice},"$ref":"#x"}}"##)).is_err());
    let data = r##"{"default":{"$anchor":"x"},"$defs":{"a":{"$anchor":"x","type":"integer"}},"$ref":"#x"}"##;
    assert!(check(data, "1").is_ok() && check(data, r#""s""#).is_err());
}

#[test]
fn a_schema_unfolds_up_to_its_bound() {
    // Doubles with each level, without any cycle.
    let doubling = |levels: usize| {
        let next =
            |n: usize| format!(r##"{{"anyOf":[{{"$ref":"#/$defs/d{n}"}},{{"$ref":"#/$defs/d{n}"}}]}}"##);
        let defs: Vec<String> = (0..levels).map(|n| format!(r#""d{n}":{}"#, next(n + 1))).collect();
        format!(r##"{{"$defs":{{{},"d{levels}":{{}}}},"$ref":"#/$defs/d0"}}"##, defs.join(","))
    };
    assert!(compile(&doubling(8)).is_ok());
    assert_eq!(compile(&doubling(40)), Err(format!("unfolds to more than {WEIGHT_MAX} subschemas")));
    let hidden = doubling(20).replacen(
        "\"$ref\":\"#/$defs/d0\"",
        r##""properties":{"definitions":{"$ref":"#/$defs/d0"}}"##,
        1,
    );
    assert!(hidden.contains("properties") && compile(&hidden).is_err(), "{hidden}");
    let wide = |n: u64| format!(r#"{{"anyOf":[{}]}}"#, vec!["{}"; usize::try_from(n).unwrap()].join(","));
    assert_eq!(compile(&wide(WEIGHT_MAX - 1)), Ok(()));
    assert!(compile(&wide(WEIGHT_MAX)).is_err());
}

#[test]
fn a_chain_of_references_is_bounded() {
    let chain = |levels: usize| {
        let defs: Vec<String> =
            (0..levels).map(|n| format!(r##""d{n}":{{"$ref":"#/$defs/d{}"}}"##, n + 1)).collect();
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d{levels}":{{}}}}}}"##, defs.join(","))
    };
    assert_eq!(compile(&chain(200)).err(), None);
    assert!(compile(&chain(300)).is_err());
    // However the parts are called, and so in whatever order they are come by.
    let called = |levels: usize| {
        let defs: Vec<String> = (0..levels)
            .map(|n| format!(r##""d{:03}":{{"not":{{"$ref":"#/$defs/d{n:03}"}}}}"##, n + 1))
            .collect();
        format!(r##"{{"$ref":"#/$defs/d{levels:03}","$defs":{{"d000":{{}},{}}}}}"##, defs.join(","))
    };
    // Two for each, and one for the first reference.
    assert_eq!(compile(&called(127)).err(), None);
    assert_eq!(compile(&called(128)), Err("nested and referred deeper than 256 levels".into()));
}
