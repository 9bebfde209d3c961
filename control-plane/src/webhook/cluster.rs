//! What an answer needs of the cluster: the labels of a namespace, and the settings. Both are read for each pod, for pods
//! are created seldom, and an answer of what was there before is wrong for good.

use k8s_openapi::api::core::v1::Namespace as NamespaceObject;
use kube::{Api, Client};
use selvedge_inject::{
    pod::Namespace,
    setting::{KIND, NAME, NAMESPACE, Settings},
};

use crate::source::kubernetes;

/// The cluster around.
pub(super) struct Cluster {
    client: Client,
}

impl Cluster {
    pub(super) fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// A namespace, and the settings; there need be none.
    ///
    /// # Errors
    /// What the API server says.
    pub(super) async fn look_up(&self, namespace: &str) -> Result<(Namespace, Settings), String> {
        let namespaces = Api::<NamespaceObject>::all(self.client.clone());
        let settings = kubernetes::injection_configs(&self.client, NAMESPACE);
        let failed = |what: &str, error: &kube::Error| format!("reading {what} failed: {}", kubernetes::explain(error));
        let (found, settings) = tokio::join!(namespaces.get(namespace), settings.get_opt(NAME));
        let found = found.map_err(|error| failed(&format!("the namespace {namespace}"), &error))?;
        let settings = settings.map_err(|error| failed(&format!("the {KIND} {NAMESPACE}/{NAME}"), &error))?;
        let labels = found.metadata.labels.unwrap_or_default();
        let labels = labels.into_iter().map(|(label, value)| (label, value.into())).collect();
        let settings = settings.map(|object| Settings::of(&object.data)).unwrap_or_default();
        Ok((Namespace { name: namespace.to_owned(), labels }, settings))
    }
}
