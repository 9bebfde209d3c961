//! Helps with names that are nearly right.

/// The one of `known` that is close to `given`, if one is.
pub(crate) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let nearest = known.into_iter().map(|name| (distance(name), name)).min();
    nearest.filter(|(distance, name)| *distance <= 1 + name.len() / 4).map(|(_, name)| name)
}

/// `: did you mean 'x'?` when one of `known` is close to `given`, else `: expected one of ...`.
pub(crate) fn suggest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(given, known.iter().copied()) {
        Some(name) => format!(": did you mean '{name}'?"),
        None if known.is_empty() => String::new(),
        None => format!(": expected one of {}", known.join(", ")),
    }
}
