//! Helpers for the tests of all devices.
