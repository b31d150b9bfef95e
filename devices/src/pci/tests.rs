//! Tests of the PCI bus.
