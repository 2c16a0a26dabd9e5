//! The smallest upstream protocol: `GET key\r\n` is answered by `OK length\r\n` and that many bytes.
//! With `hello_upstream.pass = "127.0.0.1:9009"` in the location `/value/`, /value/color asks for the key "color".

#![forbid(unsafe_code)]

use topnext_module_api::prelude::*;

/// The table `hello_upstream`.
#[derive(Config)]
pub struct Table {
    /// The name of an upstream, or host and port.
    pass: String,
}

/// The upstream that `pass` names.
pub struct HelloUpstream(UpstreamId);

export_module! { name: "hello_upstream", module: HelloUpstream, provides: [upstream] }

impl Module for HelloUpstream {
    type Config = Table;

    fn new(table: Table, _: &Setup<'_>) -> Result<HelloUpstream, ConfigErrors> {
        Ok(HelloUpstream(UpstreamId::find(&table.pass, 9009, &UpstreamOptions::default())?))
    }
}

impl Upstream for HelloUpstream {
    fn upstream(&self) -> UpstreamId {
        self.0
    }
    fn create_request(&self, r: &mut Request<'_>, request: &mut Chain) -> Code {
        // The URI is decoded: a line end in the key would be a second command.
        let key = r.uri().strip_prefix(r.location()).filter(|key| key.iter().all(u8::is_ascii_graphic));
        let Some(key) = key.filter(|key| !key.is_empty()) else { return Code::status(400) };
        request.push(Buf::from([b"GET ", key, b"\r\n"].concat()));
        Code::OK
    }
    fn process_header(&self, r: &mut Request<'_>, input: &[u8]) -> Progress {
        let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else { return Progress::Incomplete };
        let line = str::from_utf8(&input[..end]).unwrap_or_default();
        let Some(Ok(length)) = line.strip_prefix("OK ").map(str::parse) else { return Progress::Invalid };
        r.set_status(200);
        r.set_content_length(Some(length));
        r.set_context::<u64>(length); // what is still to come
        Progress::Complete(end + 2)
    }
    fn input_filter_init(&self, r: &mut Request<'_>) -> Code {
        self.input_filter(r, Chain::new(), &mut Chain::new()) // the body may be empty
    }
    fn input_filter(&self, r: &mut Request<'_>, input: Chain, output: &mut Chain) -> Code {
        let unfinished = if input.has_last() { Code::ERROR } else { Code::OK };
        let Some(mut left) = r.context::<u64>() else { return Code::ERROR };
        for mut buf in input {
            output.push(buf.split_to(*left - output.len_bytes()));
        }
        *left -= output.len_bytes();
        if *left == 0 { Code::DONE } else { unfinished }
    }
}
