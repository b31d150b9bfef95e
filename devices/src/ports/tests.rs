//! The small ports against their descriptions.
