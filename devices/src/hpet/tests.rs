//! Tests of the HPET.
