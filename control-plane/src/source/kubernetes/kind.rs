//! What is watched: one list.

use std::pin::Pin;

use super::{
    document::Document,
    item::Item,
    list,
    namespace::Namespace,
    node::Node,
    pod::Pod,
    pruned::{Api, NAMESPACE, POD, Pruned},
    watch::Watch,
};
use crate::{
    model::{self, node},
    source::Change,
};

/// A kind of the cluster that is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The kind, and where it is listed.
    pub api: Api,
    /// Follows what there is of it, until nobody listens any more.
    pub(super) follow: fn(Watch) -> Boxed<()>,
    /// Tells all that there is of it now.
    pub(super) read: fn(kube::Client, Api) -> Boxed<kube::Result<Vec<Change>>>,
}

/// What comes of a kind in time.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where pods are listed.
pub(super) fn pods() -> Api {
    api("v1", POD)
}

/// Every kind that is watched: those that tell what the cluster is, and all that users write for the mesh.
pub fn watched() -> Vec<Watched> {
    let of_cluster = [of::<Pod>(pods()), of::<Namespace>(api("v1", NAMESPACE)), of::<Node>(api("v1", node::KIND.name))];
    let written = model::kinds().filter(|kind| kind.name != node::KIND.name);
    let written = written.map(|kind| of::<Document>(api(kind.api_version, kind.name)));
    of_cluster.into_iter().chain(written).collect()
}

fn of<T: Pruned>(api: Api) -> Watched {
    Watched {
        api,
        follow: |watch| Box::pin(watch.follow::<Item<T>>()),
        read: |client, api| Box::pin(list::told::<Item<T>>(client, api)),
    }
}

fn api(api_version: &'static str, kind: &'static str) -> Api {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    Api { kind, api_version, path: format!("/{root}/{api_version}/{}", plural(kind)) }
}

/// The name of a kind in the paths of its API, such as `meshpolicies` for `MeshPolicy`.
pub fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_users_write_is_watched_where_its_api_lists_it() {
        let paths: Vec<String> = watched().into_iter().map(|watched| watched.api.path).collect();
        for expected in [
            "/api/v1/services",
            "/api/v1/pods",
            "/api/v1/nodes",
            "/api/v1/namespaces",
            "/apis/gateway.networking.k8s.io/v1/httproutes",
            "/apis/selvedge.dev/v1alpha1/authorizationpolicies",
            "/apis/selvedge.dev/v1alpha1/meshpolicies",
            "/apis/selvedge.dev/v1alpha1/ratelimits",
        ] {
            assert!(paths.iter().any(|path| path == expected), "{expected} is not among {paths:?}");
        }
        assert_eq!(paths.len(), 2 + model::kinds().count());
    }
}
