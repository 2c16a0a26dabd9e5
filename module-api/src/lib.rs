//! The stable ABI between topnext and its modules, and the safe Rust that authors write against it.
//!
//! A module is one shared library. This is a whole filter:
//!
//! ```ignore
//! use topnext_module_api::prelude::*;
//!
//! #[derive(Config)]
//! struct HelloFilter {
//!     /// The text of the X-Hello field.
//!     #[config(default = "world")]
//!     text: String,
//! }
//!
//! impl Filter for HelloFilter {
//!     fn header_filter(&self, r: &mut Request<'_>, next: HeaderNext<'_>) -> Code {
//!         r.set_header_out("X-Hello", &self.text);
//!         next.call(r)
//!     }
//! }
//!
//! export_module! { name: "hello_filter", module: HelloFilter, provides: [filter] }
//! ```
//!
//! Reading order: [`Module`] and its [`config`]; the kinds [`Filter`], [`PhaseHandler`], [`Content`], [`Upstream`],
//! [`Balancer`], [`Variables`]; the handle [`Request`]; [`Buf`] and [`Chain`]; and below them the ABI itself ([`host`],
//! [`root`], [`running`], [`mod@panic`]).

extern crate self as topnext_module_api;

mod version;

pub mod description;
pub mod root;

pub mod config;
pub mod module;

pub mod filter;
pub mod handler;
pub mod upstream;

pub mod balancer;
pub mod variables;

pub mod request;

pub mod context;
pub mod file;
pub mod template;
pub mod uri;
pub mod wake;
pub mod zone;

pub mod buf;
pub mod chain;
pub mod code;
pub mod log;

pub mod host;
pub mod panic;
pub mod running;

#[cfg(feature = "testing")]
pub mod testing;

pub use balancer::{Balancer, BalancerNext, Outcome, Selection};
pub use buf::Buf;
pub use bytes::{self, Bytes, BytesMut};
pub use chain::Chain;
pub use code::Code;
pub use config::{Config, ConfigErrors, Merged, Size, SizeTemplate};
pub use context::Context;
pub use file::{File, FileKind, Opened};
pub use filter::{BodyNext, Filter, HeaderNext};
pub use handler::{Content, Phase, PhaseHandler};
pub use log::Level;
pub use module::{Module, Setup, State};
pub use request::Request;
#[doc(hidden)]
pub use root::__rt;
pub use template::Template;
pub use topnext_module_api_derive::{Choice, Config};
pub use upstream::{Progress, Upstream, UpstreamId, UpstreamOptions};
pub use variables::Variables;
pub use version::{ABI_EPOCH, API_VERSION, RUSTC, TARGET};
pub use wake::{Job, Waker, Wanted};
pub use zone::Zone;

/// What a module usually needs.
pub mod prelude {
    pub use crate::{
        Balancer, BalancerNext, BodyNext, Buf, Bytes, BytesMut, Chain, Choice, Code, Config, ConfigErrors, Content,
        Context, File, FileKind, Filter, HeaderNext, Job, Level, Merged, Module, Opened, Outcome, Phase, PhaseHandler,
        Progress, Request, Selection, Setup, Size, SizeTemplate, State, Template, Upstream, UpstreamId,
        UpstreamOptions, Variables, Waker, Wanted, Zone, export_module, log,
    };
    pub use std::time::Duration;
}
