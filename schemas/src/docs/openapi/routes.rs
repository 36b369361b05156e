//! The table of routes: all of the API but GraphQL, whose document is its SDL.

mod reading;
mod webhooks;

use super::operations::{Body, Of, Parameter, Place, Route};

const JSON: &str = "application/json";

const fn query(name: &'static str, of: Of, description: &'static str) -> Parameter {
    Parameter {
        name,
        place: Place::Query,
        required: false,
        of,
        description,
    }
}

const fn header(name: &'static str, required: bool, description: &'static str) -> Parameter {
    Parameter {
        name,
        place: Place::Header,
        required,
        of: Of::Text,
        description,
    }
}

const fn takes(schema: &'static str, required: bool) -> Option<Body> {
    Some(Body {
        media_types: &[JSON],
        schema,
        required,
    })
}

const LIMIT: Parameter = query("limit", Of::Number(1, 100, 50), "The most entries of a page.");

/// Every route.
pub const ROUTES: &[Route] = &joined::<{ reading::ROUTES.len() + webhooks::ROUTES.len() }>();

const fn joined<const N: usize>() -> [Route; N] {
    let mut all = [reading::ROUTES[0]; N];
    let mut place = 0;
    while place < N {
        all[place] = if place < reading::ROUTES.len() {
            reading::ROUTES[place]
        } else {
            webhooks::ROUTES[place - reading::ROUTES.len()]
        };
        place += 1;
    }
    all
}
