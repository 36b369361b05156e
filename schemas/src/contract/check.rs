//! What can only be checked once the streams and the SDL are both read.
//!
//! Invariant: a pointer that reaches nothing is refused wherever it stands, since a mistyped `hide` would show what it
//! should hide; and a field that the SDL promises never to be null is never hidden. It does not know files.

use super::access::Fields;
use super::finding::{Findings, Place};
use super::nearest::nearest;
use super::sdl::{End, Missing, Sdl, written};
use super::settings::Placed;
use super::stream::Declared;
use crate::project::Pointer;

/// Checks one stream against the SDL.
pub(super) fn stream(declared: &Declared, sdl: &Sdl, findings: &Findings) {
    let Some(schema) = &declared.schema else {
        let lists = || declared.fields.iter().filter_map(Fields::place);
        lists().for_each(|place| schema_missing(place, findings));
        return;
    };
    if let Err(mend) = sdl.data_type(&schema.value) {
        let message = format!("`{}` is no type of data in the SDL", schema.value);
        findings.report(&schema.place, "schema_unknown", message, mend);
        return;
    }
    let root = schema.value.as_str();
    for pointer in &declared.pointers {
        let path = path(&pointer.value);
        match sdl.find(root, &path) {
            Ok(End::Leaf | End::Open) => {}
            Ok(End::Object) => {
                let message = format!(
                    "{:?} is an object, so that the attribute never has a value",
                    written(&path)
                );
                findings.report(
                    &pointer.place,
                    "attribute_no_value",
                    message,
                    "point at a field of it",
                );
            }
            Ok(End::List) => {
                let message = format!(
                    "{:?} is a list, so that the attribute never has a value",
                    written(&path)
                );
                let mend = format!("write \"{}/*\" for each of its elements", written(&path));
                findings.report(&pointer.place, "attribute_no_value", message, mend);
            }
            Err(missing) => report_missing(root, pointer, &path, missing, findings),
        }
    }
    if let Some(pointer) = &declared.tenant {
        tenant(sdl, root, pointer, findings);
    }
    for fields in &declared.fields {
        let mut known = Vec::new();
        for pointer in fields.pointers() {
            let path = path(&pointer.value);
            match sdl.find(root, &path) {
                Ok(_) => known.push((pointer, path)),
                Err(missing) => report_missing(root, pointer, &path, missing, findings),
            }
        }
        match fields {
            Fields::All => {}
            Fields::Hide(..) => known
                .iter()
                .for_each(|(pointer, path)| hidden(sdl, root, pointer, path, findings)),
            Fields::Show(place, pointers) if known.len() == pointers.len() => {
                let shown: Vec<_> = known.into_iter().map(|(_, path)| path).collect();
                left_out(sdl, root, place, &shown, findings);
            }
            // A mistyped pointer is told already; what it would have shown is not known.
            Fields::Show(..) => {}
        }
    }
}

/// Without a type nobody can tell a field from a slip of the finger, and a slip in a field list shows what it should hide.
fn schema_missing(place: &Place, findings: &Findings) {
    let message = "the stream names no `schema`, so that these pointers cannot be checked: one that is mistyped would hide nothing";
    let mend =
        "declare the type of the data in a *.graphql file, and write schema = \"TYPE\" into the stream";
    findings.report(place, "schema_missing", message, mend);
}

/// The tenant's pointer. A tenant is not always part of the data that readers are promised, so a field that the type does
/// not have at its top is let through, unless it looks like one that it has: then every record would go to nobody.
fn tenant(sdl: &Sdl, root: &str, pointer: &Placed<Pointer>, findings: &Findings) {
    let path = path(&pointer.value);
    match sdl.find(root, &path) {
        Ok(End::Leaf | End::Open) => {}
        Ok(End::Object | End::List) => {
            let message = format!("{:?} is an object or a list, and no tenant", written(&path));
            findings.report(&pointer.place, "tenant_no_value", message, "point at one string");
        }
        Err(Missing::Field {
            segment,
            inside,
            known,
        }) if inside == root
            && path.first() == Some(&segment)
            && !known.contains(&segment)
            && nearest(&segment, known.iter().map(String::as_str)).is_none() => {}
        Err(missing) => report_missing(root, pointer, &path, missing, findings),
    }
}

fn hidden(sdl: &Sdl, root: &str, pointer: &Placed<Pointer>, path: &[String], findings: &Findings) {
    for hit in sdl.non_null_at(root, path) {
        if hit.is_discriminator {
            let message = format!(
                "{:?} is hidden, and tells the objects of `{}` apart",
                written(path),
                hit.field
            );
            let mend = "hide the whole object, or what is below it";
            findings.report(&pointer.place, "hidden_discriminator", message, mend);
            continue;
        }
        let message = format!(
            "{:?} is hidden, and `{}` is non-null in the SDL",
            written(path),
            hit.field
        );
        let mend = if hit.pointer.ends_with("/*") {
            format!(
                "let the elements of `{}` be nullable in the SDL, or hide the whole list",
                hit.field
            )
        } else {
            format!(
                "let `{}` be nullable in the SDL (drop the `!`), or hide a nullable field",
                hit.field
            )
        };
        findings.report(&pointer.place, "hidden_non_null", message, mend);
    }
}

fn left_out(sdl: &Sdl, root: &str, place: &Place, shown: &[Vec<String>], findings: &Findings) {
    for hit in sdl.non_null_beside(root, shown) {
        if hit.is_discriminator {
            let message = format!(
                "`show` leaves out what tells the objects of `{}` apart",
                hit.field
            );
            let mend = format!("add {:?}", hit.pointer);
            findings.report(place, "hidden_discriminator", message, mend);
            continue;
        }
        let message = format!("`show` leaves out `{}`, which is non-null in the SDL", hit.field);
        let mend = format!(
            "add {:?}, or let the field be nullable in the SDL (drop the `!`)",
            hit.pointer
        );
        findings.report(place, "hidden_non_null", message, mend);
    }
}

fn report_missing(
    root: &str,
    pointer: &Placed<Pointer>,
    path: &[String],
    missing: Missing,
    findings: &Findings,
) {
    let text = written(path);
    let (why, mend) = match missing {
        Missing::Field {
            segment,
            inside,
            known,
        } => {
            let mend = match nearest(&segment, known.iter().map(String::as_str)) {
                Some(field) => format!("did you mean `{field}`?"),
                None => format!("add the field to `{inside}` in the SDL, or point elsewhere"),
            };
            (format!("`{inside}` has no field `{segment}`"), mend)
        }
        Missing::List { depth } => {
            let (list, rest) = path.split_at(depth.min(path.len()));
            let mend = format!("write \"{}/*{}\"", written(list), written(rest));
            (format!("\"{}\" is a list", written(list)), mend)
        }
        Missing::Leaf { segment, inside } => (
            format!("nothing is below a `{inside}`, and `{segment}` is not"),
            "point at the value itself".to_owned(),
        ),
    };
    let message = format!("\"{text}\" does not exist in `{root}`: {why}");
    findings.report(&pointer.place, "pointer_unknown", message, mend);
}

fn path(pointer: &Pointer) -> Vec<String> {
    pointer.segments().map(str::to_owned).collect()
}
