//! An event and what was rendered of it: deliveries of one record that show the same of it share the bytes.
//!
//! Invariant: what is given for a mask and a mode is what [`render`] gives for them. Few forms are kept; an event whose readers
//! all see something else is rendered for each.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::HeaderValue;
use schemas::event::Event;
use schemas::project::Mask;

use super::{ContentMode, Rendered, render};

/// Forms that are kept of one event.
const FORMS_MAX: usize = 8;

/// An event to be delivered, perhaps to many.
#[derive(Debug)]
pub struct Prepared {
    event: Event,
    position: OnceLock<HeaderValue>,
    /// Nobody else is given the same.
    is_alone: bool,
    forms: Mutex<Vec<Form>>,
}

#[derive(Debug)]
struct Form {
    mode: ContentMode,
    mask: Arc<Mask>,
    rendered: Arc<Rendered>,
}

impl Prepared {
    /// Nothing is rendered yet.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self {
            event,
            position: OnceLock::new(),
            is_alone: false,
            forms: Mutex::default(),
        }
    }

    /// The same for one delivery: nothing that is rendered is kept.
    #[must_use]
    pub fn alone(event: Event) -> Self {
        Self {
            is_alone: true,
            ..Self::new(event)
        }
    }

    /// The event.
    #[must_use]
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Where the event lies, sealed for its tenant: by the first who asks, for all.
    pub fn position(&self, seal: impl FnOnce() -> HeaderValue) -> &HeaderValue {
        self.position.get_or_init(seal)
    }

    /// The event in this mode, what the mask hides removed.
    #[must_use]
    pub fn render(&self, mask: &Arc<Mask>, mode: ContentMode) -> Arc<Rendered> {
        if self.is_alone {
            return Arc::new(render(&self.event, mask, mode));
        }
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let known = forms
            .iter()
            .find(|form| form.mode == mode && (Arc::ptr_eq(&form.mask, mask) || form.mask == *mask));
        if let Some(form) = known {
            return Arc::clone(&form.rendered);
        }
        let rendered = Arc::new(render(&self.event, mask, mode));
        if forms.len() < FORMS_MAX {
            forms.push(Form {
                mode,
                mask: Arc::clone(mask),
                rendered: Arc::clone(&rendered),
            });
        }
        rendered
    }
}

#[cfg(test)]
mod tests {
    use schemas::project::Pointer;

    use super::*;
    use crate::fixture;

    #[test]
    fn a_form_is_shared_by_what_it_shows_and_by_nothing_else() {
        let body = r#"{"status":"final","note":"x"}"#;
        let record = fixture::record("lund", &fixture::position(0, 1), "o1", body);
        let alone = Prepared::alone(fixture::decode(record.clone()));
        let prepared = Prepared::new(fixture::decode(record));
        let all = || Arc::new(Mask::nothing_hidden());
        let some = Arc::new(Mask::hide([Pointer::parse("/note").expect("a pointer")]));
        let (first, second) = (
            prepared.render(&all(), ContentMode::Raw),
            prepared.render(&all(), ContentMode::Raw),
        );
        assert!(Arc::ptr_eq(&first, &second), "equal masks show the same");
        for mode in ContentMode::ALL {
            for mask in [&all(), &some] {
                let own = render(prepared.event(), mask, mode);
                for _ in 0..2 {
                    assert_eq!(*prepared.render(mask, mode), own, "{mode:?} {mask:?}");
                    assert_eq!(*alone.render(mask, mode), own, "{mode:?} {mask:?}");
                }
            }
        }
        let less = prepared.render(&some, ContentMode::Raw);
        assert!(!String::from_utf8_lossy(&less.body).contains("note"));
    }
}
