//! The one writer: takes what a source tells, and publishes snapshots.
