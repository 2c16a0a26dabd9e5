//! Changes of all kinds in a random order: some begin while another is under way.

use rustix::process::Signal;

use super::subject::Subject;
use crate::random::Random;

/// One of them.
type Act = fn(&mut Subject) -> Result<(), String>;

/// What is done, as often as it stands here.
const STEPS: [(&str, Act); 11] = [
    ("reload", Subject::reload),
    ("reload", Subject::reload),
    ("reload by a signal", |subject| subject.change_by_signal()),
    ("reload by a signal", |subject| subject.change_by_signal()),
    ("several reloads at once", |subject| subject.reload_at_once(3)),
    ("reload of a broken configuration", Subject::reload_broken),
    ("reopen", |subject| subject.ask("reopen")),
    ("reopen by a signal", |subject| subject.signal(Signal::USR1)),
    ("upgrade", Subject::upgrade),
    ("upgrade behind a reload by a signal", |subject| subject.change_by_signal().and_then(|()| subject.upgrade())),
    ("upgrade and the way back", Subject::upgrade_and_go_back),
];

/// Does one of them. An error names it.
pub fn step(subject: &mut Subject, random: &mut Random) -> Result<(), String> {
    let (name, act) = random.pick(&STEPS);
    act(subject).map_err(|error| format!("{name}: {error}"))
}
