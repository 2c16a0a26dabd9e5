//! The smallest upstream protocol: `GET key\r\n` is answered by `OK length\r\n` and that many bytes.
//!
//! ```toml
//! [[http.server.location]]
//! path = "/value/"
//! hello_upstream.pass = "127.0.0.1:9009"      # /value/color asks for the key "color"
//! ```

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `hello_upstream`.
#[derive(Config)]
pub struct Table {
    /// The name of an upstream, or host and port.
    pass: String,
}

/// The table, with the upstream looked up.
pub struct HelloUpstream(UpstreamId);

export_module! { name: "hello_upstream", module: HelloUpstream, provides: [upstream] }

impl Module for HelloUpstream {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<HelloUpstream, ConfigErrors> {
        let options = UpstreamOptions::default();
        Ok(HelloUpstream(UpstreamId::find(&table.pass, 9009, &options)?))
    }
}

impl Upstream for HelloUpstream {
    fn upstream(&self) -> UpstreamId {
        self.0
    }

    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        let key = r.uri().strip_prefix(r.location()).unwrap_or_default();
        // The URI is decoded: a line end in the key would be a second command.
        if key.is_empty() || !key.iter().all(u8::is_ascii_graphic) {
            return Code::status(400);
        }
        request.push(Buf::from([b"GET ", key, b"\r\n"].concat()));
        Code::OK
    }

    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else { return Progress::Incomplete };
        let line = std::str::from_utf8(&input[..end]).unwrap_or_default();
        let Some(Ok(length)) = line.strip_prefix("OK ").map(str::parse) else { return Progress::Invalid };
        r.set_status(200);
        r.set_content_length(Some(length));
        // The request's context: how many bytes are still to come.
        r.set_context::<u64>(length);
        Progress::Complete(end + 2)
    }

    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        self.input_filter(r, Chain::new(), &mut Chain::new())
    }

    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let closed = input.has_last();
        let Some(mut left) = r.context::<u64>() else { return Code::ERROR };
        for mut buf in input {
            buf.set_last(false);
            buf.truncate(*left);
            *left -= buf.len();
            output.push(buf);
        }
        match *left {
            0 => Code::DONE,
            _ if closed => Code::ERROR,
            _ => Code::OK,
        }
    }
}
