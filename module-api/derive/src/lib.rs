//! `#[derive(Config)]` and `#[derive(Choice)]`: one definition gives the parser, the schema, the defaults and the manual.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Lit, LitBool, LitStr, Meta, Type, parse_macro_input,
};

/// Makes a struct with named fields a configuration table.
///
/// The doc comment of a field is its text in the manual. Attributes, in `#[config(...)]`:
/// `default = VALUE` (a literal or a list of literals), `min = N`, `max = N`, `key = "name"` (when the key is not the
/// field's name), `inherit = false` (the value holds where it is written, and not in the locations inside). A field without
/// a default is required, unless its type is `Option`. A field of type `Merged` gets the values of all levels instead of the
/// innermost one, and none if no level sets it.
#[proc_macro_derive(Config, attributes(config))]
pub fn config(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive_config(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes an enum without fields a choice between strings: the variants' names in snake case.
#[proc_macro_derive(Choice)]
pub fn choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive_choice(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn derive_config(input: &DeriveInput) -> Result<Tokens, Error> {
    let name = &input.ident;
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(name, "Config can be derived for structs only; for an enum derive Choice"));
    };
    let empty = Default::default();
    let fields = match &data.fields {
        Fields::Named(fields) => &fields.named,
        Fields::Unit => &empty,
        Fields::Unnamed(_) => {
            return Err(Error::new_spanned(name, "Config needs named fields: their names are the keys"));
        }
    };
    let mut schema = Vec::new();
    let mut reads = Vec::new();
    let mut inits = Vec::new();
    let mut enabled = quote!();
    for field in fields {
        let ident = field.ident.as_ref().expect("named fields have names");
        let ty = &field.ty;
        let options = FieldOptions::read(field)?;
        let key = options.key.clone().unwrap_or_else(|| ident.to_string().trim_start_matches("r#").to_string());
        let doc = doc_text(&field.attrs);
        let presence = match &options.default {
            Some(text) => quote!(::topnext_module_api::config::Presence::Default(#text)),
            None if is_option(ty) => quote!(::topnext_module_api::config::Presence::Optional),
            None => quote! {
                if <#ty as ::topnext_module_api::config::ConfigValue>::MERGE {
                    ::topnext_module_api::config::Presence::Optional
                } else {
                    ::topnext_module_api::config::Presence::Required
                }
            },
        };
        let limit = |value: &Option<i64>| match value {
            Some(value) => quote!(::core::option::Option::Some(#value)),
            None => quote!(::core::option::Option::None),
        };
        let (min, max) = (limit(&options.min), limit(&options.max));
        let inherit = options.inherit.unwrap_or(true);
        schema.push(quote! {
            ::topnext_module_api::config::Field {
                key: #key,
                ty: <#ty as ::topnext_module_api::config::ConfigValue>::TYPE,
                presence: #presence,
                merge: <#ty as ::topnext_module_api::config::ConfigValue>::MERGE,
                inherit: #inherit,
                min: #min,
                max: #max,
                doc: #doc,
            }
        });
        reads.push(quote!(let #ident = table.take::<#ty>(#key, errors);));
        inits.push(quote!(#ident: #ident?));
        if key == "enabled" {
            if !matches!(ty, Type::Path(path) if path.path.is_ident("bool")) {
                return Err(Error::new_spanned(ty, "the key `enabled` switches the module: its type is bool"));
            }
            enabled = quote! {
                fn enabled(&self) -> bool {
                    self.#ident
                }
            };
        }
    }
    let build = match &data.fields {
        Fields::Unit => quote!(#name),
        _ => quote!(#name { #(#inits),* }),
    };
    Ok(quote! {
        impl ::topnext_module_api::config::Config for #name {
            const FIELDS: &'static [::topnext_module_api::config::Field] = &[#(#schema),*];

            fn from_table(
                table: &mut ::topnext_module_api::config::Table,
                errors: &mut ::topnext_module_api::config::ConfigErrors,
            ) -> ::core::option::Option<Self> {
                #(#reads)*
                ::core::option::Option::Some(#build)
            }

            #enabled
        }

        impl ::topnext_module_api::config::ConfigValue for #name {
            const TYPE: &'static ::topnext_module_api::config::Type =
                &::topnext_module_api::config::Type::Table(<#name as ::topnext_module_api::config::Config>::FIELDS);

            fn from_value(
                value: ::topnext_module_api::config::Value,
                errors: &mut ::topnext_module_api::config::ConfigErrors,
            ) -> ::core::option::Option<Self> {
                ::topnext_module_api::config::table_from_value::<Self>(value, errors)
            }
        }
    })
}

fn derive_choice(input: &DeriveInput) -> Result<Tokens, Error> {
    let name = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(name, "Choice can be derived for enums only"));
    };
    let mut texts = Vec::new();
    let mut idents = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a Choice is a word: its variants have no fields"));
        }
        texts.push(snake_case(&variant.ident.to_string()));
        idents.push(&variant.ident);
    }
    Ok(quote! {
        impl ::topnext_module_api::config::ConfigValue for #name {
            const TYPE: &'static ::topnext_module_api::config::Type =
                &::topnext_module_api::config::Type::Choice(&[#(#texts),*]);

            fn from_value(
                value: ::topnext_module_api::config::Value,
                errors: &mut ::topnext_module_api::config::ConfigErrors,
            ) -> ::core::option::Option<Self> {
                let word = <::std::string::String as ::topnext_module_api::config::ConfigValue>::from_value(value, errors)?;
                match word.as_str() {
                    #(#texts => ::core::option::Option::Some(#name::#idents),)*
                    _ => errors.refuse(&[#(#texts),*], &word),
                }
            }
        }
    })
}

/// What `#[config(...)]` says about a field.
#[derive(Default)]
struct FieldOptions {
    /// The default as TOML text.
    default: Option<String>,
    min: Option<i64>,
    max: Option<i64>,
    key: Option<String>,
    inherit: Option<bool>,
}

impl FieldOptions {
    fn read(field: &Field) -> Result<FieldOptions, Error> {
        let mut options = FieldOptions::default();
        for attr in field.attrs.iter().filter(|attr| attr.path().is_ident("config")) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("default") {
                    options.default = Some(toml_text(&meta.value()?.parse::<Expr>()?)?);
                } else if meta.path.is_ident("min") {
                    options.min = Some(integer(&meta.value()?.parse::<Expr>()?)?);
                } else if meta.path.is_ident("max") {
                    options.max = Some(integer(&meta.value()?.parse::<Expr>()?)?);
                } else if meta.path.is_ident("key") {
                    options.key = Some(meta.value()?.parse::<LitStr>()?.value());
                } else if meta.path.is_ident("inherit") {
                    options.inherit = Some(meta.value()?.parse::<LitBool>()?.value());
                } else {
                    return Err(meta.error("expected default, min, max, key or inherit"));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}

/// A literal, or a list of them, as TOML writes it.
fn toml_text(expr: &Expr) -> Result<String, Error> {
    let bad = || Error::new_spanned(expr, "a default is a literal or a list of literals");
    Ok(match expr {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Str(text) => toml_string(&text.value()),
            Lit::Bool(flag) => flag.value.to_string(),
            Lit::Int(int) => int.base10_digits().to_string(),
            Lit::Float(float) => float.base10_digits().to_string(),
            _ => return Err(bad()),
        },
        Expr::Unary(_) => integer(expr)?.to_string(),
        Expr::Array(list) => {
            let items = list.elems.iter().map(toml_text).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        _ => return Err(bad()),
    })
}

fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn integer(expr: &Expr) -> Result<i64, Error> {
    match expr {
        Expr::Lit(lit) => match &lit.lit {
            Lit::Int(int) => int.base10_parse(),
            _ => Err(Error::new_spanned(expr, "expected an integer")),
        },
        Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Neg(_)) => Ok(-integer(&unary.expr)?),
        _ => Err(Error::new_spanned(expr, "expected an integer")),
    }
}

fn doc_text(attrs: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        if let Meta::NameValue(meta) = &attr.meta
            && let Expr::Lit(lit) = &meta.value
            && let Lit::Str(text) = &lit.lit
        {
            lines.push(text.value().trim().to_string());
        }
    }
    lines.join(" ").trim().to_string()
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
