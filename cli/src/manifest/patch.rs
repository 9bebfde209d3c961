//! A JSON patch (RFC 6902) carried out on a tree. Of its operations those that an injection and its opposite have: `add`,
//! `remove` and `replace`.

use serde_json::Value;

use super::tree::Tree;

/// Carries out one operation on the part of a tree at `base`, a JSON pointer.
///
/// # Errors
/// There is nothing at the path of the operation, or it is another operation.
pub(crate) fn apply(tree: &mut Tree, base: &str, operation: &Value) -> anyhow::Result<()> {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let path = format!("{base}{}", text("path"));
    let value = || Tree::of_json(operation.get("value").unwrap_or(&Value::Null));
    let done = path.rsplit_once('/').and_then(|(parent, last)| {
        let last = unescaped(last);
        let parent = at(tree, parent)?;
        match (text("op"), parent) {
            ("add" | "replace", Tree::Map(map)) => {
                match map.iter_mut().find(|(key, _, _)| *key == last) {
                    Some((_, _, old)) => *old = value(),
                    None => map.push((last, 0, value())),
                }
                Some(())
            }
            ("add", Tree::List(list)) => {
                let place = if last == "-" { list.len() } else { last.parse().ok()? };
                (place <= list.len()).then(|| list.insert(place, value()))
            }
            ("remove", Tree::Map(map)) => {
                let place = map.iter().position(|(key, _, _)| *key == last)?;
                map.remove(place);
                Some(())
            }
            ("remove", Tree::List(list)) => {
                let place = last.parse().ok().filter(|place| *place < list.len())?;
                list.remove(place);
                Some(())
            }
            _ => None,
        }
    });
    done.ok_or_else(|| anyhow::anyhow!("there is nothing at {path} that could be changed"))
}

/// The part of a tree at a JSON pointer.
fn at<'a>(tree: &'a mut Tree, pointer: &str) -> Option<&'a mut Tree> {
    pointer.split('/').skip(1).map(unescaped).try_fold(tree, |tree, step| match tree {
        Tree::Map(map) => map.iter_mut().find(|(key, _, _)| *key == step).map(|(_, _, value)| value),
        Tree::List(list) => list.get_mut(step.parse::<usize>().ok()?),
        Tree::Scalar(..) => None,
    })
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}
