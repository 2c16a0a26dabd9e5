//! Access logs: a line for each request, in the combined format or one of the configuration's:
//!
//! ```text
//! 127.0.0.1 - - [22/Nov/2026:03:26:11 +0000] "GET / HTTP/1.1" 200 612 "-" "curl/7.88.1"
//! ```

use std::{rc::Rc, sync::Arc};

use super::{Sink, format::Format};
use crate::{
    request::{Request, with_buffer},
    template::{self, Part},
};

/// One of the access logs of a place (nginx: access_log).
pub struct AccessLog {
    /// Where lines go.
    pub sink: Arc<Sink>,
    /// What they say.
    pub format: Arc<Format>,
    /// A request has a line only if this text is neither empty nor `0` (nginx: the parameter if).
    pub condition: Option<Vec<Part>>,
}

impl AccessLog {
    /// Writes the line of a request that has ended.
    pub fn write(&self, r: &Rc<Request>) {
        with_buffer(|line| {
            if let Some(condition) = &self.condition {
                template::write(condition, r, line);
                if matches!(line.as_slice(), b"" | b"0") {
                    return;
                }
                line.clear();
            }
            self.format.write(r, line);
            self.sink.write(line);
        });
    }
}
