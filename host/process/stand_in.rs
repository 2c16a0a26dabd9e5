//! Workers that stand in for others. A listening socket belongs to a slot; while the slot has no worker that serves, since the last
//! one has died and the next one waits or is not ready, a worker of another slot accepts what comes to it.

use std::rc::Rc;

use super::{
    child::Stage,
    generation::Generation,
    master::Master,
    messages::{Plan, ToWorker},
    plan,
};

impl Master {
    /// Sees to it that each slot of what serves has a worker, or one that stands in for it, as far as there are workers.
    pub(super) fn stand_in(&self) {
        // While the workers of a change come to serve, one after the other, those before them do.
        let Some(generation) = self.serving.borrow().clone().filter(|_| !self.is_to_serve()) else { return };
        let Some(plan) = generation.plan().filter(|_| !generation.is_dismissed.get() && self.ending.get().is_none())
        else {
            return;
        };
        for slot in 0..plan.processes {
            match generation.stand_in(slot) {
                Some(other) if generation.worker(slot, Stage::Serving).is_some() => {
                    other.tell(&ToWorker::GiveBack(slot), &[]);
                    generation.set_stand_in(slot, None);
                }
                None if generation.worker(slot, Stage::Serving).is_none() => {
                    self.find_stand_in(&generation, &plan, slot)
                }
                _ => (),
            }
        }
    }

    /// Hands the sockets of a slot to the worker that has the fewest slots.
    fn find_stand_in(&self, generation: &Rc<Generation>, plan: &Plan, slot: usize) {
        let others = (0..plan.processes).filter_map(|other| generation.worker(other, Stage::Serving));
        let Some(other) = others.min_by_key(|other| generation.stands_in_for(other)) else { return };
        self.mend_sockets(plan, slot);
        let sockets = self.sockets.borrow();
        if other.lend_sockets(slot, &plan::sockets_of(plan, &sockets, slot, self.is_changing_to(generation))) {
            generation.set_stand_in(slot, Some(other));
        } else {
            // It may have got some.
            other.tell(&ToWorker::GiveBack(slot), &[]);
        }
    }
}
