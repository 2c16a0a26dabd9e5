//! The client: runs wrk for a bounded time and reads its report.
//!
//! ```text
//! wrk -t1 -c64 -d2s --latency http://127.0.0.1:8080/1k
//! ```
//!
//! A case with several requests goes to wrk as a script that sends them in turn.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cases::{Case, Request};
use crate::process::Process;

/// How long wrk may take beyond the time that it was asked to run, before it is ended.
const GRACE: Duration = Duration::from_secs(15);

/// What wrk saw in one run without errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Answers that arrived.
    pub requests: u64,
    pub requests_per_second: f64,
    /// Microseconds within which 99 % of the answers arrived.
    pub p99_us: f64,
}

/// What wrk asks for, whatever the server.
#[derive(Debug)]
pub struct Work {
    connections: u32,
    /// The path of all requests, unless there is a script.
    path: String,
    /// Options, with the header fields or the script.
    options: Vec<String>,
}

impl Work {
    /// The work of a case. A script that it needs is written to the folder `dir`.
    pub fn of(case: &Case, dir: &Path) -> Result<Work, String> {
        let requests = (case.requests)();
        let mut work = Work { connections: case.connections, path: "/".into(), options: Vec::new() };
        if let [request] = &requests[..] {
            work.path.clone_from(&request.path);
            work.options.extend(request.fields.iter().map(|(name, value)| format!("-H{name}: {value}")));
        } else {
            let file: PathBuf = dir.join(format!("wrk-{}.lua", case.name));
            std::fs::write(&file, script(&requests)).map_err(|error| format!("{}: {error}", file.display()))?;
            work.options.push(format!("-s{}", file.display()));
        }
        Ok(work)
    }
}

/// Sends the requests one after the other, and then from the start.
fn script(requests: &[Request]) -> String {
    let mut script = "local requests, n = {}, 0\nfunction init(args)\n".to_owned();
    for (index, request) in requests.iter().enumerate() {
        let fields: Vec<String> =
            request.fields.iter().map(|(name, value)| format!("[{name:?}] = {value:?}")).collect();
        let fields = fields.join(", ");
        script += &format!("  requests[{}] = wrk.format(\"GET\", {:?}, {{ {fields} }})\n", index + 1, request.path);
    }
    script + "end\nfunction request()\n  n = n % #requests + 1\n  return requests[n]\nend\n"
}

/// Loads a server from one thread for `seconds`. An error also when any request failed: figures of errors say nothing.
pub fn run(wrk: &Path, address: SocketAddr, work: &Work, seconds: u32) -> Result<Load, String> {
    Client::start(wrk, address, work, seconds)?.finish()
}

/// A wrk that runs. It is ended with this value.
pub struct Client {
    child: Child,
    process: Process,
    seconds: u32,
}

impl Client {
    /// Starts wrk, which loads the server at `address` from one thread for `seconds`.
    pub fn start(wrk: &Path, address: SocketAddr, work: &Work, seconds: u32) -> Result<Client, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", wrk.display());
        let mut child = Command::new(wrk)
            .arg("-t1")
            .arg(format!("-c{}", work.connections))
            .arg(format!("-d{seconds}s"))
            .arg("--latency")
            // Of a slow case, and while the other server has its turn, a response may take longer than wrk's 2 s.
            .args(["--timeout", "10s"])
            .args(&work.options)
            .arg(format!("http://{address}{}", work.path))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        match Process::open(child.id()) {
            Ok(process) => Ok(Client { child, process, seconds }),
            Err(error) => {
                // Whether it could be ended is of no more interest than the error itself.
                let _ = (child.kill(), child.wait());
                Err(failed(error))
            }
        }
    }

    /// Stops its work, until it is resumed. Its time runs on.
    pub fn pause(&self) -> Result<(), String> {
        self.process.stop().map_err(|error| format!("wrk cannot be stopped: {error}"))
    }

    /// Lets it work again.
    pub fn resume(&self) -> Result<(), String> {
        self.process.go_on().map_err(|error| format!("wrk cannot be resumed: {error}"))
    }

    /// Waits for its end, and reads its report, which is far smaller than a pipe holds.
    pub fn finish(mut self) -> Result<Load, String> {
        let failed = |error: std::io::Error| format!("wrk: {error}");
        let limit = Duration::from_secs(self.seconds.into()) + GRACE;
        if !self.process.ends_within(limit).map_err(failed)? {
            return Err(format!("wrk did not stop {} s after its time; ended it", GRACE.as_secs()));
        }
        let status = self.child.wait().map_err(failed)?;
        let read = |pipe: Option<&mut dyn Read>| {
            let mut text = Vec::new();
            pipe.map_or(Ok(0), |pipe| pipe.read_to_end(&mut text)).map(|_| String::from_utf8_lossy(&text).into_owned())
        };
        let out = read(self.child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read)).map_err(failed)?;
        let errors = read(self.child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read)).map_err(failed)?;
        match status.success() {
            true => parse(&out),
            false => Err(format!("wrk: {status}: {}", errors.trim())),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // After its end nothing happens here.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Reads the report that wrk 4 prints with `--latency`.
pub fn parse(report: &str) -> Result<Load, String> {
    let lines = || report.lines().map(str::trim);
    if let Some(errors) = lines().find(|line| line.starts_with("Socket errors:") || line.starts_with("Non-2xx")) {
        return Err(format!("requests failed: {errors}"));
    }
    let missing = |what: &str| format!("wrk's report does not show {what}:\n{report}");
    let requests = lines()
        .find_map(|line| line.split_once(" requests in ")?.0.parse::<u64>().ok())
        .filter(|&count| count > 0)
        .ok_or_else(|| missing("a number of requests above 0"))?;
    let requests_per_second = lines()
        .find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok())
        .filter(|&rate| rate.is_finite() && rate > 0.0)
        .ok_or_else(|| missing("requests per second"))?;
    let p99_us = lines()
        .find_map(|line| microseconds(line.strip_prefix("99%")?.trim()))
        .filter(|&time| time.is_finite() && time > 0.0)
        .ok_or_else(|| missing("a latency for 99%"))?;
    Ok(Load { requests, requests_per_second, p99_us })
}

