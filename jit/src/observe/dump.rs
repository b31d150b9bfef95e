//! Listings in files, one for each page of guest code.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::listing::Listing;

/// Where listings go.
pub(super) enum Dump {
    /// A folder.
    Folder(PathBuf),
    /// A text.
    Text(String),
}

impl Dump {
    /// One that is made if it is not there. Listings of earlier runs stay.
    pub(super) fn new(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self::Folder(folder.into()))
    }

    /// One that collects them.
    pub(super) fn collecting() -> Self {
        Self::Text(String::new())
    }

    /// What was collected, if there was anything.
    pub(super) fn collected(&mut self) -> Option<String> {
        match self {
            Self::Text(text) => Some(std::mem::take(text)).filter(|text| !text.is_empty()),
            Self::Folder(_) => None,
        }
    }

    /// Adds a listing to the file of its page.
    pub(super) fn write(&mut self, listing: &Listing<'_>) {
        let folder = match self {
            Self::Text(text) => return text.push_str(&listing.text()),
            Self::Folder(folder) => folder,
        };
        let name = format!("{:016x}.txt", listing.block.rip & !0xfff);
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(listing.text().as_bytes()));
        if let Err(error) = written {
            log::warn!("--jit-dump {}: cannot be written: {error}", path.display());
        }
    }
}
