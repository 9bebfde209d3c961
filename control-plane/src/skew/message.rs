//! A whole resource: every document attached to it, and the list of what cannot be enforced.

use prost::Message;
use selvedge_decide::capabilities::STAYS_ON_NODE;
use selvedge_policies::{kind::vocabulary, settings};
use selvedge_xds::{
    capability::Capabilities,
    kinds,
    proto::mesh::{Attachment, Destination, Inbound, InternalTrafficPolicy, Origin, SettingOrigin, Unenforceable},
    resource::Encoded,
};

use super::{
    Form, Forms, OLDEST, Told,
    closed::{self, Claim},
    document::{Fate, Instead, fate},
};

/// One resource under way.
pub(super) struct Translation<'a> {
    knows: &'a Capabilities,
    before: &'a Forms,
    forms: Forms,
    unenforceable: Vec<Unenforceable>,
    /// The first object in whose name everything is refused.
    refused: Option<Origin>,
    /// What rules claim that are told with less than their conditions, and the first object that has some.
    claims: Vec<Claim>,
    claimant: Option<Origin>,
    changed: bool,
}

impl<'a> Translation<'a> {
    pub(super) fn new(knows: &'a Capabilities, before: &'a Forms) -> Self {
        let (forms, unenforceable) = (Forms::default(), Vec::new());
        let (refused, claims, claimant) = (None, Vec::new(), None);
        Self { knows, before, forms, unenforceable, refused, claims, claimant, changed: false }
    }

    /// What came of it, with the resource that is told.
    pub(super) fn end(self, resource: Option<Encoded>) -> Told {
        let complaint = |object: &Unenforceable| {
            let Unenforceable { origin, unknown, instead } = object;
            let origin = origin.clone().unwrap_or_default();
            let (object, generation) = (kinds::object(&origin), origin.generation);
            format!("{object} generation {generation}: '{unknown}' is not known to it; {instead}")
        };
        let complaints = self.unenforceable.iter().map(complaint).collect();
        Told { resource, forms: self.forms, complaints }
    }

    /// A service that is called. What refuses cannot be said to callers of every release but by its routes.
    pub(super) fn destination(&mut self, resource: &Encoded) -> Option<Encoded> {
        let mut message = Destination::decode(resource.body.clone()).ok()?;
        message.policies = self.attached(message.policies);
        for port in &mut message.address_ports {
            port.policies = self.attached(std::mem::take(&mut port.policies));
        }
        if let Some(object) = self.refused.take() {
            message.routes = vec![closed::service(&object, &message.name)];
        } else {
            message.routes = self.routed(message.routes);
        }
        self.near(&message);
        message.unenforceable.clone_from(&self.unenforceable);
        self.changed.then(|| Encoded::new(resource.kind, &*resource.name, resource.aliases.clone(), &message))
    }

    /// Notes that calls do not stay on their node where they should.
    fn near(&mut self, message: &Destination) {
        let (kind, word) = STAYS_ON_NODE;
        let is_known = self.knows.0.get(kind).is_some_and(|words| words.contains(word));
        if is_known || message.internal_traffic_policy() != InternalTrafficPolicy::Local {
            return;
        }
        let instead = "calls go to the endpoints of every node".to_owned();
        let unknown = word.replace('=', ": ");
        self.unenforceable.push(Unenforceable { origin: message.origin.clone(), unknown, instead });
        self.changed = true;
    }

    /// A workload's view of itself.
    pub(super) fn inbound(&mut self, resource: &Encoded) -> Option<Encoded> {
        let mut message = Inbound::decode(resource.body.clone()).ok()?;
        message.policies = self.attached(message.policies);
        self.settings(&mut message);
        for port in &mut message.ports {
            port.policies = self.attached(std::mem::take(&mut port.policies));
            port.routes = self.routed(std::mem::take(&mut port.routes));
        }
        message.unenforceable.clone_from(&self.unenforceable);
        self.changed.then(|| Encoded::new(resource.kind, &*resource.name, resource.aliases.clone(), &message))
    }

