//! The reference manual, in Markdown, from the definitions that the checks use.

use std::fmt::Write;

use super::core_directives::{directives, module_fields};
use super::directive::{Contexts, Field, Presence, Type};
use super::schema::ModuleSchema;

/// All directives of the server, by the outermost place in which each may stand.
pub fn reference() -> String {
    const SECTIONS: [(Contexts, &str); 5] = [
        (Contexts::MAIN, "Top level"),
        (Contexts::HTTP, "`[http]`"),
        (Contexts::SERVER, "`[[http.server]]`"),
        (Contexts::LOCATION, "`[[http.server.location]]`"),
        (Contexts::UPSTREAM, "`[http.upstream.NAME]`"),
    ];
    let mut text = String::from("# Directives\n");
    let mut above = Contexts::NONE;
    for (context, title) in SECTIONS {
        line(&mut text, format_args!("\n## {title}"));
        let here = directives().iter().filter(|directive| directive.contexts.meets(context));
        for directive in here.filter(|directive| !directive.contexts.meets(above)) {
            line(&mut text, format_args!("\n### {}\n", directive.name));
            line(&mut text, format_args!("- Type: {}", directive.ty.short()));
            if !directive.default.is_empty() {
                line(&mut text, format_args!("- Default: `{}`", directive.default));
            }
            line(&mut text, format_args!("- Context: {}\n\n{}", directive.contexts.names(), directive.doc));
            if directive.name == "module" {
                fields(&mut text, &module_fields(), "");
            }
            keys_of(&mut text, &directive.ty, "");
        }
        above = above.or(context);
    }
    text
}

/// The keys of a module.
pub fn module_reference(schema: &ModuleSchema) -> String {
    let mut text = format!("# {}\n\nContext: {}\n", schema.name, schema.contexts.names());
    if schema.fields.is_empty() {
        text.push_str("\nThis module has no keys.\n");
    }
    fields(&mut text, &schema.fields, "");
    text
}

/// The keys of the tables that a type consists of.
fn keys_of(text: &mut String, ty: &Type, prefix: &str) {
    match ty {
        Type::Table(inner) => fields(text, inner, prefix),
        Type::List(element) | Type::Map(element) => keys_of(text, element, prefix),
        Type::OneOf(types) => {
            // A table or a list of such tables: the same keys, told once.
            let mut told: Vec<String> = Vec::new();
            for ty in types {
                let mut keys = String::new();
                keys_of(&mut keys, ty, prefix);
                if !told.contains(&keys) {
                    text.push_str(&keys);
                    told.push(keys);
                }
            }
        }
        _ => {}
    }
}

/// A Markdown table of fields; those of inner tables follow in the same table as `outer.inner`.
fn fields(text: &mut String, fields: &[Field], prefix: &str) {
    if fields.is_empty() {
        return;
    }
    if prefix.is_empty() {
        text.push_str("\n| Key | Type | Default | |\n|---|---|---|---|\n");
    }
    for field in fields {
        let key = format!("{prefix}{}", field.key);
        let default = match &field.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "none".to_owned(),
            Presence::Default { text, .. } => format!("`{}`", cell(text)),
        };
        let levels = match field.merge {
            true => " The values of all levels apply.",
            false if !field.inherit => " Not inherited.",
            false => "",
        };
        let ty = match &field.ty {
            Type::Table(_) => "table".to_owned(),
            Type::List(element) if matches!(**element, Type::Table(_)) => "list of tables".to_owned(),
            ty => ty.short(),
        };
        line(text, format_args!("| `{}` | {} | {default} | {}{levels} |", cell(&key), cell(&ty), cell(&field.doc)));
        keys_of(text, &field.ty, &format!("{key}."));
    }
}

/// Text that does not end a cell of a table early.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_stands_in_the_reference_once() {
        let text = reference();
        for directive in directives() {
            let same = directives().iter().filter(|other| other.name == directive.name).count();
            assert_eq!(text.matches(&format!("\n### {}\n", directive.name)).count(), same, "{}", directive.name);
            assert!(text.contains(directive.doc));
        }
        assert!(text.contains("\n### worker_connections\n\n- Type: integer from 16 to 1048576\n- Default: `512`\n"));
        assert!(text.contains("| `weight` | integer from 1 to 65535 | `1` |"));
    }

    #[test]
    fn a_module_has_a_table_of_its_keys() {
        let description = "config = [
            { key = \"types\", type = { list = { string = {} } }, default = '[\"a|b\"]', merge = true, doc = \"Types.\" },
            { key = \"h\", type = { list = { table = [ { key = \"name\", type = { string = {} }, doc = \"N.\" } ] } }, optional = true },
        ]";
        let schema = ModuleSchema::parse(description, "m", Contexts::HTTP.or(Contexts::SERVER)).unwrap();
        assert_eq!(
            module_reference(&schema),
            "# m\n\nContext: http, server\n\n| Key | Type | Default | |\n|---|---|---|---|\n\
             | `types` | list of string | `[\"a\\|b\"]` | Types. The values of all levels apply. |\n\
             | `h` | list of tables | none |  |\n\
             | `h.name` | string | required | N. |\n"
        );
    }
}
