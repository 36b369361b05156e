//! The access rules of a stream: `[[streams.NAME.access]]`.
//!
//! Invariant: rules are data with their place in the file; a rule that says less than it seems to say (no scopes, no
//! rows, both kinds of field lists) is refused. It does not know principals: `auth` compiles rules into grants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::AttributeId;
use crate::project::{Mask, Pointer};

use super::attribute::{self, Attribute, AttributeSource};
use super::finding::Place;
use super::nearest::nearest;
use super::settings::{Placed, Table};
use super::template::Template;

/// The most rules of one stream, because a grant has at most so many clauses.
pub const RULES_MAX: usize = 8;

/// One access rule: whoever holds one of the scopes gets a clause.
#[derive(Debug, Clone)]
pub struct AccessRule {
    /// Where it was declared.
    pub place: Place,
    /// Any of these suffices.
    pub scopes: Vec<String>,
    /// Which rows; the tenant is always ANDed.
    pub rows: Rows,
    /// Which fields.
    pub mask: Arc<Mask>,
}

/// Which rows a rule gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All of the tenant's.
    Tenant,
    /// Those whose attributes equal these templates.
    Match(Vec<(AttributeId, Template)>),
}

/// The field list of one rule, with its places.
#[derive(Debug)]
pub(super) enum Fields {
    /// Everything is shown.
    All,
    /// A deny-list, and where it starts.
    Hide(Place, Vec<Placed<Pointer>>),
    /// An allow-list, and where it starts.
    Show(Place, Vec<Placed<Pointer>>),
}

impl Fields {
    pub(super) fn pointers(&self) -> &[Placed<Pointer>] {
        match self {
            Self::All => &[],
            Self::Hide(_, pointers) | Self::Show(_, pointers) => pointers,
        }
    }

    /// Where the list is written.
    pub(super) fn place(&self) -> Option<&Place> {
        match self {
            Self::All => None,
            Self::Hide(place, _) | Self::Show(place, _) => Some(place),
        }
    }

    fn mask(&self) -> Mask {
        let values = |pointers: &[Placed<Pointer>]| -> Vec<Pointer> {
            pointers.iter().map(|pointer| pointer.value.clone()).collect()
        };
        match self {
            Self::All => Mask::nothing_hidden(),
            Self::Hide(_, pointers) => Mask::hide(values(pointers)),
            Self::Show(_, pointers) => Mask::show(values(pointers)),
        }
    }
}

/// The rules that one stream declares.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) rules: Vec<AccessRule>,
    pub(super) fields: Vec<Fields>,
}

impl Declared {
    /// Reads the stream's rules; its attributes are known by then.
    pub(super) fn read(stream: &Table, attributes: &attribute::Declared) -> Self {
        let tables = stream.tables("access");
        if tables.is_empty() && stream.is_whole() {
            let message = format!("nobody can read `{}`: it has no access rule", stream.path());
            let mend = format!("add [[{}.access]] with scopes and rows", stream.path());
            stream.report(stream.place(), "no_access_rule", message, mend);
        }
        if let Some(ninth) = tables.get(RULES_MAX) {
            let message = format!("`{}` has {} access rules", stream.path(), tables.len());
            let mend = format!(
                "write at most {RULES_MAX}: rules with equal rows and fields may share one list of scopes"
            );
            ninth.report(ninth.place(), "too_many_rules", message, mend);
        }
        let mut declared = Self::default();
        for table in &tables {
            let scopes = read_scopes(table);
            let rows = read_rows(table, attributes);
            let fields = read_fields(table);
            table.finish();
            if let (Some(scopes), Some(rows), Some(fields)) = (scopes, rows, &fields) {
                declared.rules.push(AccessRule {
                    place: table.place().clone(),
                    scopes,
                    rows,
                    mask: Arc::new(fields.mask()),
                });
            }
            declared.fields.extend(fields);
        }
        declared
    }
}

fn read_scopes(table: &Table) -> Option<Vec<String>> {
    let scopes = table.required_strings("scopes")?;
    if scopes.is_empty() {
        let message = "no scope is named, so that nobody gets this rule";
        table.report(
            table.place_of("scopes"),
            "scopes_empty",
            message,
            "name at least one scope",
        );
        return None;
    }
    for scope in &scopes {
        if let Some((message, mend)) = bad_scope(&scope.value) {
            table.report(&scope.place, "scope_invalid", message, mend);
        }
    }
    Some(scopes.into_iter().map(|scope| scope.value).collect())
}

/// Why text is no scope that a token could hold, and how to mend it.
fn bad_scope(scope: &str) -> Option<(String, String)> {
    let token = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    if scope.is_empty() || !scope.chars().all(token) {
        let mend = "write one scope a string, without spaces (RFC 6749, section 3.3)".to_owned();
        return Some((format!("{scope:?} is no scope"), mend));
    }
    let (context, rest) = scope.split_once('/')?;
    if !["patient", "user", "system"].contains(&context) {
        return None;
    }
    let mend = "write a SMART scope, such as \"patient/Observation.rs\"".to_owned();
    if let Some((bare, _)) = rest.split_once('?') {
        let message = format!("{scope:?} restricts rows inside the scope");
        return Some((
            message,
            format!("write \"{context}/{bare}\", and the restriction as `rows`"),
        ));
    }
    let Some((resource, access)) = rest.split_once('.') else {
        return Some((format!("{scope:?} does not say what it permits"), mend));
    };
    let named =
        resource == "*" || (!resource.is_empty() && resource.chars().all(|c| c.is_ascii_alphabetic()));
    if !named {
        return Some((format!("{scope:?} names no resource type"), mend));
    }
    if ["read", "*"].contains(&access) {
        return None;
    }
    let letters: String = "cruds"
        .chars()
        .filter(|letter| access.contains(*letter))
        .collect();
    if access == "write" || (letters == access && !letters.contains(['r', 's'])) {
        let message = format!("{scope:?} does not permit to read");
        return Some((message, format!("write \"{context}/{resource}.rs\"")));
    }
    if letters == access {
        return None;
    }
    let mend = if letters.is_empty() {
        mend
    } else {
        format!("did you mean \"{context}/{resource}.{letters}\"?")
    };
    Some((
        format!("{scope:?} is no SMART scope: permissions are letters of `cruds`, in that order"),
        mend,
    ))
}

