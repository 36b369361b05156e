//! Which fields a set has for an object type, by response key (specification, section 6.3.2, `CollectFields`).

use std::collections::HashMap;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{Directive, ExecutableDocument, Selection as SelectionNode, SelectionSet};
use async_graphql_value::Value;
use schemas::graph::{self, Graph, Kind, Name};

use super::{Collected, Compiler, Conditions, Refused, STEPS_MAX, invalid, too_large};

impl<'a> Compiler<'a> {
    pub(super) fn collect(
        &mut self,
        sets: &[&'a SelectionSet],
        object: &Name,
    ) -> Result<Collected<'a>, Refused> {
        let mut collector = Collector {
            graph: self.graph,
            document: self.document,
            conditions: self.conditions,
            object,
            spread: Vec::new(),
            found: Vec::new(),
            places: HashMap::new(),
            steps: self.steps,
        };
        for set in sets {
            collector.add(set)?;
        }
        self.steps = collector.steps;
        Ok(collector.found)
    }
}

/// The fields of a set that apply to an object type.
struct Collector<'a, 'n> {
    graph: &'a Graph,
    document: &'a ExecutableDocument,
    conditions: Conditions<'a>,
    object: &'n Name,
    spread: Vec<&'a str>,
    found: Collected<'a>,
    places: HashMap<&'a str, usize>,
    steps: usize,
}

impl<'a> Collector<'a, '_> {
    fn add(&mut self, set: &'a SelectionSet) -> Result<(), Refused> {
        for item in &set.items {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(too_large());
            }
            if !is_included(item.node.directives(), self.conditions) {
                continue;
            }
            match &item.node {
                SelectionNode::Field(field) => {
                    let key = field.node.response_key().node.as_str();
                    let place = *self.places.entry(key).or_insert(self.found.len());
                    match self.found.get_mut(place) {
                        Some((_, nodes)) => nodes.push(field),
                        None => self.found.push((key, vec![field])),
                    }
                }
                SelectionNode::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    if condition.is_none_or(|condition| self.applies(&condition.node.on.node)) {
                        self.add(&fragment.node.selection_set.node)?;
                    }
                }
                SelectionNode::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    if self.spread.contains(&name) {
                        continue;
                    }
                    self.spread.push(name);
                    let fragment = self.document.fragments.get(name);
                    let fragment =
                        fragment.ok_or_else(|| invalid(format!("unknown fragment {name:?}"), spread.pos))?;
                    if self.applies(&fragment.node.type_condition.node.on.node) {
                        self.add(&fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn applies(&self, condition: &str) -> bool {
        if condition == &**self.object {
            return true;
        }
        match self.graph.types.get(condition).map(|ty| &ty.kind) {
            Some(
                Kind::Interface(graph::Interface { objects, .. }) | Kind::Union(graph::Union { objects, .. }),
            ) => objects.contains(self.object),
            _ => false,
        }
    }
}

/// Whether `@skip` and `@include` let a selection in.
fn is_included(directives: &[Positioned<Directive>], conditions: Conditions<'_>) -> bool {
    directives.iter().all(|directive| {
        let condition = || match directive.node.get_argument("if").map(|value| &value.node) {
            Some(Value::Boolean(value)) => *value,
            Some(Value::Variable(name)) => conditions(name),
            _ => false,
        };
        match directive.node.name.node.as_str() {
            "skip" => !condition(),
            "include" => condition(),
            _ => true,
        }
    })
}
