//! The order in which a request meets what decides on it at one sidecar, and what changes it then.
//!
//! Policies are first. A request that is to become a tunnel for bytes of any kind is then judged as that connection, and
//! the filters of the route follow, which act at the caller's side. Nothing is changed before all have let it pass: first
//! the filters do it, then what was asked for meanwhile. Who acts on requests and who only says what would become of them
//! both ask here.

use http::HeaderMap;

use super::PolicySet;
use crate::{
    context::{Changes, Context},
    facts::{ConnectionFacts, RequestFacts},
    route::Filters,
    verdict::{Answer, Verdict},
};

/// All that is asked of a request at one sidecar.
///
/// ```
/// use http::HeaderMap;
/// use selvedge_policies::{
///     kind::Attached,
///     policy::{Place, Posture},
///     registry,
///     request::{Asked, PolicySet},
///     testing::{Clock, Request},
///     verdict::Verdict,
/// };
///
/// let spec = serde_json::json!({ "limits": [{ "requests": 1, "per": "1h" }] });
/// let limit = [("RateLimit".to_owned(), Attached { name: "shop/web".into(), spec })];
/// let policies = registry::compile(Place::Called, &limit, Posture::Allow, &PolicySet::new()).unwrap();
/// let asked = Asked::new(&policies, None);
/// let (request, mut context) = (Request::new("GET", "/"), Clock::default().context());
/// assert!(!asked.is_empty());
/// assert_eq!(asked.decide(&request.facts(), None, &mut context), Verdict::Continue);
/// assert!(asked.change(&mut HeaderMap::new(), &mut context).is_none(), "nothing was to be changed");
/// assert!(matches!(asked.decide(&request.facts(), None, &mut context), Verdict::Answer(_)), "one was let pass");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    policies: &'a PolicySet,
    filters: Option<&'a Filters>,
}

impl<'a> Asked<'a> {
    /// These policies, then these filters.
    pub const fn new(policies: &'a PolicySet, filters: Option<&'a Filters>) -> Self {
        Self { policies, filters }
    }

    /// True when everything passes as it is.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.filters.is_none_or(Filters::is_empty)
    }

    /// Decides a request, and the connection that it `becomes` where that is one of opaque bytes, as
    /// [`PolicySet::on_request`] does.
    pub fn decide(
        &self,
        request: &RequestFacts<'_>,
        becomes: Option<&ConnectionFacts<'_>>,
        context: &mut Context,
    ) -> Verdict {
        let (policies, filters) = (self.policies.len(), self.filters.map_or(0, Filters::len));
        context.ask_in_turn(policies + 1 + filters, |turn, context| match turn.checked_sub(policies) {
            None => self.policies.ask(turn, request, context),
            Some(0) => self.of_connection(becomes, context).map_or(Verdict::Continue, Verdict::Answer),
            Some(place) => self.filters.map_or(Verdict::Continue, |filters| filters.ask(place - 1, request, context)),
        })
    }

    fn of_connection(&self, becomes: Option<&ConnectionFacts<'_>>, context: &mut Context) -> Option<Answer> {
        self.policies.on_open_connection(becomes?, context)
    }

    /// Changes the header section of a request that was let pass, and hands back what is left to be done to its response.
    pub fn change(&self, headers: &mut HeaderMap, context: &mut Context) -> Option<Box<Changes>> {
        self.filters.iter().for_each(|filters| filters.change_request(headers));
        let changes = context.take_changes()?;
        changes.request.apply(headers);
        Some(changes)
    }
}
