//! The serving half of the delta protocol, one [`Stream`] per connected client: requests and changes in,
//! responses out, no I/O and no clock.
//!
//! Guarantees:
//! - Every subscribed name is answered: with its resource, or once in `removed_resources` when there is none
//!   (and with the resource as soon as there is one). A name subscribed to again is answered again.
//! - A resource is sent once per version, under its canonical name, with the aliases that were asked for.
//! - One response in flight per kind. What is referred to goes out before what refers to it; removals go out
//!   after every addition and in the other order ([`KindSet::order`]).
//! - A client that resumes with `initial_resource_versions` is sent only what differs. Its keys are the names the
//!   client asked for, aliases included, its values the versions held; an empty version means "told there is none".

mod response;
mod subscription;

use std::sync::Arc;

pub use self::response::Response;
use self::subscription::{Batch, InFlight, News, Subscription};
use crate::{
    proto::discovery::DeltaDiscoveryRequest,
    resource::{Encoded, KindSet, TypeUrl},
};

/// Finds a resource by canonical name or alias.
pub type Find<'a> = &'a dyn Fn(TypeUrl, &str) -> Option<Arc<Encoded>>;

/// Names one client may subscribe to on a stream, of all kinds. A sidecar needs as many as its workload has peers, and
/// their endpoints.
pub const MAX_NAMES: usize = 20_000;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 512;
/// What a name costs beside its text, in bytes: the tables it is in, and what is known of it.
const NAME_COST: usize = 256;

/// A request that breaks the protocol; the stream must end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No resources of this type are served.
    #[error("type '{0}' is not served here")]
    UnknownType(String),
    /// A name is longer than [`MAX_NAME`].
    #[error("a {0:?} name has more than {MAX_NAME} bytes")]
    LongName(TypeUrl),
    /// More than [`MAX_NAMES`] names.
    #[error("more than {MAX_NAMES} names are subscribed to on one stream, which is the limit")]
    TooManyNames,
}

/// What a client said about the response in flight, of what it still subscribes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Kind of the response.
    pub kind: TypeUrl,
    /// The resources it took.
    pub taken: Vec<Arc<Encoded>>,
    /// The resources it refused: those its complaint lists ([`crate::proto::mesh::Refusal`]), or all when it lists none of them.
    pub refused: Vec<Arc<Encoded>>,
    /// The client's complaint (NACK); `None` when it took everything (ACK).
    pub complaint: Option<Arc<str>>,
}

/// Subscription state of one client's stream.
#[derive(Debug)]
pub struct Stream {
    kinds: &'static KindSet,
    /// One of each kind, in the order of the set.
    subscriptions: Vec<Subscription>,
    last_nonce: u64,
}

impl Stream {
    /// State of a stream that serves `kinds` and on which nothing was said yet.
    pub fn new(kinds: &'static KindSet) -> Self {
        let subscriptions = kinds.order().iter().map(|kind| Subscription::new(*kind)).collect();
        Self { kinds, subscriptions, last_nonce: 0 }
    }

