//! Reads the key of a limit from a request, as a 64-bit hash that callers cannot predict.

use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

use http::HeaderName;

use super::Key;
use crate::{
    facts::{ConnectionFacts, Peer, RequestFacts},
    kind::Problem,
    matching::header::field_name,
};

/// The parts of a key, and the hash function with its own random seed: two keys share a bucket by chance only, and no
/// caller can aim for another's.
#[derive(Debug)]
pub(super) struct KeyReader {
    parts: Vec<Part>,
    seed: RandomState,
}

#[derive(Debug)]
enum Part {
    Identity,
    Route,
    Address,
    Header(HeaderName),
}

impl KeyReader {
    /// Compiles the key found at `path`; what cannot be compiled is left out and reported.
    pub(super) fn new(keys: &[Key], path: &str, problems: &mut Vec<Problem>) -> Self {
        let parts = keys.iter().enumerate().filter_map(|(n, key)| match key {
            Key::Identity => Some(Part::Identity),
            Key::Route => Some(Part::Route),
            Key::Address => Some(Part::Address),
            Key::Header(name) => match field_name(name) {
                Ok(name) => Some(Part::Header(name)),
                Err(why) => {
                    problems.push(Problem::new(format!("{path}[{n}].header"), why));
                    None
                }
            },
        });
        Self { parts: parts.collect(), seed: RandomState::new() }
    }

    /// The key of a request.
    pub(super) fn of_request(&self, request: &RequestFacts<'_>) -> u64 {
        self.hash(request.peer, |part, hasher| match part {
            Part::Route => request.route.hash(hasher),
            Part::Header(name) => {
                request.headers.get_all(name).iter().for_each(|line| line.as_bytes().hash(hasher));
            }
            Part::Identity | Part::Address => {}
        })
    }

    /// The key of a connection, which has neither route nor headers.
    pub(super) fn of_connection(&self, connection: &ConnectionFacts<'_>) -> u64 {
        self.hash(connection.peer, |_, _| {})
    }

    fn hash<F: Fn(&Part, &mut DefaultHasher)>(&self, peer: &Peer, http: F) -> u64 {
        if self.parts.is_empty() {
            return 0;
        }
        let mut hasher = self.seed.build_hasher();
        for part in &self.parts {
            match part {
                Part::Identity => peer.identity.hash(&mut hasher),
                Part::Address => peer.address.to_canonical().hash(&mut hasher),
                Part::Route | Part::Header(_) => http(part, &mut hasher),
            }
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }
}