/// Reads a time as wrk prints it: `950.00us`, `1.43ms`, `2.05s`, `1.00m`, `1.00h`.
fn microseconds(text: &str) -> Option<f64> {
    // "us" and "ms" come before "s", which ends both.
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6), ("h", 3600e6)];
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
Running 2s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.93ms  410.21us   9.05ms   78.11%
    Req/Sec    68.41k     2.10k   71.20k    70.00%
  Latency Distribution
     50%  850.00us
     75%    1.12ms
     90%    1.30ms
     99%    2.43ms
  136413 requests in 2.00s, 164.33MB read
Requests/sec:  68137.29
Transfer/sec:     82.08MB
";

    #[test]
    fn one_request_is_options_and_several_are_a_script() {
        let requests = [Request::get("/a"), Request::get("/b").field("Host", "x.example").field("A", "b \"c\"")];
        assert_eq!(
            script(&requests),
            r#"local requests, n = {}, 0
function init(args)
  requests[1] = wrk.format("GET", "/a", {  })
  requests[2] = wrk.format("GET", "/b", { ["Host"] = "x.example", ["A"] = "b \"c\"" })
end
function request()
  n = n % #requests + 1
  return requests[n]
end
"#
        );
        let work = Work::of(crate::cases::find("gzip").unwrap(), Path::new("/none")).unwrap();
        assert_eq!((&*work.path, &work.options[..]), ("/page.html", &["-HAccept-Encoding: gzip".to_owned()][..]));
    }

    #[test]
    fn report_is_read() {
        assert_eq!(parse(REPORT), Ok(Load { requests: 136_413, requests_per_second: 68_137.29, p99_us: 2.43 * 1e3 }));
    }

    #[test]
    fn failed_requests_are_an_error() {
        let socket = "Socket errors: connect 0, read 3, write 0, timeout 0";
        let report = REPORT.replace("Requests/sec:", &format!("  {socket}\nRequests/sec:"));
        assert_eq!(parse(&report), Err(format!("requests failed: {socket}")));
        let report = REPORT.replace("Requests/sec:", "  Non-2xx or 3xx responses: 7\nRequests/sec:");
        assert_eq!(parse(&report), Err("requests failed: Non-2xx or 3xx responses: 7".into()));
    }

    #[test]
    fn missing_or_empty_figures_are_an_error() {
        let refused = |from: &str, to: &str| {
            assert!(REPORT.contains(from), "{from}");
            parse(&REPORT.replace(from, to)).unwrap_err().lines().next().unwrap().to_owned()
        };
        assert_eq!(
            refused("136413 requests", "0 requests"),
            "wrk's report does not show a number of requests above 0:"
        );
        assert_eq!(refused("Requests/sec:", "Rate:"), "wrk's report does not show requests per second:");
        assert_eq!(refused("68137.29", "-nan"), "wrk's report does not show requests per second:");
        assert_eq!(refused("99%    2.43ms", "98% 2.43ms"), "wrk's report does not show a latency for 99%:");
        assert_eq!(refused("2.43ms", "0.00us"), "wrk's report does not show a latency for 99%:");
    }

    #[test]
    fn units_of_time() {
        let table = [("950.00us", 950.0), ("1.50ms", 1500.0), ("2.00s", 2e6), ("1.50m", 90e6), ("1.00h", 3600e6)];
        for (text, expected) in table {
            assert_eq!(microseconds(text), Some(expected), "{text}");
        }
        for text in ["", "12", "ms", "1.0 weeks", "1,5ms"] {
            assert_eq!(microseconds(text), None, "{text:?}");
        }
    }
}
