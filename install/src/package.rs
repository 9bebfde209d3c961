//! Everything that makes a mesh of a cluster, in an order in which it may be applied.

use serde_json::Value;

use crate::{
    cni, control_plane, crd,
    images::{ImageError, Images},
    injection::{self, Capture},
    rights,
    version::Injector,
};

/// What an administrator chooses for a cluster.
#[derive(Clone, Debug)]
pub struct Package {
    /// The programs, by digest.
    pub images: Images,
    /// How connections reach sidecars that say nothing else.
    pub capture: Capture,
    /// What puts sidecars into pods.
    pub injector: Injector,
}

impl Package {
    /// The objects: what others need comes before them, and injection last.
    ///
    /// # Errors
    /// An image that is not listed.
    pub fn objects(&self) -> Result<Vec<Value>, ImageError> {
        // What changes nodes needs more than pods may have otherwise.
        let security = if self.capture == Capture::Cni { "privileged" } else { "restricted" };
        let mut objects = vec![control_plane::namespace(security)];
        objects.extend(crd::all());
        objects.push(crd::injection_config());
        objects.extend(rights::objects(self.injector));
        let settings = injection::settings(&self.images, self.capture)?;
        objects.extend(control_plane::objects(&self.images, self.injector, &settings)?);
        if self.capture == Capture::Cni {
            objects.push(cni::object(&self.images)?);
        }
        objects.extend(injection::objects(self.injector));
        Ok(objects)
    }
}