    /// Takes one request in. A reply to the response in flight is handed back; one with a stale nonce is not, but
    /// its names count all the same.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Option<Reply>, RequestError> {
        let kind = self.kinds.find(&request.type_url);
        let Some(subscription) = kind.and_then(|kind| self.subscription(kind)) else {
            return Err(RequestError::UnknownType(request.type_url.chars().take(200).collect()));
        };
        let reply = subscription.reply(&request);
        subscription.rename(request)?;
        if self.subscriptions.iter().map(|s| s.asked.len()).sum::<usize>() > MAX_NAMES {
            return Err(RequestError::TooManyNames);
        }
        Ok(reply)
    }

    /// About how many bytes the names subscribed to take. It changes with requests only.
    pub fn weight(&self) -> usize {
        self.subscriptions.iter().map(|s| s.asked.len() * NAME_COST + s.text).sum()
    }

    /// Any resource behind [`Find`] may have changed.
    pub fn changed(&mut self) {
        self.subscriptions.iter_mut().for_each(|s| s.news = News::OfAnything);
    }

    /// What [`Find`] says of this name may have changed; to be told of every name of a resource that changed, before
    /// or after. Cheap for a name that nobody asked for.
    pub fn changed_name(&mut self, kind: TypeUrl, name: &str) {
        if let Some(subscription) = self.subscription(kind) {
            subscription.touch(name);
        }
    }

    /// Whether there may be something to send.
    pub fn has_news(&self) -> bool {
        self.subscriptions.iter().any(|s| !s.news.is_nothing())
    }

    /// Every response that may go out now, in order. `version` is what `system_version_info` says.
    pub fn responses(&mut self, find: Find<'_>, version: &Arc<str>) -> Vec<Response> {
        let mut out = Vec::new();
        if !self.send_additions(find, version, &mut out) {
            return out;
        }
        for subscription in self.subscriptions.iter_mut().rev().filter(|s| !s.news.is_nothing()) {
            let removed = subscription.removals(find);
            if !removed.is_empty() {
                if subscription.in_flight.is_some() {
                    break;
                }
                let batch = Batch { removed, ..Batch::default() };
                out.push(response(subscription, batch, version, &mut self.last_nonce));
            }
            subscription.news = News::Nothing;
        }
        out
    }

    /// Resources a resumed client turned out to hold in their newest version, each told once.
    pub fn confirmed(&mut self) -> Vec<Arc<Encoded>> {
        self.subscriptions.iter_mut().flat_map(|s| std::mem::take(&mut s.confirmed)).collect()
    }

    /// Resources the client holds no more, because it gave up every name of them or was told that they are gone, each
    /// told once.
    pub fn dropped(&mut self) -> Vec<(TypeUrl, String)> {
        let each = self.subscriptions.iter_mut().map(|s| (s.kind, std::mem::take(&mut s.dropped)));
        each.flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name))).collect()
    }

    /// Whether every addition is out.
    fn send_additions(&mut self, find: Find<'_>, version: &Arc<str>, out: &mut Vec<Response>) -> bool {
        for subscription in self.subscriptions.iter_mut().filter(|s| !s.news.is_nothing()) {
            let busy = subscription.in_flight.is_some();
            let Some(batch) = subscription.additions(find, busy) else { return false };
            let complete = batch.complete;
            if !batch.is_empty() {
                out.push(response(subscription, batch, version, &mut self.last_nonce));
            }
            if !complete {
                return false;
            }
        }
        true
    }

    fn subscription(&mut self, kind: TypeUrl) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.kind == kind)
    }
}

