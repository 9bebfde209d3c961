//! The short and the long form of suites whose cases are rows of data: `make test` runs the short one, `make attack` the long one.

use std::env::{var, var_os};

/// When it is set, suites run in their long form.
const LONG: &str = "SELVEDGE_ATTACK";
/// A part of the names of the rows that are run, in both forms.
const ONLY: &str = "SELVEDGE_ONLY";
/// Where chance begins.
const SEED: &str = "SEED";

/// Whether the suites run in their long form.
pub fn is_long() -> bool {
    var_os(LONG).is_some_and(|value| !value.is_empty())
}

/// What holds for the short form, or for the long one.
pub fn either<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// Whether a row of this name is to run.
pub fn is_asked(name: &str) -> bool {
    var(ONLY).map_or(true, |part| name.contains(&part))
}

/// Where chance begins: as somebody says who repeats a run, or anywhere. It is printed.
pub fn seed() -> u64 {
    let seed = var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("{SEED}={seed}");
    seed
}
