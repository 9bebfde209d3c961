//! Helps with names that are nearly right.

/// `: did you mean 'x'?` when one of `known` is close to `given`, else `: expected one of ...`.
pub(crate) fn suggest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = given.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let nearest = known.iter().map(|name| (distance(name), *name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + name.len() / 4 => format!(": did you mean '{name}'?"),
        Some(_) => format!(": expected one of {}", known.join(", ")),
        None => String::new(),
    }
}
