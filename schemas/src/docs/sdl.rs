//! The subgraph's SDL: what federation composes of a contract.
//!
//! Invariant: the same graph gives the same text, which says nothing of streams, pointers or rows. It does not know the
//! files that the graph was read from.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::graph::{Argument, EnumValue, Field, Graph, Kind, Name, Type};

/// The federation that is spoken: the first with `@authenticated` and `@requiresScopes`.
const FEDERATION: &str = "https://specs.apollo.dev/federation/v2.5";

/// GraphQL's own directives, which nobody imports.
const BUILT_IN: [&str; 2] = ["@deprecated", "@specifiedBy"];

/// GraphQL's own scalars, which nobody defines.
const SCALARS: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// Prints the subgraph's SDL: `@link` with what is used of federation, `Subscription`, and the types by name. There is
/// no `Query`: no entity is resolved here.
#[must_use]
pub fn subgraph(graph: &Graph) -> String {
    let mut out = String::new();
    link(&mut out, graph);
    if !graph.fields.is_empty() {
        out.push_str("\ntype Subscription {\n");
        for field in graph.fields.values() {
            describe(&mut out, field.description.as_deref(), "  ");
            out.push_str("  ");
            out.push_str(&field.name);
            arguments(
                &mut out,
                field.arguments.iter().map(|argument| &argument.argument),
            );
            put(&mut out, format_args!(": {}", field.ty));
            end(&mut out, field.deprecated.as_deref(), &field.directives);
        }
        out.push_str("}\n");
    }
    for ty in graph.types.values().filter(|ty| !SCALARS.contains(&&*ty.name)) {
        out.push('\n');
        print(&mut out, ty);
    }
    out
}

fn link(out: &mut String, graph: &Graph) {
    let used: BTreeSet<&str> = all_directives(graph)
        .filter_map(|text| text.split('(').next())
        .filter(|name| !BUILT_IN.contains(name))
        .collect();
    put(out, format_args!("extend schema\n  @link(url: \"{FEDERATION}\""));
    if !used.is_empty() {
        let names: Vec<String> = used.iter().map(|name| format!("\"{name}\"")).collect();
        put(out, format_args!(", import: [{}]", names.join(", ")));
    }
    out.push_str(")\n");
}

fn all_directives(graph: &Graph) -> impl Iterator<Item = &String> {
    let of_fields = graph.fields.values().flat_map(|field| {
        let arguments = field.arguments.iter();
        let of_arguments = arguments.flat_map(|argument| &argument.argument.directives);
        field.directives.iter().chain(of_arguments)
    });
    let of_types = graph.types.values().flat_map(|ty| {
        let mut all: Vec<&String> = ty.directives.iter().collect();
        match &ty.kind {
            Kind::Scalar(_) | Kind::Union(_) => {}
            Kind::Enum(values) => all.extend(values.iter().flat_map(|value| &value.directives)),
            Kind::Object(object) => all.extend(object.fields.iter().flat_map(|field| &field.directives)),
            Kind::Interface(interface) => {
                all.extend(interface.fields.iter().flat_map(|field| &field.directives));
            }
            Kind::Input(fields) => all.extend(fields.iter().flat_map(|field| &field.directives)),
        }
        all
    });
    of_fields.chain(of_types)
}

fn print(out: &mut String, ty: &Type) {
    describe(out, ty.description.as_deref(), "");
    let name = &ty.name;
    match &ty.kind {
        Kind::Scalar(_) => {
            put(out, format_args!("scalar {name}"));
            end(out, None, &ty.directives);
        }
        Kind::Enum(values) => {
            head(out, "enum", ty, &[]);
            values.iter().for_each(|value| print_value(out, value));
            out.push_str("}\n");
        }
        Kind::Object(object) => {
            head(out, "type", ty, &object.interfaces);
            object.fields.iter().for_each(|field| print_field(out, field));
            out.push_str("}\n");
        }
        Kind::Interface(interface) => {
            head(out, "interface", ty, &interface.interfaces);
            interface.fields.iter().for_each(|field| print_field(out, field));
            out.push_str("}\n");
        }
        Kind::Union(union) => {
            let members: Vec<&str> = union.objects.iter().map(|name| &**name).collect();
            put(out, format_args!("union {name}"));
            beside(out, None, &ty.directives);
            put(out, format_args!(" = {}\n", members.join(" | ")));
        }
        Kind::Input(fields) => {
            head(out, "input", ty, &[]);
            for field in fields {
                describe(out, field.description.as_deref(), "  ");
                out.push_str("  ");
                argument(out, field);
                out.push('\n');
            }
            out.push_str("}\n");
        }
    }
}

fn head(out: &mut String, word: &str, ty: &Type, interfaces: &[Name]) {
    put(out, format_args!("{word} {}", ty.name));
    if !interfaces.is_empty() {
        put(out, format_args!(" implements {}", interfaces.join(" & ")));
    }
    beside(out, None, &ty.directives);
    out.push_str(" {\n");
}

fn print_value(out: &mut String, value: &EnumValue) {
    describe(out, value.description.as_deref(), "  ");
    put(out, format_args!("  {}", value.name));
    end(out, value.deprecated.as_deref(), &value.directives);
}

fn print_field(out: &mut String, field: &Field) {
    describe(out, field.description.as_deref(), "  ");
    put(out, format_args!("  {}: {}", field.name, field.ty));
    end(out, field.deprecated.as_deref(), &field.directives);
}

fn arguments<'a>(out: &mut String, arguments: impl Iterator<Item = &'a Argument>) {
    let arguments: Vec<&Argument> = arguments.collect();
    if arguments.is_empty() {
        return;
    }
    let described = arguments.iter().any(|one| one.description.is_some());
    out.push('(');
    for (place, one) in arguments.iter().enumerate() {
        if described {
            out.push('\n');
            describe(out, one.description.as_deref(), "    ");
            out.push_str("    ");
        } else if place > 0 {
            out.push_str(", ");
        }
        argument(out, one);
    }
    out.push_str(if described { "\n  )" } else { ")" });
}

fn argument(out: &mut String, argument: &Argument) {
    put(out, format_args!("{}: {}", argument.name, argument.ty));
    if let Some(default) = &argument.default {
        put(out, format_args!(" = {default}"));
    }
    beside(out, None, &argument.directives);
}

/// The directives of something, and the end of its line.
fn end(out: &mut String, deprecated: Option<&str>, directives: &[String]) {
    beside(out, deprecated, directives);
    out.push('\n');
}

fn beside(out: &mut String, deprecated: Option<&str>, directives: &[String]) {
    for directive in directives {
        put(out, format_args!(" {directive}"));
    }
    if let Some(reason) = deprecated {
        put(out, format_args!(" @deprecated(reason: {})", quoted(reason)));
    }
}

fn describe(out: &mut String, text: Option<&str>, indent: &str) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        put(out, format_args!("{indent}{}\n", quoted(text)));
    }
}

/// A string as GraphQL writes it (section 2.9.4), on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => put(&mut out, format_args!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use async_graphql_parser::types::TypeSystemDefinition;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_read_back_as_it_was(text in any::<String>()) {
            let sdl = format!("{} scalar X", quoted(&text));
            let document = async_graphql_parser::parse_schema(sdl).expect("SDL");
            let TypeSystemDefinition::Type(ty) = &document.definitions[0] else { panic!("a type") };
            prop_assert_eq!(ty.node.description.as_ref().map(|text| &text.node), Some(&text));
        }
    }
}
