//! The images of a mesh, each by its digest: a name that means the same bytes everywhere and always.

use std::collections::BTreeMap;

/// The image of the sidecar.
pub const SIDECAR: &str = "selvedge-proxy";
/// The image of the control plane.
pub const CONTROL_PLANE: &str = "selvedge";
/// The image of the container that loads capture rules.
pub const CAPTURE: &str = "selvedge-capture";
/// The image of the plugin that has nodes load capture rules.
pub const CNI: &str = "selvedge-cni";

/// What was built, and where nodes pull it from.
#[derive(Clone, Debug)]
pub struct Images {
    registry: String,
    digests: BTreeMap<String, String>,
}

/// Why an image has no name that could be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The list cannot be read.
    #[error(
        "the list of images cannot be read: {0}; expected what `make image` writes, such as {{\"selvedge\": \"sha256:...\"}}"
    )]
    List(String),
    /// An image is named by something that may change.
    #[error(
        "the image {name} has '{digest}' for a digest: expected sha256: and 64 digits 0-9a-f, as `make image` writes it"
    )]
    Digest {
        /// The image.
        name: String,
        /// What stands in the place of its digest.
        digest: String,
    },
    /// An image is not listed.
    #[error("the list of images has no {0}: run `make image`, and give its images.json")]
    Missing(&'static str),
    /// The place they are pulled from is none.
    #[error("'{0}' is no place of images: expected a host and a path without a scheme, such as registry.example/mesh")]
    Registry(String),
}

impl Images {
    /// Those of a list, `images.json` of `make image`, which are at `registry`: a host and a path.
    ///
    /// # Errors
    /// A list that cannot be read, or that has something else than digests.
    pub fn read(list: &str, registry: &str) -> Result<Self, ImageError> {
        let is_place = !registry.is_empty() && !registry.contains("://") && !registry.contains([' ', '@']);
        if !is_place || registry.ends_with('/') {
            return Err(ImageError::Registry(registry.to_owned()));
        }
        let digests: BTreeMap<String, String> =
            serde_json::from_str(list).map_err(|error| ImageError::List(error.to_string()))?;
        if let Some((name, digest)) = digests.iter().find(|(_, digest)| !is_digest(digest)) {
            return Err(ImageError::Digest { name: name.clone(), digest: digest.clone() });
        }
        Ok(Self { registry: registry.to_owned(), digests })
    }

    /// The image of that name, as a node pulls it.
    ///
    /// # Errors
    /// It is not in the list.
    pub fn reference(&self, name: &'static str) -> Result<String, ImageError> {
        let digest = self.digests.get(name).ok_or(ImageError::Missing(name))?;
        Ok(format!("{}/{name}@{digest}", self.registry))
    }
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(digest: &str) -> String {
        format!("{{\"{SIDECAR}\": \"{digest}\"}}")
    }

    #[test]
    fn images_are_named_by_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let images = Images::read(&list(&digest), "registry.example/mesh").unwrap();
        assert_eq!(images.reference(SIDECAR), Ok(format!("registry.example/mesh/{SIDECAR}@{digest}")));
        let missing = images.reference(CAPTURE).unwrap_err().to_string();
        assert!(missing.contains("no selvedge-capture") && missing.contains("make image"), "{missing}");
    }

    #[test]
    fn what_may_change_is_refused_with_what_to_do() {
        for digest in ["latest", "sha256:12", &format!("sha256:{}", "G".repeat(64))] {
            let refused = Images::read(&list(digest), "registry.example/mesh").unwrap_err().to_string();
            assert!(refused.contains(digest) && refused.contains("make image"), "{refused}");
        }
        for registry in ["", "https://registry.example", "registry.example/", "a b"] {
            assert!(Images::read("{}", registry).is_err(), "{registry}");
        }
        assert!(Images::read("nothing", "registry.example").unwrap_err().to_string().contains("make image"));
    }
}
