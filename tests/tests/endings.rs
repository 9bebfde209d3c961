//! How answers end: one that has arrived wins over a write that failed, and what was received of one goes on before its error.

#[path = "endings/early.rs"]
mod early;
#[path = "endings/early_http2.rs"]
mod early_http2;
#[path = "endings/heads.rs"]
mod heads;
#[path = "endings/interim.rs"]
mod interim;
#[path = "endings/partial.rs"]
mod partial;
#[path = "endings/refused.rs"]
mod refused;
#[path = "endings/service.rs"]
mod service;
#[path = "endings/told.rs"]
mod told;
