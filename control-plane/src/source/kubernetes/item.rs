//! One object of a list or a watch. One that is not what its kind is to be is a finding about itself, and costs no other.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::pruned::{Api, Aside, Key, Pruned, Version};
use crate::source::{Held, Reading, Unread};

/// An object as it was read, or what is known of one that could not be.
#[derive(Clone, Debug)]
pub(super) enum Item<T> {
    /// It is what its kind is to be.
    Read(T),
    /// It is not; what it said last stays in force.
    Odd {
        /// Its namespace and name.
        key: Key,
        /// Its version.
        version: Version,
        /// What is wrong with it, in words for people.
        why: String,
    },
}

impl<'de, T: Pruned> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |field: &str| value.get("metadata")?.get(field)?.as_str();
        match T::deserialize(&value) {
            Ok(object) => Ok(Self::Read(object)),
            Err(error) => {
                let name = text("name").ok_or_else(|| D::Error::custom("an object without metadata.name"))?;
                let key = Key::new(text("namespace").unwrap_or_default(), name);
                let version = Version::new(text("resourceVersion").unwrap_or_default().to_owned());
                Ok(Self::Odd { key, version, why: error.to_string() })
            }
        }
    }
}

impl<T: Pruned> Pruned for Item<T> {
    fn key(&self) -> Key {
        match self {
            Self::Read(object) => object.key(),
            Self::Odd { key, .. } => key.clone(),
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::Read(object) => object.version(),
            Self::Odd { version, .. } => version.clone(),
        }
    }

    fn aside(&self) -> Option<Aside> {
        match self {
            Self::Read(object) => object.aside(),
            Self::Odd { .. } => None,
        }
    }

    fn reading(self, api: &Api) -> Reading {
        match self {
            Self::Read(object) => object.reading(api),
            Self::Odd { key, why, .. } => {
                let why = format!("this cannot be read, so what it said last stays in force: {why}");
                Reading::unread(&key.of(api.kind), &Unread { why: why.into(), held: Held::Lost })
            }
        }
    }
}
