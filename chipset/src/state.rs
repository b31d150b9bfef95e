//! Saved state: each device has a versioned section of its own, so that an old snapshot stays
//! readable and a wrong one is refused by name.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One device's saved state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Version of the layout of `data`.
    pub version: u32,
    /// The device's own saved struct, in postcard's encoding.
    pub data: Vec<u8>,
}

/// Why a section was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StateError {
    /// The section was written by a later version of the device.
    #[error("State has version {found}, this program knows up to {known}")]
    Version {
        /// The section's version.
        found: u32,
        /// The latest version that this program knows.
        known: u32,
    },
    /// The bytes are not what the version says.
    #[error("State cannot be decoded")]
    Decode,
    /// The values are ones the device cannot be in.
    #[error("State is impossible: {0}")]
    Impossible(&'static str),
}

impl Section {
    /// Encodes a device's saved struct.
    ///
    /// # Panics
    /// Never for plain structs: postcard fails only on types without a length, which have no place
    /// in saved state.
    #[must_use]
    pub fn encode<T: Serialize>(version: u32, saved: &T) -> Self {
        let data = postcard::to_stdvec(saved).unwrap_or_default();
        debug_assert!(!data.is_empty(), "saved state cannot be encoded");
        Self { version, data }
    }

    /// Decodes a device's saved struct, if the section has version `known`.
    ///
    /// # Errors
    /// Another version, or bytes that are not such a struct.
    pub fn decode<T: DeserializeOwned>(&self, known: u32) -> Result<T, StateError> {
        if self.version != known {
            return Err(StateError::Version { found: self.version, known });
        }
        postcard::from_bytes(&self.data).map_err(|_| StateError::Decode)
    }
}

/// Something whose state can be taken out and put into a new one of its kind. Restoring must not
/// drive interrupt lines: the router restores their levels itself.
pub trait SaveRestore {
    /// The whole state, in a form that compares equal exactly when the states do.
    fn save(&self) -> Section;

    /// Takes the state of a section.
    ///
    /// # Errors
    /// The section is not one of this device, or of an unknown version; nothing was changed.
    fn restore(&mut self, section: &Section) -> Result<(), StateError>;
}
