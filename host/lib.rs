//! topnext: a web server and reverse proxy whose filters, handlers, upstreams and balancers are shared libraries.
//!
//! This is the host. The path of a request, by file:
//!
//! ```text
//! listen -> http1/connection -> request -> server_name -> phases (location) -> content handler or upstream
//!        -> output (header filters, body filters) -> write -> finalize
//! ```

#![deny(unsafe_code)]

// The path of a request.
pub mod listen;

pub mod proxy_protocol;

pub mod http1;

pub mod request;

pub mod server_name;

pub mod location;

pub mod phases;

pub mod redirect;

pub mod upstream;

pub mod output;

pub mod write;

pub mod error_page;

pub mod absolute_redirect;

pub mod finalize;

// What it needs on the way.
pub mod map_uri;

pub mod mime;

pub mod open_file;

pub mod error_text;

pub mod temp_file;

pub mod regex;

pub mod socket;

pub mod status;

mod tcp_info;

pub mod template;

pub mod variables;

// From the configuration to what runs.
pub mod config;

pub mod plugins;

pub mod site;

// Without knowledge of HTTP.
pub mod clock;

pub mod event;

pub mod log;

mod place;

pub mod process;

pub mod stats;

pub mod cli;
