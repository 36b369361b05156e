//! Which thread asks which question, and when.
//!
//! Invariant: nobody waits for another's partition. One thread at a time asks about a partition, and those whose leader
//! does not answer are asked about by threads of their own, which have the time. What waits has a bound. It knows nothing
//! of Kafka.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A topic and one of its partitions.
pub(super) type Place = (Arc<str>, i32);

/// Which threads ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Those that must be free again soon.
    Prompt,
    /// Those that ask about partitions that were silent.
    Patient,
}

/// What came of a question about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its leader answered.
    Answered,
    /// Nobody wanted to know any more.
    Nothing,
    /// It was silent, and whoever asked knows.
    Silent,
    /// It was silent; a patient thread is to ask the same again. (From a patient thread it means [`Asked::Silent`].)
    Again,
}

type Any<C> = Box<dyn FnOnce(&C) + Send>;
type About<C> = Box<dyn FnMut(&C, Lane) -> Asked + Send>;

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

/// Questions for a client `C`.
pub(super) struct Desk<C> {
    state: Mutex<State<C>>,
    prompt: Condvar,
    patient: Condvar,
    waiting_max: usize,
}

enum Item<C> {
    Any(Any<C>),
    About(Place),
}

struct State<C> {
    prompt: VecDeque<Item<C>>,
    patient: VecDeque<Item<C>>,
    /// What is to be asked about each partition. It is here while it is in a lane or is being asked about.
    places: HashMap<Place, VecDeque<About<C>>>,
    /// Partitions whose leader did not answer last.
    silent: HashSet<Place>,
    waiting: usize,
    closed: bool,
}