/// The response that says `batch`, in flight from now on.
fn response(subscription: &mut Subscription, batch: Batch, version: &Arc<str>, last_nonce: &mut u64) -> Response {
    *last_nonce += 1;
    let delivered = batch.resources.iter().map(|(resource, _)| Arc::clone(resource)).collect();
    subscription.in_flight = Some(InFlight { nonce: *last_nonce, delivered });
    Response {
        kind: subscription.kind,
        resources: batch.resources,
        removed: batch.removed,
        nonce: *last_nonce,
        version: Arc::clone(version),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost::{Message, Name};

    use super::{subscription::RESPONSE_BYTES, *};
    use crate::{
        kinds::{DESTINATION, ENDPOINTS, INBOUND, SELVEDGE, TRUST_BUNDLE},
        proto::{
            discovery::{DeltaDiscoveryResponse, Status},
            mesh::{Destination, Refusal},
        },
    };

    #[derive(Default)]
    struct Table(HashMap<(TypeUrl, String), Arc<Encoded>>);

    impl Table {
        fn put(&mut self, kind: TypeUrl, name: &str, aliases: &[&str], content: &str) {
            let aliases: Vec<String> = aliases.iter().map(|alias| (*alias).to_owned()).collect();
            let message = Destination { name: content.into(), ..Destination::default() };
            let resource = Arc::new(Encoded::new(kind, name, aliases.clone(), &message));
            for name in aliases.into_iter().chain([name.to_owned()]) {
                self.0.insert((kind, name), Arc::clone(&resource));
            }
        }

        fn remove(&mut self, kind: TypeUrl, name: &str) {
            self.0.retain(|(k, _), resource| *k != kind || resource.name != name);
        }
    }

    fn request(kind: TypeUrl) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: kind.to_string(), ..DeltaDiscoveryRequest::default() }
    }

    fn subscribe(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(kind) }
    }

    fn reply(response: &DeltaDiscoveryResponse, complaint: Option<&str>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: complaint.map(|message| Status { code: 3, message: message.into(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn push(stream: &mut Stream, table: &Table) -> Vec<DeltaDiscoveryResponse> {
        stream.changed();
        let find = |kind, name: &str| table.0.get(&(kind, name.to_owned())).cloned();
        stream.responses(&find, &"7".into()).iter().map(Response::to_message).collect()
    }

    /// Pushes and acknowledges until nothing is left; every response as `+names -names`.
    fn drain(stream: &mut Stream, table: &Table) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let responses = push(stream, table);
            if responses.is_empty() {
                return said;
            }
            for response in responses {
                let kind = SELVEDGE.find(&response.type_url).unwrap();
                let names = response.resources.iter().map(|r| format!(" +{}", r.name));
                let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
                said.push(format!("{kind:?}{}", names.chain(removed).collect::<String>()));
                stream.request(reply(&response, None)).unwrap();
            }
        }
    }

    #[test]
    fn a_resource_is_sent_once_a_version_under_its_canonical_name_with_the_alias_asked_for() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &["web.a", "10.0.0.1:80"], "1");
        stream.request(subscribe(DESTINATION, &["10.0.0.1:80"])).unwrap();
        let responses = push(&mut stream, &table);
        assert_eq!(responses.len(), 1);
        let [resource] = &responses[0].resources[..] else { panic!("{responses:?}") };
        assert_eq!((&*resource.name, &resource.aliases[..]), ("a/web", &["10.0.0.1:80".to_owned()][..]));
        assert_eq!(responses[0].system_version_info, "7");
        stream.request(reply(&responses[0], None)).unwrap();
        assert!(push(&mut stream, &table).is_empty(), "nothing changed");
        table.put(DESTINATION, "a/web", &["web.a", "10.0.0.1:80"], "2");
        assert_eq!(drain(&mut stream, &table), ["Destination +a/web"]);
    }

    #[test]
    fn a_repeated_subscription_is_answered_again() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &["web.a"], "1");
        for names in [&["a/web", "none"][..], &["a/web", "none"]] {
            stream.request(subscribe(DESTINATION, names)).unwrap();
            assert_eq!(drain(&mut stream, &table), ["Destination +a/web -none"]);
        }
        stream.request(subscribe(DESTINATION, &["web.a"])).unwrap();
        assert_eq!(drain(&mut stream, &table), ["Destination +a/web"], "so that the client learns of the alias");
    }

    #[test]
    fn a_name_that_comes_to_stand_for_another_resource_gives_the_first_one_up() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &["web.example"], "1");
        stream.request(subscribe(DESTINATION, &["web.example"])).unwrap();
        assert_eq!(drain(&mut stream, &table), ["Destination +a/web"]);
        table.put(DESTINATION, "b/web", &["web.example"], "1");
        let responses = push(&mut stream, &table);
        assert_eq!(responses[0].resources[0].name, "b/web");
        assert_eq!(stream.dropped(), [(DESTINATION, "a/web".to_owned())], "as soon as it is told");
        stream.request(reply(&responses[0], None)).unwrap();
        table.put(DESTINATION, "b/web", &["web.example"], "2");
        assert_eq!(drain(&mut stream, &table), ["Destination +b/web"]);
        assert_eq!(stream.dropped(), [], "a new version is the same resource");
    }

    #[test]
    fn what_is_absent_is_said_once_and_sent_when_it_appears() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        stream.request(subscribe(DESTINATION, &["web.a"])).unwrap();
        assert_eq!(drain(&mut stream, &table), ["Destination -web.a"]);
        assert!(push(&mut stream, &table).is_empty());
        table.put(DESTINATION, "a/web", &["web.a"], "1");
        assert_eq!(drain(&mut stream, &table), ["Destination +a/web"]);
        table.remove(DESTINATION, "a/web");
        assert_eq!(drain(&mut stream, &table), ["Destination -web.a"]);
        table.put(DESTINATION, "a/web", &["web.a"], "1");
        assert_eq!(drain(&mut stream, &table), ["Destination +a/web"], "the same version, after a removal");
    }

    #[test]
    fn one_response_is_in_flight_and_stale_nonces_are_ignored() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &[], "1");
        stream.request(subscribe(DESTINATION, &["a/web"])).unwrap();
        let first = push(&mut stream, &table).remove(0);
        table.put(DESTINATION, "a/web", &[], "2");
        assert!(push(&mut stream, &table).is_empty(), "the first is in flight");
        let stale = DeltaDiscoveryRequest { response_nonce: "99".into(), ..request(DESTINATION) };
        assert_eq!(stream.request(stale).unwrap(), None);
        assert!(push(&mut stream, &table).is_empty());
        let replied = stream.request(reply(&first, Some("no"))).unwrap().unwrap();
        assert_eq!((replied.complaint.as_deref(), replied.refused.len(), replied.taken.len()), (Some("no"), 1, 0));
        let second = push(&mut stream, &table).remove(0);
        assert_ne!(first.nonce, second.nonce);
        assert_eq!(stream.request(reply(&first, None)).unwrap(), None, "an old nonce answers nothing");
        assert!(stream.request(reply(&second, None)).unwrap().unwrap().complaint.is_none());
        assert!(push(&mut stream, &table).is_empty(), "a refused version is not sent again");
    }

    #[test]
    fn only_a_name_that_was_asked_for_makes_the_stream_look() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &["web.a"], "1");
        stream.request(subscribe(DESTINATION, &["web.a"])).unwrap();
        drain(&mut stream, &table);
        table.put(DESTINATION, "a/web", &["web.a"], "2");
        let look = |stream: &mut Stream| {
            stream.responses(&|kind, name| table.0.get(&(kind, name.to_owned())).cloned(), &"8".into()).len()
        };
        stream.changed_name(DESTINATION, "a/api");
        stream.changed_name(ENDPOINTS, "web.a");
        assert_eq!(look(&mut stream), 0);
        stream.changed_name(DESTINATION, "web.a");
        assert_eq!(look(&mut stream), 1);
    }

    #[test]
    fn a_new_name_costs_one_look_however_many_there_are() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        let names: Vec<String> = (0..500).map(|n| format!("a/d{n}")).collect();
        names.iter().for_each(|name| table.put(DESTINATION, name, &[], "1"));
        stream.request(subscribe(DESTINATION, &names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        drain(&mut stream, &table);
        stream.request(subscribe(DESTINATION, &["none"])).unwrap();
        let looks = std::cell::Cell::new(0);
        let find = |_: TypeUrl, _: &str| {
            looks.set(looks.get() + 1);
            None
        };
        assert_eq!(stream.responses(&find, &"8".into()).len(), 1);
        assert!(looks.get() <= 2, "{} looks", looks.get());
    }

    #[test]
    fn make_before_break() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        for kind in SELVEDGE.order().iter().copied() {
            table.put(kind, "old", &[], "1");
            stream.request(subscribe(kind, &["old", "new"])).unwrap();
        }
        drain(&mut stream, &table);
        for kind in SELVEDGE.order().iter().copied() {
            table.remove(kind, "old");
            table.put(kind, "new", &[], "1");
        }
        let said = drain(&mut stream, &table);
        let added = ["TrustBundle +new", "Endpoints +new", "Destination +new", "Inbound +new"];
        let removed = ["Inbound -old", "Destination -old", "Endpoints -old", "TrustBundle -old"];
        assert_eq!(said, [added, removed].concat());
    }

    #[test]
    fn an_addition_waits_for_what_comes_before_it() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        for kind in [ENDPOINTS, DESTINATION] {
            table.put(kind, "x", &[], "1");
            stream.request(subscribe(kind, &["x"])).unwrap();
        }
        let first = push(&mut stream, &table);
        assert_eq!(first.len(), 2);
        stream.request(reply(&first[1], None)).unwrap();
        for kind in [ENDPOINTS, DESTINATION] {
            table.put(kind, "x", &[], "2");
        }
        assert!(push(&mut stream, &table).is_empty(), "the destination would overtake its endpoints");
        stream.request(reply(&first[0], None)).unwrap();
        assert_eq!(drain(&mut stream, &table), ["Endpoints +x", "Destination +x"]);
    }

    #[test]
    fn a_resumed_stream_says_only_what_differs() {
        let mut table = Table::default();
        for (name, alias) in [("a/same", "same.a"), ("a/changed", "changed.a"), ("a/late", "late.a")] {
            table.put(DESTINATION, name, &[alias], "now");
        }
        let version = |name: &str| table.0[&(DESTINATION, name.to_owned())].version.clone();
        let known = [
            ("same.a", version("a/same")),
            ("changed.a", "old".to_owned()),
            ("gone.a", "old".to_owned()),
            ("never.a", String::new()),
            ("late.a", String::new()),
        ];
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let mut resumption = subscribe(DESTINATION, &names);
        resumption.initial_resource_versions = known.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        let mut stream = Stream::new(&SELVEDGE);
        stream.request(resumption).unwrap();
        assert_eq!(drain(&mut stream, &table), ["Destination +a/changed +a/late", "Destination -gone.a"]);
        let confirmed: Vec<String> = stream.confirmed().iter().map(|resource| resource.name.clone()).collect();
        assert_eq!(confirmed, ["a/same"]);
        assert!(stream.confirmed().is_empty());
    }

    #[test]
    fn a_client_that_gives_a_resource_up_holds_it_no_more() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        table.put(DESTINATION, "a/web", &["web.a", "10.0.0.1:80"], "1");
        stream.request(subscribe(DESTINATION, &["web.a", "10.0.0.1:80"])).unwrap();
        let give_up = |stream: &mut Stream, name: &str| {
            let names = vec![name.to_owned()];
            stream
                .request(DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..request(DESTINATION) })
                .unwrap();
            stream.dropped()
        };
        let sent = push(&mut stream, &table).remove(0);
        assert!(give_up(&mut stream, "web.a").is_empty(), "another name still stands for it");
        assert_eq!(give_up(&mut stream, "10.0.0.1:80"), [(DESTINATION, "a/web".to_owned())]);
        let late = stream.request(reply(&sent, None)).unwrap().unwrap();
        assert!(late.taken.is_empty(), "an answer that was under way does not bring it back");

        table.put(DESTINATION, "a/api", &[], "1");
        stream.request(subscribe(DESTINATION, &["web.a", "a/api"])).unwrap();
        let both = push(&mut stream, &table).remove(0);
        give_up(&mut stream, "web.a");
        let mut nack = reply(&both, Some("a/web is bad"));
        let refusal = Refusal { resources: vec!["a/web".into()] };
        let detail = prost_types::Any { type_url: Refusal::type_url(), value: refusal.encode_to_vec() };
        nack.error_detail.as_mut().unwrap().details.push(detail);
        let late = stream.request(nack).unwrap().unwrap();
        assert_eq!((late.taken.len(), late.refused.len()), (1, 0), "only what it gave up was refused");

        stream.request(subscribe(DESTINATION, &["web.a"])).unwrap();
        drain(&mut stream, &table);
        table.remove(DESTINATION, "a/web");
        drain(&mut stream, &table);
        assert_eq!(stream.dropped(), [(DESTINATION, "a/web".to_owned())], "told that it is gone");
    }

    #[test]
    fn large_answers_come_in_bounded_responses() {
        let (mut stream, mut table) = (Stream::new(&SELVEDGE), Table::default());
        let names: Vec<String> = (0..8).map(|n| format!("a/d{n}")).collect();
        for name in &names {
            table.put(DESTINATION, name, &[], &"x".repeat(RESPONSE_BYTES / 2));
        }
        stream.request(subscribe(DESTINATION, &names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        let sizes: Vec<usize> = drain(&mut stream, &table).iter().map(|said| said.matches('+').count()).collect();
        assert_eq!(sizes, [2, 2, 2, 2]);
    }

    #[test]
    fn requests_that_break_the_protocol_are_errors() {
        let mut stream = Stream::new(&SELVEDGE);
        let unknown = DeltaDiscoveryRequest { type_url: "x".into(), ..DeltaDiscoveryRequest::default() };
        assert_eq!(stream.request(unknown), Err(RequestError::UnknownType("x".into())));
        let long = "x".repeat(MAX_NAME + 1);
        assert_eq!(stream.request(subscribe(INBOUND, &[&long])), Err(RequestError::LongName(INBOUND)));
        for (kind, names) in [(ENDPOINTS, 0..MAX_NAMES / 2), (DESTINATION, MAX_NAMES / 2..MAX_NAMES)] {
            let many = names.map(|n| n.to_string()).collect();
            stream.request(DeltaDiscoveryRequest { resource_names_subscribe: many, ..request(kind) }).unwrap();
        }
        let one_more = stream.request(subscribe(TRUST_BUNDLE, &["mesh.local"]));
        assert_eq!(one_more, Err(RequestError::TooManyNames), "the limit is of the stream, not of each kind");
    }

    #[test]
    fn names_weigh_what_they_take_and_nothing_once_they_are_given_up() {
        let mut stream = Stream::new(&SELVEDGE);
        let resumed = HashMap::from([("a/web".to_owned(), "x".repeat(1 << 20))]);
        let known = DeltaDiscoveryRequest { initial_resource_versions: resumed, ..request(DESTINATION) };
        for names in [vec!["a/web".to_owned()], vec!["a/web".to_owned(), "a/api".to_owned()]] {
            let weighed = names.len() * (NAME_COST + 5);
            stream.request(DeltaDiscoveryRequest { resource_names_subscribe: names, ..known.clone() }).unwrap();
            assert_eq!(stream.weight(), weighed, "a name counts once, a version that is none of ours not at all");
        }
        let unsubscribe = vec!["a/web".to_owned(), "a/api".to_owned(), "never".to_owned()];
        stream
            .request(DeltaDiscoveryRequest { resource_names_unsubscribe: unsubscribe, ..request(DESTINATION) })
            .unwrap();
        assert_eq!(stream.weight(), 0);

        let names: Vec<String> = (0..MAX_NAMES).map(|n| n.to_string()).collect();
        for gone in [Vec::new(), names.clone()] {
            let asked = if gone.is_empty() { names.clone() } else { Vec::new() };
            let request = DeltaDiscoveryRequest { resource_names_subscribe: asked, ..request(DESTINATION) };
            stream.request(DeltaDiscoveryRequest { resource_names_unsubscribe: gone, ..request }).unwrap();
        }
        assert_eq!(stream.subscription(DESTINATION).unwrap().asked.capacity(), 0, "and they take nothing");
    }
}
