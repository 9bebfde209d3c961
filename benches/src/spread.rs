//! What several measurements of the same thing say together.

/// Least, median and greatest.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The least of them, in their unit.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The greatest of them, in their unit.
    pub greatest: f64,
}

impl Spread {
    /// Of these values; `None` when there is none.
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self { least: *values.first()?, median: *values.get(values.len() / 2)?, greatest: *values.last()? })
    }
}