impl<C> Desk<C> {
    pub(super) fn new(waiting_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                prompt: VecDeque::new(),
                patient: VecDeque::new(),
                places: HashMap::new(),
                silent: HashSet::new(),
                waiting: 0,
                closed: false,
            }),
            prompt: Condvar::new(),
            patient: Condvar::new(),
            waiting_max,
        }
    }

    /// A question about no partition.
    pub(super) fn put(&self, question: impl FnOnce(&C) + Send + 'static) -> Result<(), Refused> {
        let mut state = self.room()?;
        state.prompt.push_back(Item::Any(Box::new(question)));
        drop(state);
        self.prompt.notify_one();
        Ok(())
    }

    /// A question about a partition, after those about it that wait already.
    pub(super) fn about(
        &self,
        place: Place,
        question: impl FnMut(&C, Lane) -> Asked + Send + 'static,
    ) -> Result<(), Refused> {
        let mut state = self.room()?;
        let waits = state.places.contains_key(&place);
        let questions = state.places.entry(place.clone()).or_default();
        questions.push_back(Box::new(question));
        if !waits {
            self.queue(&mut state, place);
        }
        Ok(())
    }

    /// Ends the threads.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Whoever waits for one of these hears that it is gone.
        state.prompt.clear();
        state.patient.clear();
        state.places.clear();
        drop(state);
        self.prompt.notify_all();
        self.patient.notify_all();
    }

    /// Asks what is in this lane until the desk is closed.
    pub(super) fn work(&self, lane: Lane, client: &C) {
        while let Some(item) = self.next(lane) {
            match item {
                Item::Any(question) => question(client),
                Item::About(place) => self.ask(place, lane, client),
            }
        }
    }

    fn next(&self, lane: Lane) -> Option<Item<C>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let (items, ready) = match lane {
                Lane::Prompt => (&mut state.prompt, &self.prompt),
                Lane::Patient => (&mut state.patient, &self.patient),
            };
            match items.pop_front() {
                // It fell silent while it waited.
                Some(Item::About(place)) if lane == Lane::Prompt && state.silent.contains(&place) => {
                    self.queue(&mut state, place);
                }
                Some(item) => {
                    if matches!(item, Item::Any(_)) {
                        state.waiting -= 1;
                    }
                    return Some(item);
                }
                None => state = ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn ask(&self, place: Place, lane: Lane, client: &C) {
        let Some(mut question) = self.lock().places.get_mut(&place).and_then(VecDeque::pop_front) else {
            return;
        };
        let asked = question(client, lane);
        let mut state = self.lock();
        match asked {
            Asked::Answered => drop(state.silent.remove(&place)),
            Asked::Nothing => {}
            Asked::Silent | Asked::Again => drop(state.silent.insert(place.clone())),
        }
        let again = asked == Asked::Again && lane == Lane::Prompt;
        let Some(questions) = state.places.get_mut(&place) else {
            return;
        };
        if again {
            questions.push_front(question);
        }
        if questions.is_empty() {
            state.places.remove(&place);
        } else {
            self.queue(&mut state, place);
        }
        if !again {
            state.waiting -= 1;
        }
    }

    fn queue(&self, state: &mut State<C>, place: Place) {
        if state.silent.contains(&place) {
            state.patient.push_back(Item::About(place));
            self.patient.notify_one();
        } else {
            state.prompt.push_back(Item::About(place));
            self.prompt.notify_one();
        }
    }

    fn room(&self) -> Result<MutexGuard<'_, State<C>>, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.waiting >= self.waiting_max {
            return Err(Refused::Full);
        }
        state.waiting += 1;
        Ok(state)
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn place(partition: i32) -> Place {
        (Arc::from("a"), partition)
    }

    /// Asks everything that is in the lane now.
    fn drain(desk: &Desk<()>, lane: Lane) {
        let is_empty = || match lane {
            Lane::Prompt => desk.lock().prompt.is_empty(),
            Lane::Patient => desk.lock().patient.is_empty(),
        };
        while !is_empty() {
            // What turns out to be another lane's is put there first.
            let sentinel = Item::Any(Box::new(|&()| {}));
            let mut state = desk.lock();
            state.waiting += 1;
            match lane {
                Lane::Prompt => state.prompt.push_back(sentinel),
                Lane::Patient => state.patient.push_back(sentinel),
            }
            drop(state);
            while let Some(Item::About(place)) = desk.next(lane) {
                desk.ask(place, lane, &());
            }
        }
    }

    #[test]
    fn what_is_silent_is_asked_again_by_a_patient_thread_and_holds_up_nobody() {
        let desk = Desk::new(100);
        let (told, asked) = channel();
        for partition in 0..2 {
            for _ in 0..2 {
                let told = told.clone();
                desk.about(place(partition), move |(), lane| {
                    told.send((partition, lane)).expect("the test listens");
                    if partition == 0 {
                        Asked::Again
                    } else {
                        Asked::Answered
                    }
                })
                .expect("room");
            }
        }
        drain(&desk, Lane::Prompt);
        let prompt: Vec<_> = asked.try_iter().collect();
        assert_eq!(prompt, [(0, Lane::Prompt), (1, Lane::Prompt), (1, Lane::Prompt)]);
        drain(&desk, Lane::Patient);
        let patient: Vec<_> = asked.try_iter().collect();
        assert_eq!(patient, [(0, Lane::Patient), (0, Lane::Patient)]);
        drain(&desk, Lane::Prompt);
        let state = desk.lock();
        assert_eq!((state.waiting, state.places.len()), (0, 0));
    }

    #[test]
    fn a_silent_partition_is_left_to_the_patient_until_it_answers() {
        let desk = Desk::new(100);
        let (told, asked) = channel();
        let ask = |answer: Asked| {
            let told = told.clone();
            desk.about(place(0), move |(), lane| {
                told.send(lane).expect("the test listens");
                answer
            })
            .expect("room");
        };
        for answer in [Asked::Silent, Asked::Answered, Asked::Answered] {
            ask(answer);
            drain(&desk, Lane::Prompt);
            drain(&desk, Lane::Patient);
        }
        assert_eq!(
            asked.try_iter().collect::<Vec<_>>(),
            [Lane::Prompt, Lane::Patient, Lane::Prompt]
        );
    }

    #[test]
    fn what_waits_has_a_bound() {
        let desk: Desk<()> = Desk::new(2);
        assert_eq!(desk.put(|()| {}), Ok(()));
        assert_eq!(desk.about(place(0), |(), _| Asked::Answered), Ok(()));
        assert_eq!(desk.put(|()| {}), Err(Refused::Full));
        desk.close();
        assert_eq!(desk.put(|()| {}), Err(Refused::Closed));
    }
}
