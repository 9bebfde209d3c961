//! Where the settings of sidecars are in a cluster.

use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use selvedge_inject::setting::{GROUP, KIND, VERSION};

use super::plural;

/// The objects with settings of sidecars in that namespace; one of them counts.
pub(crate) fn configs(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), &plural(KIND));
    Api::namespaced_with(client.clone(), namespace, &resource)
}
