//! Two servers loaded by turns of some milliseconds, so that a machine whose speed changes from second to second (another
//! one shares its cores) is the same for both. Only sums are of use: how many requests each answered for how much CPU time.
//!
//! ```text
//! wrk of the first   ####----####--------####----
//! wrk of the second  ----####----####----....####     # works   - is stopped
//! ```
//!
//! What a client that is stopped has asked for is still answered, and read when it goes on. Latencies mean nothing here.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::wrk::{Client, Work};

/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(50);
/// How long the server whose client has been stopped has to answer what was asked.
const REST: Duration = Duration::from_millis(4);

/// What a server did in all of its turns.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    pub requests: u64,
    /// CPU time of all processes of the server.
    pub cpu: Duration,
}

impl Turns {
    pub fn requests_per_cpu_second(&self) -> f64 {
        self.requests as f64 / self.cpu.as_secs_f64()
    }
}

/// Loads both servers for about `seconds` each. The one that is first swaps with every pair of turns.
pub fn run(wrk: &Path, work: &Work, servers: [&Server; 2], seconds: u32) -> Result<[Turns; 2], String> {
    let before = [servers[0].cpu_times()?, servers[1].cpu_times()?];
    let client = |server: &Server| {
        let client = Client::start(wrk, server.address(), work, 2 * seconds)?;
        client.pause()?;
        Ok::<Client, String>(client)
    };
    let clients = [client(servers[0])?, client(servers[1])?];
    let end = Instant::now() + Duration::from_secs(u64::from(2 * seconds)) - 4 * TURN;
    let mut order = [0, 1];
    while Instant::now() < end {
        for index in order {
            clients[index].resume()?;
            thread::sleep(TURN);
            clients[index].pause()?;
            thread::sleep(REST);
        }
        order.reverse();
    }
    clients.iter().try_for_each(Client::resume)?;
    let [first, second] = clients.map(Client::finish);
    let turns = |requests, server: &Server, before| {
        Ok::<Turns, String>(Turns { requests, cpu: server.cpu_times()?.since(before)? })
    };
    Ok([turns(first?.requests, servers[0], &before[0])?, turns(second?.requests, servers[1], &before[1])?])
}
