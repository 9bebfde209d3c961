//! Endpoints as sidecars are told of them that know none without a sidecar.

use prost::Message;
use selvedge_xds::{
    proto::mesh::{Endpoint, Endpoints},
    resource::Encoded,
};

use super::{Forms, Told};

/// The endpoints without those that would be called in plaintext also where the outbound mode is REQUIRE.
pub(super) fn told(resource: &Encoded) -> Told {
    let Ok(mut message) = Endpoints::decode(resource.body.clone()) else { return Told::default() };
    let all = message.endpoints.len();
    message.endpoints.retain(|endpoint| !is_unmeshed(endpoint));
    let left_out = all - message.endpoints.len();
    if left_out == 0 {
        return Told::default();
    }
    let complaint =
        format!("outbound mode REQUIRE at endpoints without a sidecar; {left_out} of {} are left out", resource.name);
    let resource = Encoded::new(resource.kind, &*resource.name, resource.aliases.clone(), &message);
    Told { resource: Some(resource), forms: Forms::default(), complaints: vec![complaint] }
}

/// True for one of the mesh: what is outside has no port of an application.
fn is_unmeshed(endpoint: &Endpoint) -> bool {
    endpoint.port != 0 && endpoint.identity.is_empty()
}
