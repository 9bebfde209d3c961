//! The policy as an API server carries it out, with an evaluator of CEL in its place. It evaluates everything but the
//! mutation's last step, which gives the entries of `variables.patch` their type.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use kube_cel::{
    KubeCelExt,
    cel::{
        Context, ExecutionError, IdedExpr,
        objects::{Key, Map, Value as Cel},
        parser::Parser,
    },
};
use selvedge_inject::policy::{mutating, requiring};
use serde_json::{Value, json};

/// Everything that an expression may call.
pub(crate) fn context() -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function("dyn", |value: Cel| Ok::<Cel, ExecutionError>(value));
    context
}

thread_local! {
    /// Every expression is parsed once, which takes far longer than to evaluate it.
    static PARSED: RefCell<HashMap<String, Rc<IdedExpr>>> = RefCell::default();
}

fn parsed(expression: &str) -> Rc<IdedExpr> {
    let parse = || {
        let parsed = Parser::default().enable_optional_syntax(true).parse(expression);
        Rc::new(parsed.unwrap_or_else(|error| panic!("{expression}\nis no CEL: {error}")))
    };
    PARSED.with(|known| known.borrow_mut().entry(expression.to_owned()).or_insert_with(parse).clone())
}

/// The value of an expression, or what an API server would say against it.
pub(crate) fn evaluate(context: &Context<'_>, expression: &str) -> Result<Cel, String> {
    context.resolve(&parsed(expression)).map_err(|error| error.to_string())
}

/// A value of JSON in CEL. Whole numbers are signed in an API server.
pub(crate) fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap()), Cel::Int),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Object(object) => map(object.iter().map(|(key, value)| (key.clone(), to_cel(value)))),
    }
}

/// A map of CEL with keys of text.
pub(crate) fn map(entries: impl Iterator<Item = (String, Cel)>) -> Cel {
    let map: HashMap<Key, Cel> = entries.map(|(key, value)| (Key::String(Arc::new(key)), value)).collect();
    Cel::Map(Map { map: Arc::new(map) })
}

fn to_json(value: &Cel) -> Value {
    match value {
        Cel::Null => Value::Null,
        Cel::Bool(flag) => json!(flag),
        Cel::Int(number) => json!(number),
        Cel::String(text) => json!(**text),
        Cel::List(list) => list.iter().map(to_json).collect(),
        Cel::Map(map) => map.map.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
        other => panic!("{other:?} is no JSON"),
    }
}

/// The variables that an expression needs, evaluated as an API server does: when they are needed first.
fn needed(context: &mut Context<'_>, variables: &[(String, String)], last: &str) -> Result<Cel, String> {
    let mut known: HashMap<String, Result<Cel, String>> = HashMap::new();
    for (name, expression) in variables {
        let used = variables.iter().filter(|(used, _)| uses(expression, used));
        // What is wrong with a variable ends what uses it, and nothing else. Only values are seen by others here, so an
        // expression that could do without it must not mention it outside a branch that is not taken.
        let values = used.filter_map(|(used, _)| Some((used.clone(), known.get(used)?.clone().ok()?)));
        context.add_variable_from_value("variables", map(values));
        let value = evaluate(context, expression).map_err(|error| {
            let failed = variables.iter().filter(|(used, _)| uses(expression, used));
            failed.filter_map(|(used, _)| known.get(used)?.clone().err()).next().unwrap_or(error)
        });
        known.insert(name.clone(), value);
    }
    known.remove(last).expect("the last variable is there")
}

fn uses(expression: &str, variable: &str) -> bool {
    let name = format!("variables.{variable}");
    expression
        .match_indices(&name)
        .any(|(at, _)| !expression[at + name.len()..].starts_with(|next: char| next.is_ascii_alphanumeric()))
}

/// Whether a selector of labels takes them.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector["matchExpressions"].as_array().unwrap().iter().all(|expression| {
        let value = labels.get(expression["key"].as_str().unwrap());
        let is_in = value.is_some_and(|value| expression["values"].as_array().unwrap().contains(value));
        match expression["operator"].as_str().unwrap() {
            "In" => is_in,
            "NotIn" => !is_in,
            other => panic!("operator {other}"),
        }
    })
}

/// The answer to a pod: a patch, `left` alone, or `refused` with the reason.
pub(crate) fn answer(pod: &Value, namespace: &Value, settings: &Value) -> Value {
    let objects = mutating::objects();
    let labels = |object: &Value| object.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
    let is_bound = objects[1..].iter().filter(|binding| {
        let rules = &binding["spec"]["matchResources"];
        selects(&rules["namespaceSelector"], &labels(namespace)) && selects(&rules["objectSelector"], &labels(pod))
    });
    let bound = is_bound.count();
    assert!(bound < 2, "one binding at most takes a pod");
    if bound == 0 || !selects(&objects[0]["spec"]["matchConstraints"]["namespaceSelector"], &labels(namespace)) {
        return json!({ "left": true });
    }
    let mut context = context();
    context.add_variable_from_value("object", to_cel(pod));
    context.add_variable_from_value("params", to_cel(settings));
    for condition in objects[0]["spec"]["matchConditions"].as_array().unwrap() {
        let expression = condition["expression"].as_str().unwrap();
        match evaluate(&context, expression).unwrap_or_else(|error| panic!("{expression}\n{error}")) {
            Cel::Bool(true) => {}
            Cel::Bool(false) => return json!({ "left": true }),
            other => panic!("{expression}\nis {other:?}"),
        }
    }
    let patch = match needed(&mut context, &mutating::variables(), "patch") {
        Ok(patch) => with_operation(to_json(&patch)),
        Err(reason) => panic!("the policy refuses a pod in words of its own: {reason}"),
    };
    match required(pod, &patch) {
        None => json!({ "patch": patch }),
        Some(reason) => json!({ "refused": reason }),
    }
}

/// What the policy that requires sidecars says against a pod that was patched.
pub(crate) fn required(pod: &Value, patch: &Value) -> Option<String> {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch.clone()).unwrap()).unwrap();
    let mut context = context();
    context.add_variable_from_value("object", to_cel(&pod));
    let validation = requiring::validation();
    let said = |part: &str| evaluate(&context, validation[part].as_str().unwrap()).unwrap();
    match (said("expression"), said("messageExpression")) {
        (Cel::Bool(holds), Cel::String(message)) => (!holds).then(|| message.to_string()),
        other => panic!("{other:?}"),
    }
}

/// What the mutation does with `variables.patch`.
fn with_operation(patch: Value) -> Value {
    let add = |mut entry: Value| {
        entry["op"] = "add".into();
        entry
    };
    patch.as_array().unwrap().iter().cloned().map(add).collect()
}
