//! stub
pub fn run() {}
pub fn run_until() {}
pub enum StartError {}
