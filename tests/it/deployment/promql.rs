//! The metrics that a PromQL query selects, with their matchers: what a small
//! tokenizer can tell. promtool checks the rest of the syntax (deploy/check).

/// A metric as a query selects it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    pub metric: String,
    pub matchers: Vec<Matcher>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Matcher {
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: String,
    pub value: String,
}

/// Words that aren't metrics where a metric might stand.
const WORDS: [&str; 9] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end"];
/// Before a list of labels in parentheses.
const LABELS_FOLLOW: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// These may stand apart from their parentheses: `sum by (le) (...)`.
const AGGREGATIONS: [&str; 12] = [
    "sum",
    "min",
    "max",
    "avg",
    "group",
    "stddev",
    "stdvar",
    "count",
    "count_values",
    "bottomk",
    "topk",
    "quantile",
];

/// All selectors of a query, in their order.
///
/// # Panics
/// If something is not closed.
pub fn selectors(query: &str) -> Vec<Selector> {
    let mut rest = query;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        match first {
            '"' | '\'' => rest = text(rest).1,
            // A range, or a subquery's.
            '[' => rest = after(rest, ']'),
            '0'..='9' => rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.'),
            '{' => panic!("a selector without a metric's name: {rest}"),
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => {
                let name;
                (name, rest) = word(rest);
                let next = rest.trim_start();
                if LABELS_FOLLOW.contains(&name) {
                    rest = if next.starts_with('(') { after(next, ')') } else { next };
                } else if AGGREGATIONS.contains(&name) || WORDS.contains(&name) || next.starts_with('(') {
                    rest = next;
                } else {
                    let matchers;
                    (matchers, rest) = if next.starts_with('{') { braces(next) } else { (Vec::new(), next) };
                    found.push(Selector { metric: name.to_owned(), matchers });
                }
            }
            c => rest = &rest[c.len_utf8()..],
        }
    }
    found
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    text.split_at(end.unwrap_or(text.len()))
}

fn after(text: &str, end: char) -> &str {
    text.split_once(end).unwrap_or_else(|| panic!("no {end} in {text}")).1
}

/// A quoted text, and what follows it. Escapes are kept as they are.
fn text(quoted: &str) -> (&str, &str) {
    let quote = quoted.chars().next().expect("a quote");
    let mut escaped = false;
    for (at, c) in quoted.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return (&quoted[1..at], &quoted[at + 1..]),
            _ => {}
        }
    }
    panic!("a text without an end: {quoted}");
}

/// `{label="value", ...}`, and what follows it.
fn braces(given: &str) -> (Vec<Matcher>, &str) {
    let mut matchers = Vec::new();
    let mut rest = given[1..].trim_start();
    while !rest.starts_with('}') {
        let (label, next) = word(rest);
        let next = next.trim_start();
        let operator_end = next.find(['"', '\'']).expect("a value");
        let (operator, value) = next.split_at(operator_end);
        let (value, next) = text(value);
        matchers.push(Matcher {
            label: label.to_owned(),
            operator: operator.trim().to_owned(),
            value: value.to_owned(),
        });
        rest = next.trim_start().trim_start_matches(',').trim_start();
    }
    (matchers, &rest[1..])
}

#[test]
fn selectors_are_found_and_nothing_else_is() {
    let matcher = |label: &str, operator: &str, value: &str| Matcher {
        label: label.into(),
        operator: operator.into(),
        value: value.into(),
    };
    let of = |metric: &str, matchers: Vec<Matcher>| Selector { metric: metric.into(), matchers };
    let query = r#"histogram_quantile(0.99, sum by (le, job) (rate(a_bucket{job="x",route=~".*/Y|{z}"}[5m])))
        > on (job) group_left max without (pod) (b_total{code!="} q"} offset 1h) * 1e3 and c
        or absent(d{}) unless count(e[1h:5m]) by (f) == bool 0x1F"#;
    let expected = [
        of("a_bucket", vec![matcher("job", "=", "x"), matcher("route", "=~", ".*/Y|{z}")]),
        of("b_total", vec![matcher("code", "!=", "} q")]),
        of("c", vec![]),
        of("d", vec![]),
        of("e", vec![]),
    ];
    assert_eq!(selectors(query), expected);
}
