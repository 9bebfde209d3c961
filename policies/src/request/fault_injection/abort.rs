//! How calls fail on purpose, for callers that speak HTTP and for those that speak gRPC.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    kind::{Problem, suggest},
    reason::Reason,
    verdict::Answer,
};

/// A failure. One of the statuses has to be there; for callers of the other kind it is translated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Abort {
    /// How many of a hundred calls fail.
    #[schemars(range(min = 0, max = 100))]
    pub percentage: f64,
    /// What callers are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub http_status: Option<u16>,
    /// What gRPC callers are told, by name, such as `UNAVAILABLE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
}

/// The status codes of gRPC from 1 on, each with the HTTP status that `google.rpc.Code` gives it.
const GRPC: [(&str, u16); 16] = [
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

impl Abort {
    /// What the calls of an abort found at `path` in the object `policy` are answered with.
    pub(super) fn answer(&self, policy: &Arc<str>, path: &str, problems: &mut Vec<Problem>) -> Option<Answer> {
        let grpc = match self.grpc_status.as_deref().map(grpc_status).transpose() {
            Ok(grpc) => grpc,
            Err(why) => {
                problems.push(Problem::new(format!("{path}.grpcStatus"), why));
                return None;
            }
        };
        let Some(status) = self.http_status.or(grpc.map(|(_, status)| status)) else {
            problems.push(Problem::new(path, "it does not say how calls fail: expected 'httpStatus' or 'grpcStatus'"));
            return None;
        };
        let refusal = Answer::refuse(Reason::FaultInjected, Arc::clone(policy));
        Some(Answer {
            status: StatusCode::from_u16(status).unwrap_or(refusal.status),
            grpc_status: grpc.map(|(code, _)| code),
            ..refusal
        })
    }
}

/// The code of a name, and its HTTP status.
fn grpc_status(name: &str) -> Result<(u16, u16), String> {
    let known = (1..).zip(GRPC).find(|(_, (known, _))| *known == name);
    let found = known.map(|(code, (_, status))| (code, status));
    found.ok_or_else(|| {
        let hint = suggest(name, GRPC.iter().map(|(name, _)| *name));
        format!("'{name}' is no status with which a gRPC call fails{hint}")
    })
}
