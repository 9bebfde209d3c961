//! What is written and empty: fields and lists without a value, and conditions without a field.
//!
//! A template whose values are missing writes them, and read as "no condition" they would open what they were to close. So
//! they are refused with the place and what to write instead. Where no sound version of the object is there to stay in
//! force, the object is taken with the meaning that its kind gives it, which never lets pass more than was meant.

use serde_json::Value;

use super::Problem;

/// Every field and list at or below `value`, found at `path`, that is written and empty, and every member of the lists
/// `conditions` that asks nothing.
pub(crate) fn blanks(value: &Value, path: &str, conditions: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    visit(value, path, conditions, &mut problems);
    problems
}

fn visit(value: &Value, path: &str, conditions: &[&str], problems: &mut Vec<Problem>) {
    let field = path.rsplit('.').next().unwrap_or(path);
    match value {
        Value::Null => problems.push(no_value(path)),
        Value::Array(items) if items.is_empty() => {
            let why =
                "the list is empty, as when values get lost: write them, or leave the field out where any is meant";
            problems.push(Problem::new(path, why));
        }
        Value::Array(items) => {
            let of_conditions = conditions.contains(&field);
            for (n, item) in items.iter().enumerate() {
                if of_conditions && item.as_object().is_some_and(|fields| fields.is_empty()) {
                    let why =
                        format!("{{}} asks nothing: write a condition, or leave '{field}' out where any is meant");
                    problems.push(Problem::new(format!("{path}[{n}]"), why));
                }
                visit(item, &format!("{path}[{n}]"), conditions, problems);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                visit(value, &at, conditions, problems);
            }
        }
        _ => {}
    }
}

fn no_value(path: &str) -> Problem {
    Problem::new(path, "no value is written, as when values get lost: write one, or leave the field out")
}

/// [`Kind::close`](super::Kind::close) of a kind that takes lists out by `lists`: a field without a value goes too, since
/// read as "left out" it would mean the default.
pub(crate) fn close_with(lists: fn(&mut Value) -> Vec<Problem>, document: &mut Value) -> Vec<Problem> {
    let mut problems = lists(document);
    problems.extend(until_mended(take_nulls(document), "it is taken as if it were left out"));
    problems
}

/// Takes every field and entry without a value out of `document`, and says where it was.
///
/// ```
/// let mut spec = serde_json::json!({ "expires": null, "rules": [{ "to": [null] }] });
/// let problems = selvedge_policies::kind::take_nulls(&mut spec);
/// assert_eq!(spec, serde_json::json!({ "rules": [{ "to": [] }] }));
/// assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), ["expires", "rules[0].to[0]"]);
/// ```
pub fn take_nulls(document: &mut Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    take(document, "", &mut problems);
    problems
}

fn take(value: &mut Value, path: &str, problems: &mut Vec<Problem>) {
    let mut is_sound = |value: &mut Value, at: &str| {
        if value.is_null() {
            problems.push(no_value(at));
            return false;
        }
        take(value, at, problems);
        true
    };
    match value {
        Value::Array(items) => {
            let mut places = 0..;
            items.retain_mut(|item| is_sound(item, &format!("{path}[{}]", places.next().unwrap_or(0))));
        }
        Value::Object(fields) => fields.retain(|name, value| {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            is_sound(value, &at)
        }),
        _ => {}
    }
}

/// Says of each problem what is in force until it is mended.
pub(crate) fn until_mended(problems: Vec<Problem>, meaning: &str) -> Vec<Problem> {
    let told = |problem: Problem| {
        let message =
            format!("{}; until then the version before is in force, or where there is none {meaning}", problem.message);
        Problem { message, ..problem }
    };
    problems.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_lists_and_conditions_are_found_wherever_they_are() {
        let document = json!({
            "a": [], "b": { "c": [[]], "d": {} }, "from": [{}, { "x": 1 }], "others": [{}], "null": null,
        });
        let found: Vec<String> = blanks(&document, "", &["from"]).into_iter().map(|problem| problem.path).collect();
        assert_eq!(found, ["a", "b.c[0]", "from[0]", "null"]);
        for sound in [json!("text"), json!({}), json!([{}]), json!({ "a": [1] })] {
            assert_eq!(blanks(&sound, "", &["from"]), [], "{sound}");
        }
    }

    #[test]
    fn what_has_no_value_is_taken_out_and_told() {
        let mut document = json!({ "a": null, "b": { "c": [null, 1, { "d": null }] }, "e": [] });
        let found: Vec<String> = take_nulls(&mut document).into_iter().map(|problem| problem.path).collect();
        assert_eq!(found, ["a", "b.c[0]", "b.c[2].d"]);
        assert_eq!(document, json!({ "b": { "c": [1, {}] }, "e": [] }));
    }
}
