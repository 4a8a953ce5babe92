//! The chips of a PC.
