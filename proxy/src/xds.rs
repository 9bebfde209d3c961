//! stub
use selvedge_xds::proto::mesh::{Destination, Endpoints, Inbound, TrustBundle};
use std::{collections::HashMap, sync::Arc};
pub struct Versioned<T> {
    pub name: String,
    pub version: String,
    pub value: T,
}
#[derive(Default)]
pub struct Resources {
    pub generation: u64,
    pub inbound: Option<Arc<Inbound>>,
    pub bundle: Option<Arc<TrustBundle>>,
    pub destinations: HashMap<String, Arc<Versioned<Destination>>>,
    pub endpoints: HashMap<String, Arc<Versioned<Endpoints>>>,
    pub aliases: HashMap<String, Option<String>>,
    pub connected: bool,
    pub last_error: Option<String>,
}
pub enum Demand {
    Want(String),
    Used(Vec<String>),
}
