//! The version of the ABI.

/// Minor versions are linear: each offers all that the one before it offered. A host loads modules of its own major
/// version, older and newer ones.
#[cfg(not(feature = "next-minor"))]
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the version would be, for tests of both directions.
#[cfg(feature = "next-minor")]
pub const API_VERSION: &str = "1.1.0";

/// Goes up at each break of the ABI until the first release freezes 1.0. Then it stays, and breaks need a new major.
pub const ABI_EPOCH: u32 = 6;

/// The compiler that built this image.
pub const RUSTC: &str = env!("TOPNEXT_RUSTC");

/// The target that this image was built for.
pub const TARGET: &str = env!("TOPNEXT_TARGET");
