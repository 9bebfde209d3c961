//! What is known of a message beside the message.

use http::{Request, Version};

use super::case::Spelling;

/// What whoever has read a request tells of it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The version the caller spoke, where it is not that of the message: a sidecar asks on its behalf.
    pub version: Option<Version>,
    /// How the names of its head were written.
    pub spelling: Option<Spelling>,
    /// What its head takes.
    pub size: Size,
}

/// Bytes of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// As they are held, with what RFC 7541 section 4.1 adds for each field.
    pub held: usize,
    /// As they were sent.
    pub sent: usize,
}

impl Size {
    /// That of a head of which as much was sent as is held.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
        let target = request.uri();
        let target = target.authority().map_or(0, |authority| authority.as_str().len())
            + target.path_and_query().map_or(0, |target| target.as_str().len());
        let held = request.method().as_str().len() + target + fields.sum::<usize>();
        Self { held, sent: held }
    }

    /// The size of a head that came in so many bytes, packed or in another form than it is held in.
    pub(crate) const fn sent_as(self, sent: usize) -> Self {
        Self { sent, ..self }
    }
}
