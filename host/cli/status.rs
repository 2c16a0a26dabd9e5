//! `topnext status`: what the master says, as a table.

use super::{Arguments, ask};
use crate::process::status;

/// The text of the command.
pub fn show(arguments: &Arguments, json: bool) -> Result<String, String> {
    let text = ask(arguments, status::QUESTION)?;
    if json {
        return Ok(text + "\n");
    }
    Ok(text)
}
