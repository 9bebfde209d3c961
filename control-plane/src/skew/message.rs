//! A whole resource: every document attached to it, and the list of what cannot be enforced.

use prost::Message;
use selvedge_xds::{
    capability::Capabilities,
    proto::mesh::{Attachment, Destination, Inbound, Origin, Unenforceable},
    resource::Encoded,
};

use super::{
    Form, Forms, Told, closed,
    document::{Fate, Instead, fate},
};

/// One resource under way.
pub(super) struct Translation<'a> {
    knows: &'a Capabilities,
    before: &'a Forms,
    forms: Forms,
    kept: Forms,
    unenforceable: Vec<Unenforceable>,
    /// The first object in whose name everything is refused.
    refused: Option<Origin>,
    changed: bool,
}

impl<'a> Translation<'a> {
    pub(super) fn new(knows: &'a Capabilities, before: &'a Forms) -> Self {
        let (forms, kept, unenforceable) = (Forms::default(), Forms::default(), Vec::new());
        Self { knows, before, forms, kept, unenforceable, refused: None, changed: false }
    }

    /// What came of it, with the resource that is told.
    pub(super) fn end(self, resource: Option<Encoded>) -> Told {
        let complaint = |object: &Unenforceable| {
            let Origin { kind, namespace, name, generation } = object.origin.clone().unwrap_or_default();
            let Unenforceable { unknown, instead, .. } = object;
            format!("{kind} {namespace}/{name} generation {generation}: '{unknown}' is not known to it; {instead}")
        };
        let complaints = self.unenforceable.iter().map(complaint).collect();
        Told { resource, forms: self.forms, kept: self.kept, complaints }
    }

    /// A service that is called. What refuses cannot be said to callers of every release but by its routes.
    pub(super) fn destination(&mut self, resource: &Encoded) -> Option<Encoded> {
        let mut message = Destination::decode(resource.body.clone()).ok()?;
        message.policies = self.attached(message.policies);
        if let Some(object) = self.refused.take() {
            message.routes = vec![closed::service(&object, &message.name)];
        } else {
            message.routes = self.attached(message.routes);
        }
        message.unenforceable.clone_from(&self.unenforceable);
        self.changed.then(|| Encoded::new(resource.kind, &*resource.name, resource.aliases.clone(), &message))
    }

    /// A workload's view of itself.
    pub(super) fn inbound(&mut self, resource: &Encoded) -> Option<Encoded> {
        let mut message = Inbound::decode(resource.body.clone()).ok()?;
        message.policies = self.attached(message.policies);
        for port in &mut message.ports {
            port.policies = self.attached(std::mem::take(&mut port.policies));
            port.routes = self.attached(std::mem::take(&mut port.routes));
        }
        message.unenforceable.clone_from(&self.unenforceable);
        self.changed.then(|| Encoded::new(resource.kind, &*resource.name, resource.aliases.clone(), &message))
    }

    fn attached(&mut self, attachments: Vec<Attachment>) -> Vec<Attachment> {
        attachments.into_iter().filter_map(|attachment| self.one(attachment)).collect()
    }

    fn one(&mut self, attachment: Attachment) -> Option<Attachment> {
        let object = attachment.origin.clone().unwrap_or_default();
        let key = format!("{} {}/{}", object.kind, object.namespace, object.name);
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
                    self.forms.0.insert(key.clone(), last.clone());
                }
                if let (Some(last), Instead::LastForm(_)) = (&last, &instead) {
                    self.kept.0.insert(key, last.clone());
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
                (Some(closed::route(object, &document)), "rules it does not know answer with an error".to_owned())
            }
            (Instead::Part(document, words), _) => {
                (Some(Attachment { document: document.to_string(), ..attachment.clone() }), words.to_owned())
            }
        }
    }
}
