//! What stands for a policy that this sidecar said it cannot enforce: all that the policy covers is refused.

use std::sync::Arc;

use crate::{
    context::Context,
    facts::{ConnectionFacts, RequestFacts},
    policy::RequestPolicy,
    reason::Reason,
    verdict::{Answer, Verdict},
};

/// Refuses everything in the name of an object, `namespace/name`.
pub(super) struct Unenforceable(pub(super) Arc<str>);

impl Unenforceable {
    fn answer(&self) -> Answer {
        Answer::refuse(Reason::PolicyUnenforceable, Arc::clone(&self.0))
    }
}

impl RequestPolicy for Unenforceable {
    fn on_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Answer(self.answer())
    }

    fn on_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Verdict {
        Verdict::Answer(self.answer())
    }

    fn on_open_request(&self, _: &RequestFacts<'_>, _: &mut Context) -> Option<Answer> {
        Some(self.answer())
    }

    fn on_open_connection(&self, _: &ConnectionFacts<'_>, _: &mut Context) -> Option<Answer> {
        Some(self.answer())
    }
}
