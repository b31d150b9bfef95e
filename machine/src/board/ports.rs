//! The map of the I/O ports: which device answers at each.

/// Ports of a PC.
const PORTS: usize = 0x1_0000;
/// Nobody answers.
const NOBODY: u8 = 0;

/// A table of all ports. Its pages are touched only where there are devices.
pub(crate) struct PortMap(Box<[u8]>);

impl PortMap {
    pub(crate) fn new() -> Self {
        Self(vec![NOBODY; PORTS].into_boxed_slice())
    }

    /// Gives `count` ports from `first` on to a device; gives back the device that has one of them
    /// already.
    pub(crate) fn claim(&mut self, first: u16, count: u16, device: usize) -> Result<(), usize> {
        let range = usize::from(first)..(usize::from(first) + usize::from(count)).min(PORTS);
        let places = self.0.get_mut(range).unwrap_or_default();
        if let Some(taken) = places.iter().find(|place| **place != NOBODY) {
            return Err(usize::from(*taken) - 1);
        }
        places.fill(u8::try_from(device + 1).unwrap_or(NOBODY));
        Ok(())
    }

    /// The device that answers at a port.
    #[inline]
    pub(crate) fn device(&self, port: u16) -> Option<usize> {
        usize::from(*self.0.get(usize::from(port))?).checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_device_at_most() {
        let mut map = PortMap::new();
        assert_eq!(map.claim(0x3f8, 8, 4), Ok(()));
        assert_eq!(map.device(0x3ff), Some(4));
        assert_eq!(map.device(0x400), None);
        assert_eq!(map.claim(0x3fc, 8, 5), Err(4));
        assert_eq!(map.device(0x400), None);
        assert_eq!(map.claim(0xffff, 4, 0), Ok(()));
        assert_eq!(map.device(0xffff), Some(0));
    }
}