    /// Leaves out of the settings what is not known. Who wrote it is told, and nothing else is taken for it.
    fn settings(&mut self, message: &mut Inbound) {
        let words = self.knows.0.get(settings::KIND).or_else(|| OLDEST.enforces.get(settings::KIND));
        let (Some(words), Ok(mut document)) = (words, serde_json::from_str(&message.settings)) else { return };
        let left_out = vocabulary::reduce(words, &mut document);
        if left_out.is_empty() {
            return;
        }
        message.settings = document.to_string();
        self.changed = true;
        for unknown in left_out {
            let is_of = |from: &SettingOrigin| is_within(&from.field, vocabulary::field(&unknown));
            let from = std::mem::take(&mut message.settings_from).into_iter();
            let (lost, kept): (Vec<_>, Vec<_>) = from.partition(is_of);
            message.settings_from = kept;
            for SettingOrigin { origin, .. } in lost {
                let note = Unenforceable { origin, unknown: unknown.clone(), instead: "it is left out".to_owned() };
                if !self.unenforceable.contains(&note) {
                    self.unenforceable.push(note);
                }
            }
        }
    }

    fn attached(&mut self, attachments: Vec<Attachment>) -> Vec<Attachment> {
        attachments.into_iter().filter_map(|attachment| self.one(attachment)).collect()
    }

    /// Routes in one table: where one of them is told with less than its conditions, rules of all of them give way.
    fn routed(&mut self, attachments: Vec<Attachment>) -> Vec<Attachment> {
        let told = self.attached(attachments);
        let claims = std::mem::take(&mut self.claims);
        let Some(claimant) = self.claimant.take() else { return told };
        told.into_iter().map(|attachment| self.yielding(attachment, &claims, &claimant)).collect()
    }

    fn yielding(&mut self, attachment: Attachment, claims: &[Claim], claimant: &Origin) -> Attachment {
        let document = serde_json::from_str(&attachment.document).unwrap_or_default();
        let Some(document) = closed::yielding(&document, claims) else { return attachment };
        let Attachment { origin, stands_for, .. } = attachment;
        let is_noted = stands_for.is_some();
        let object = stands_for.or(origin).unwrap_or_default();
        let told = closed::route(&object, &document);
        let unknown = format!("a rule of {}", kinds::object(claimant));
        let instead = "rules that might take its requests answer with an error".to_owned();
        let note = Unenforceable { origin: Some(object), unknown, instead };
        if !is_noted && !self.unenforceable.contains(&note) {
            self.unenforceable.push(note);
        }
        told
    }

    fn one(&mut self, attachment: Attachment) -> Option<Attachment> {
        let object = attachment.origin.clone().unwrap_or_default();
        let key = kinds::object(&object);
        match fate(&attachment, self.knows) {
            Fate::Known(known) => {
                self.changed |= known != attachment;
                let form = Form { generation: object.generation, document: known.document.clone() };
                self.forms.0.insert(key, form);
                Some(known)
            }
            Fate::Unknown(unknown, instead) => {
                self.changed = true;
                let last = self.before.0.get(&key).cloned();
                if let Some(last) = &last {
                    self.forms.0.insert(key, last.clone());
                }
                let (told, words) = self.told(&attachment, &object, instead, last);
                let note = Unenforceable { origin: Some(object), unknown, instead: words };
                if !self.unenforceable.contains(&note) {
                    self.unenforceable.push(note);
                }
                told
            }
        }
    }

    /// What is told in place of an attachment, and that in words.
    fn told(
        &mut self,
        attachment: &Attachment,
        object: &Origin,
        instead: Instead,
        last: Option<Form>,
    ) -> (Option<Attachment>, String) {
        match (instead, last) {
            (Instead::LastForm(_), Some(last)) => {
                let Form { generation, document } = last;
                let origin = Some(Origin { generation, ..object.clone() });
                let told = Attachment { origin, document, ..attachment.clone() };
                (Some(told), format!("generation {generation} stays in force"))
            }
            (Instead::LastForm(instead), None) => self.told(attachment, object, *instead, None),
            (Instead::Refused, _) => {
                self.refused.get_or_insert_with(|| object.clone());
                (Some(closed::policy(object)), "all that it is attached to is refused".to_owned())
            }
            (Instead::LeftOut, _) => (None, "it is left out".to_owned()),
            (Instead::Rules(document), _) => {
                let written = serde_json::from_str(&attachment.document).unwrap_or_default();
                self.claims.extend(closed::claims(&written, &document));
                if !self.claims.is_empty() {
                    self.claimant.get_or_insert_with(|| object.clone());
                }
                (Some(closed::route(object, &document)), "rules it does not know answer with an error".to_owned())
            }
            (Instead::Part(document, words), _) => {
                (Some(Attachment { document: document.to_string(), ..attachment.clone() }), words.to_owned())
            }
        }
    }
}

/// Whether one field is the other, or a part of it; of a list the whole is a field.
fn is_within(field: &str, whole: &str) -> bool {
    let rest = |text: &str, start: &str| {
        text.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    rest(field, whole) || rest(whole, field)
}
