//! The last good resources on disk, so that a restarted sidecar serves without a control plane.
//!
//! Guarantees: the file is there whole or not at all; what is read is checked like what comes from the network, so a
//! damaged or outdated file costs nothing but its use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use selvedge_identity::file;
use selvedge_xds::{
    client::Client,
    kinds::SELVEDGE,
    proto::discovery::{DeltaDiscoveryResponse, Resource},
    resource::Encoded,
};

const FILE: &str = "resources.pb";

/// The cache of one state directory.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

impl Cache {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned() }
    }

    /// Every resource of the last life of this sidecar; none when there was none.
    pub(super) fn load(&self) -> io::Result<Vec<Encoded>> {
        let bytes = match fs::read(self.directory.join(FILE)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let stored = DeltaDiscoveryResponse::decode(Bytes::from(bytes)).map_err(io::Error::other)?;
        Ok(stored.resources.into_iter().filter_map(|resource| Encoded::from_wire(resource, &SELVEDGE)).collect())
    }

    /// Replaces what is stored by what `client` holds, with the names it was asked by.
    pub(super) fn store(&self, client: &Client) -> io::Result<()> {
        let resources = client.everything_held().map(|held| stored(client, held));
        let content = DeltaDiscoveryResponse { resources: resources.collect(), ..Default::default() };
        file::create_dir(&self.directory)?;
        file::replace(&self.directory.join(FILE), &content.encode_to_vec())
    }
}

fn stored(client: &Client, resource: &Encoded) -> Resource {
    let names = client.answers(resource.kind).filter(|(_, answer)| answer.held() == Some(&resource.name));
    resource.to_wire(names.map(|(name, _)| name.to_owned()).filter(|name| *name != resource.name).collect())
}
