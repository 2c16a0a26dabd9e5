//! `topnext status`: what the master says, as a table.

use std::fmt::Write as _;

use super::{Arguments, ask};
use crate::process::{
    scoreboard::Accounting,
    status::{self, OfHook, OfWorker, Status},
};

/// The text of the command.
pub fn show(arguments: &Arguments, json: bool) -> Result<String, String> {
    let text = ask(arguments, status::QUESTION)?;
    if json {
        return Ok(text + "\n");
    }
    let status = serde_json::from_str(&text);
    Ok(table(&status.map_err(|error| format!("topnext: the master has answered what is no status: {error}"))?))
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "topnext {}, pid {}, up {}, configuration {}\n",
        status.version,
        status.pid,
        duration(status.uptime),
        status.config
    );
    if let Some(other) = status.other_master {
        let _ = writeln!(text, "an upgrade is under way, with another master, pid {other}");
    }
    for generation in &status.generations {
        let _ = writeln!(text, "\ngeneration {}, {}", generation.number, explained(&generation.state));
        for missing in &generation.missing {
            let next = missing.next_in.map_or_else(String::new, |next| format!(", the next one starts in {next:.0} s"));
            let other = missing.stand_in.map_or_else(String::new, |pid| format!("; worker {pid} stands in for it"));
            let _ = writeln!(text, "  no worker, slot {}{next}{other}", missing.slot);
        }
        for worker in &generation.workers {
            describe(&mut text, worker);
            if generation.accounting == Some(Accounting::Off) {
                let _ = writeln!(text, "    modules are not counted (module_accounting = \"off\")");
            }
        }
    }
    text
}

fn explained(state: &str) -> &str {
    match state {
        "dismissed" => "dismissed: its workers were told to finish, since another master serves",
        "failed" => "failed: its workers still end",
        "ending" => "ending with the server",
        other => other,
    }
}

fn describe(text: &mut String, worker: &OfWorker) {
    let _ = writeln!(
        text,
        "  worker {}, slot {}, {}, up {}: {} connections ({} accepted), {} requests ({} running)",
        worker.pid,
        worker.slot,
        worker.state,
        duration(worker.uptime),
        worker.connections,
        worker.accepted,
        worker.requests,
        worker.running
    );
    for thread in &worker.threads {
        let _ = writeln!(text, "    now: {thread}");
    }
    let rows = worker.modules.iter().flat_map(|module| module.hooks.iter().map(move |hook| (&module.name, hook)));
    let rows: Vec<(&String, &OfHook)> = rows.collect();
    let Some(name) = rows.iter().map(|(name, _)| name.len()).max() else { return };
    let name = name.max("module".len());
    let hook = rows.iter().map(|(_, of)| of.hook.len()).max().unwrap_or_default();
    let _ = writeln!(
        text,
        "    {:<name$}  {:<hook$}  {:>10}  {:>8}  {:>8}  {:>10}  {:>10}  {:>10}",
        "module", "hook", "calls", "errors", "panics", "total", "mean", "longest"
    );
    for (module, of) in rows {
        let time = |us: f64| if of.timed == 0 { "-".to_string() } else { microseconds(us) };
        let _ = writeln!(
            text,
            "    {module:<name$}  {:<hook$}  {:>10}  {:>8}  {:>8}  {:>10}  {:>10}  {:>10}",
            of.hook,
            of.calls,
            of.errors,
            of.panics,
            time(of.total_us),
            time(of.mean_us),
            time(of.longest_us)
        );
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes, seconds) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

fn microseconds(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.2} s", us / 1e6),
        us if us >= 1e3 => format!("{:.2} ms", us / 1e3),
        us => format!("{us:.2} us"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([59, 61, 3661, 90_000].map(duration), ["59s", "1m 1s", "1h 1m", "1d 1h"]);
        assert_eq!([0.123, 999.0, 1500.0, 2e6].map(microseconds), ["0.12 us", "999.00 us", "1.50 ms", "2.00 s"]);
    }
}