fn read_rows(table: &Table, attributes: &attribute::Declared) -> Option<Rows> {
    let Some(value) = table.value("rows") else {
        table.missing("rows", "\"tenant\" or { attribute = \"{claims.NAME}\" }");
        return None;
    };
    if let Some(text) = value.as_str() {
        if text == "tenant" {
            return Some(Rows::Tenant);
        }
        let message = format!("`{}` does not know {text:?}", table.name("rows"));
        let mend = "write \"tenant\" for all rows of the tenant, or { attribute = \"{claims.NAME}\" }";
        table.report(value.place(), "unknown_value", message, mend);
        return None;
    }
    if !value.is_table() {
        return table.wrong("rows", value, "\"tenant\" or a table of attributes");
    }
    let rows = table.table("rows")?;
    let texts: Vec<_> = rows.keys().map(|key| key.map(str::to_owned)).collect();
    if texts.is_empty() {
        let message = "no row constraint is named";
        let mend = "write rows = \"tenant\" for all rows of the tenant";
        rows.report(rows.place(), "rows_empty", message, mend);
        return None;
    }
    let written = texts.len();
    let terms: Vec<_> = texts
        .into_iter()
        .filter_map(|name| read_term(&rows, &name, attributes))
        .collect();
    (terms.len() == written).then_some(Rows::Match(terms))
}

fn read_term(
    rows: &Table,
    name: &Placed<String>,
    attributes: &attribute::Declared,
) -> Option<(AttributeId, Template)> {
    let id = find_attribute(rows, name, attributes);
    let text = rows.str(&name.value)?;
    match Template::parse(&text.value) {
        Ok(template) => Some((id?, template)),
        Err(bad) => {
            let message = format!("{:?} is no template: {bad}", text.value);
            rows.report(&text.place, bad.code(), message, bad.mend());
            None
        }
    }
}

fn find_attribute(
    rows: &Table,
    name: &Placed<String>,
    attributes: &attribute::Declared,
) -> Option<AttributeId> {
    let same = |attribute: &Attribute| attribute.name.as_str() == name.value;
    let Some(at) = attributes.attributes.iter().position(same) else {
        if !attributes.written.contains(&name.value) {
            let message = format!(
                "rows are limited by `{}`, which is no attribute of the stream",
                name.value
            );
            let mend = match nearest(&name.value, attributes.written.iter().map(String::as_str)) {
                _ if name.value == "tenant" => "remove it: the tenant is compared always".to_owned(),
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("declare it: attributes = {{ {} = \"/pointer\" }}", name.value),
            };
            rows.report(&name.place, "row_attribute_unknown", message, mend);
        }
        return None;
    };
    let several = attributes.attributes.get(at).is_some_and(
        |attribute| matches!(&attribute.source, AttributeSource::Pointer(pointer) if pointer.has_wildcard()),
    );
    if several {
        let message = format!(
            "rows are limited by `{}`, which may have several values",
            name.value
        );
        let mend = "limit rows by an attribute without `*`: one value must decide";
        rows.report(&name.place, "row_attribute_wildcard", message, mend);
        return None;
    }
    u16::try_from(at).ok().map(AttributeId)
}

fn read_fields(table: &Table) -> Option<Fields> {
    let hide = table.strings("hide").map(|texts| read_pointers(table, texts));
    let show = table.strings("show").map(|texts| read_pointers(table, texts));
    match (hide, show) {
        (Some(_), Some(_)) => {
            let message = "`hide` and `show` in one rule contradict each other";
            let mend = "keep one: `show` is an allow-list, `hide` a deny-list";
            table.report(table.place_of("show"), "hide_and_show", message, mend);
            None
        }
        (Some(hide), None) => Some(Fields::Hide(table.place_of("hide").clone(), hide)),
        (None, Some(show)) => Some(Fields::Show(table.place_of("show").clone(), show)),
        (None, None) => Some(Fields::All),
    }
}

fn read_pointers(table: &Table, texts: Vec<Placed<String>>) -> Vec<Placed<Pointer>> {
    let mut seen = BTreeSet::new();
    let mut pointers = Vec::new();
    for text in texts {
        let Some(pointer) = attribute::read_pointer(table, &text.place, &text.value) else {
            continue;
        };
        if !seen.insert(pointer.clone()) {
            let message = format!("{:?} is named twice", text.value);
            table.report(&text.place, "duplicate", message, "remove one of them");
        }
        pointers.push(Placed {
            value: pointer,
            place: text.place,
        });
    }
    pointers
}
