//! What fw_cfg has to tell: items by key, and the directory of those with names.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

/// Keys of the items that have no names. All numbers in them are little-endian.
pub mod key {
    /// `QEMU`.
    pub const SIGNATURE: u16 = 0x00;
    /// The interfaces that there are: 32 bits.
    pub const ID: u16 = 0x01;
    /// Size of RAM in bytes: 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// Number of processors: 16 bits.
    pub const NB_CPUS: u16 = 0x05;
    /// Size of the kernel's protected-mode part: 32 bits.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Size of the initial RAM disk: 32 bits.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// The most processors that there may be: 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel's protected-mode part.
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initial RAM disk.
    pub const INITRD_DATA: u16 = 0x12;
    /// Size of the command line with its NUL: 32 bits.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line with its NUL.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Size of the kernel's real-mode part: 32 bits.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The kernel's real-mode part.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of items with names.
    pub const FILE_DIR: u16 = 0x19;
    /// The first item with a name.
    pub const FILE_FIRST: u16 = 0x20;
    /// Of the architecture: whether IRQ 0 is wired to input 2 of the I/O APIC: 32 bits.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

/// Bit 14 of the selector: "being written", which has no effect any more.
const WRITE_CHANNEL: u16 = 1 << 14;
/// Keys of generic items are below this.
const GENERIC_END: u16 = 0x4000;
/// The length of a name, with its NUL.
const NAME_SIZE: usize = 56;
/// [`key::ID`]: the traditional interface and DMA.
const FEATURES: u32 = 0b11;

/// The bytes of an item that the guest cannot change, shared with whoever has them.
pub type Content = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Why an item was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ItemError {
    /// The name is not one for the directory.
    #[error("is not a name of 1 to 55 printable ASCII characters")]
    Name,
    /// There is one already.
    #[error("is the name of another item")]
    Taken,
    /// There are no keys left, or the item's size is no 32-bit number.
    #[error("finds no room")]
    Room,
}

/// An item.
#[derive(Clone)]
pub(super) enum Item {
    Fixed(Content),
    Writable(Writable),
}

/// An item that the guest may change, but not in size.
#[derive(Clone)]
pub(super) struct Writable {
    /// What it is after a reset.
    pub(super) initial: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    /// Whether the last write was of all bytes.
    pub(super) complete: bool,
}

impl Item {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Fixed(content) => (**content).as_ref(),
            Self::Writable(item) => &item.bytes,
        }
    }
}

/// All items of a machine.
#[derive(Clone)]
pub struct FwCfgItems {
    items: BTreeMap<u16, Item>,
    /// The names of the items from [`key::FILE_FIRST`] on.
    names: Vec<String>,
}

impl FwCfgItems {
    /// The signature, what the device can do, and an empty directory.
    #[must_use]
    pub fn new() -> Self {
        let mut items = Self { items: BTreeMap::new(), names: Vec::new() };
        items.set(key::SIGNATURE, b"QEMU".to_vec());
        items.set(key::ID, FEATURES.to_le_bytes().to_vec());
        items.update_directory();
        items
    }

    /// Sets an item that has no name; see [`key`].
    pub fn set(&mut self, key: u16, bytes: Vec<u8>) {
        self.share(key, Arc::new(bytes));
    }

    /// The same with bytes that others have, too.
    pub fn share(&mut self, key: u16, content: Content) {
        self.items.insert(key & !WRITE_CHANNEL, Item::Fixed(content));
    }

    /// Adds an item with a name, which the guest can only read; gives its key.
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<u16, ItemError> {
        self.add(name, Item::Fixed(Arc::new(bytes)))
    }

    /// Adds an item with a name, which the guest may overwrite; a reset brings `bytes` back.
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn add_writable_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<u16, ItemError> {
        let item = Writable { initial: bytes.clone(), bytes, complete: false };
        self.add(name, Item::Writable(item))
    }

    fn add(&mut self, name: &str, item: Item) -> Result<u16, ItemError> {
        let good =
            (1..NAME_SIZE).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            return Err(ItemError::Name);
        }
        if self.key_of(name).is_some() {
            return Err(ItemError::Taken);
        }
        let key = usize::from(key::FILE_FIRST) + self.names.len();
        let key =
            u16::try_from(key).ok().filter(|key| *key < GENERIC_END).ok_or(ItemError::Room)?;
        u32::try_from(item.bytes().len()).map_err(|_| ItemError::Room)?;
        self.names.push(name.to_owned());
        self.items.insert(key, item);
        self.update_directory();
        Ok(key)
    }

    /// The directory's numbers are big-endian.
    fn update_directory(&mut self) {
        let mut directory = (self.names.len() as u32).to_be_bytes().to_vec();
        for (key, name) in (key::FILE_FIRST..).zip(&self.names) {
            let size = self.items.get(&key).map_or(0, |item| item.bytes().len());
            let mut field = name.clone().into_bytes();
            field.resize(NAME_SIZE, 0);
            directory.extend((size as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(field);
        }
        self.set(key::FILE_DIR, directory);
    }

    /// The key of the item with a name.
    pub(super) fn key_of(&self, name: &str) -> Option<u16> {
        (key::FILE_FIRST..).zip(&self.names).find_map(|(key, known)| (known == name).then_some(key))
    }

    /// The item that a selector value chooses.
    pub(super) fn get(&self, selector: u16) -> Option<&Item> {
        self.items.get(&(selector & !WRITE_CHANNEL))
    }

    /// The same, if the guest may write it.
    pub(super) fn get_writable(&mut self, selector: u16) -> Option<&mut Writable> {
        match self.items.get_mut(&(selector & !WRITE_CHANNEL)) {
            Some(Item::Writable(item)) => Some(item),
            _ => None,
        }
    }

    /// All items that the guest may write, with their keys.
    pub(super) fn writable(&self) -> impl Iterator<Item = (u16, &Writable)> {
        self.items.iter().filter_map(|(key, item)| match item {
            Item::Writable(item) => Some((*key, item)),
            Item::Fixed(_) => None,
        })
    }

    /// The same, to be changed.
    pub(super) fn writable_mut(&mut self) -> impl Iterator<Item = (u16, &mut Writable)> {
        self.items.iter_mut().filter_map(|(key, item)| match item {
            Item::Writable(item) => Some((*key, item)),
            Item::Fixed(_) => None,
        })
    }
}

impl Default for FwCfgItems {
    fn default() -> Self {
        Self::new()
    }
}
