//! What became of single objects, for the log and the audit log: whoever asks later what was in force when reads it there.

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use selvedge_identity::audit::{self, Happening, Version};
use selvedge_policies::{
    policy::{Posture, Weighed},
    registry,
    settings::Modes,
};
use serde_json::Value;

use crate::{
    audit::{AuditLog, Of},
    model::{Object, ObjectId, Spec},
    source::{ClusterObject, Provenance},
};

/// One object that a commit put in force or took away.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: ObjectId,
    pub(super) file: Arc<str>,
    /// The generation in force now; of an object that was removed the last one.
    pub(super) generation: u64,
    pub(super) fate: Fate,
    /// Of one that was removed what is open without it, as the end of a sentence.
    pub(super) opened: String,
    /// Where the version comes from that is in force now; of one that was removed the last.
    pub(super) provenance: Provenance,
    pub(super) documents: Documents,
    /// Of a mesh policy how what it covers worked before, and works now.
    pub(super) modes: Option<(Modes, Modes)>,
    /// False for what a cluster makes by itself.
    pub(super) is_written: bool,
}

/// The versions of an object before and after, as JSON.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) before: Option<Arc<str>>,
    pub(super) after: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Accepted,
    Changed,
    Removed,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}

/// Whether somebody has written it: pods, nodes and where endpoints are a cluster says by itself, and often.
pub(super) const fn is_written(object: &Object) -> bool {
    match &object.spec {
        Spec::EndpointSlice(_) | Spec::Node(_) => false,
        Spec::Workload(workload) => !workload.pod,
        _ => true,
    }
}

impl Event {
    pub(super) fn log(&self) {
        let Self { id, file, generation, fate, .. } = self;
        let opened = Some(self.opened()).filter(|opened| !opened.is_empty());
        tracing::info!(object = %id, generation, %file, opened, "object {fate}");
    }

    /// Writes it into the audit log: who wrote it, where, and what it opens and closes. What that takes is only done where
    /// there is leave to write.
    pub(super) fn put_on_record(&self, audit: &AuditLog) {
        let Some(leave) = self.is_written.then(|| audit.leave(Of::Authors, (&self.id, self.fate))).flatten() else {
            return;
        };
        let Weighed { opens, closes } = self.weighed();
        let (source, resource_version) = match &self.provenance {
            Provenance::Cluster(ClusterObject { name, resource_version, .. }) => {
                (name.to_string(), &**resource_version)
            }
            Provenance::File(_) | Provenance::Remembered(_) => {
                let place = self.provenance.place("");
                (if place.line > 0 { format!("{}:{}", place.file, place.line) } else { place.file }, "")
            }
        };
        let happening = match self.fate {
            Fate::Accepted => Happening::ObjectAccepted,
            Fate::Changed => Happening::ObjectChanged,
            Fate::Removed => Happening::ObjectRemoved,
        };
        let event = audit::Event {
            subject: self.author().into(),
            object: self.id.to_string().into(),
            version: Version {
                generation: self.generation,
                source: &source,
                resource_version,
                opens: &opens.join("; "),
                closes: &closes.join("; "),
            },
            ..leave.event(happening)
        };
        audit.write(&leave, &event);
    }

    fn opened(&self) -> &str {
        self.opened.trim_start_matches("; ")
    }

    /// Who wrote the version, as far as the source says; who took one away it never does.
    fn author(&self) -> String {
        match &self.provenance {
            _ if self.fate == Fate::Removed => String::new(),
            Provenance::File(_) => {
                let owner = fs::metadata(Path::new(&*self.file)).map(|file| file.uid());
                owner.map(audit::user).unwrap_or_default()
            }
            Provenance::Cluster(object) => object.manager.to_string(),
            Provenance::Remembered(_) => String::new(),
        }
    }

    fn weighed(&self) -> Weighed {
        let spec = |document: &Option<Arc<str>>| {
            let document: Option<Value> = document.as_ref().and_then(|text| serde_json::from_str(text).ok());
            document.map(|mut document| document["spec"].take())
        };
        let Documents { before, after } = &self.documents;
        let kind = registry::find(self.id.kind);
        let mut weighed =
            kind.map(|kind| (kind.weigh)(spec(before).as_ref(), spec(after).as_ref())).unwrap_or_default();
        if !self.opened().is_empty() {
            weighed.opens.push(self.opened().to_owned());
        }
        if let Some((before, after)) = self.modes {
            switched(before, after, &mut weighed);
        }
        weighed
    }
}

/// What other settings of a mesh policy let pass, and what not any more.
fn switched(before: Modes, after: Modes, weighed: &mut Weighed) {
    let closed = |modes: Modes| modes.posture == Posture::Deny;
    let switches = [
        (before.permissive, after.permissive, "calls to what it covers without mTLS"),
        (
            before.passthrough,
            after.passthrough,
            "calls of what it covers to destinations outside the mesh in plaintext",
        ),
        (!closed(before), !closed(after), "calls to what it covers that no ALLOW rule names, where no ALLOW policy is"),
    ];
    for (was_open, is_open, what) in switches {
        match (was_open, is_open) {
            (false, true) => weighed.opens.push(what.to_owned()),
            (true, false) => weighed.closes.push(what.to_owned()),
            _ => {}
        }
    }
}
