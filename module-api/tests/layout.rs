//! The snapshot of the ABI: every type that a module and the host pass to each other, and every number that means
//! something in them, in `abi.txt`.
//!
//! A difference is either a mistake or a step of the ABI: a minor version (fields behind the last of a prefix type, new
//! numbers), or, for anything else, a new epoch before 1.0 is frozen and a new major version after. Accept it with
//! `UPDATE_ABI=1 cargo test -p topnext-module-api --test layout`.
//!
//! Types of other crates (abi_stable's own) are listed with size and alignment only.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use abi_stable::{
    StableAbi,
    type_layout::{TLData, TLField, TLFields, TLFunction, TypeLayout},
};
use topnext_module_api::{
    ABI_EPOCH, Code, FileKind, Level, Outcome, Phase,
    balancer::peer_number,
    host::ModuleFact,
    request::{number, text},
    root::ModuleRootRef,
    running::Hook,
};

#[test]
fn the_abi_is_as_it_was() {
    if cfg!(feature = "next-minor") {
        // This feature changes the ABI on purpose.
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("abi.txt");
    let found = snapshot();
    if env::var_os("UPDATE_ABI").is_some() {
        fs::write(&file, &found).expect("abi.txt can be written");
        return;
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    if found != expected {
        panic!(
            "the ABI differs from abi.txt (- expected, + found):\n{}\n{}",
            difference(&expected, &found),
            "If that is meant: UPDATE_ABI=1 cargo test -p topnext-module-api --test layout, and see src/version.rs"
        );
    }
}

#[test]
fn a_difference_is_shown_by_line() {
    assert_eq!(difference("a\nb\nc\n", "a\nx\nc\nd\n"), "- b\n+ x\n+ d\n");
    assert_eq!(difference("a\n", "a\n"), "");
    // A line that is also far behind hides nothing in between.
    assert_eq!(difference("\na\n\nb\n\nc\n", "\na\nb\n\nc\n\n"), "- \n+ \n");
}

/// The text of `abi.txt`.
fn snapshot() -> String {
    let mut types = BTreeMap::new();
    walk(<ModuleRootRef as StableAbi>::LAYOUT, &mut types);
    let mut out = format!("epoch {ABI_EPOCH}, {} bit pointers\n", usize::BITS);
    for text in types.values() {
        out.push('\n');
        out.push_str(text);
    }
    for (title, values) in numbers() {
        let _ = write!(out, "\n{title}:\n");
        values.iter().for_each(|(name, value)| out.push_str(&format!("  {value} {name}\n")));
    }
    out
}

/// Constants by their names, as [`numbers`] lists them.
macro_rules! named {
    ($of:ident: $($name:ident)*) => { vec![$((stringify!($name).to_owned(), i64::from($of::$name))),*] };
}

/// Variants by their names.
macro_rules! variants {
    ($of:ident: $($name:ident)*) => { vec![$((stringify!($name).to_owned(), $of::$name as i64)),*] };
}

/// What is passed as a plain number, with what each number means.
fn numbers() -> Vec<(&'static str, Vec<(String, i64)>)> {
    let code = |name: &str, code: Code| (name.to_owned(), i64::from(code.raw()));
    vec![
        ("request::text", named!(text: METHOD URI ARGS REQUEST_URI FILENAME HOST REMOTE_ADDR LOCATION)),
        (
            "request::number",
            named!(number: STATUS CONTENT_LENGTH HEADER_SENT VERSION UNSENT IS_MAIN BODY_LENGTH NOW_MS
                UPSTREAM_KEEPALIVE LOG_NOT_FOUND IS_CONDITIONAL ALLOW_RANGES OPEN_ERROR BODY_IN_MEMORY FOLLOWS_SYMLINKS),
        ),
        ("balancer::peer_number", named!(peer_number: WEIGHT BACKUP AVAILABLE CONNECTIONS FAILS DOWN MAX_FAILS COUNT)),
        ("Hook", Hook::ALL.iter().map(|hook| (hook.name().to_owned(), i64::from(hook.0))).collect()),
        (
            "Code",
            vec![
                code("OK", Code::OK),
                code("ERROR", Code::ERROR),
                code("AGAIN", Code::AGAIN),
                code("DONE", Code::DONE),
                code("DECLINED", Code::DECLINED),
                code("status(100)", Code::status(100)),
                code("status(599)", Code::status(599)),
            ],
        ),
        ("Phase", Phase::ALL.iter().map(|phase| (phase.name().to_owned(), *phase as i64)).collect()),
        ("Level", variants!(Level: Emerg Alert Crit Error Warn Notice Info Debug)),
        ("FileKind", variants!(FileKind: Regular Directory Other)),
        ("Outcome", variants!(Outcome: Ok Failed Unknown)),
        ("ModuleFact", variants!(ModuleFact: Name Version Provides File About)),
    ]
}

/// The constants of a module in its source, `pub const NAME: u32 = VALUE;`.
fn constants(source: &str, module: &str) -> Vec<(String, i64)> {
    let start = source.find(&format!("pub mod {module} {{")).expect("the module is in this file");
    let body = &source[start..start + source[start..].find("\n}").expect("and ends")];
    let constants = body.lines().filter_map(|line| line.trim().strip_prefix("pub const "));
    constants
        .map(|line| {
            let (name, value) = line.trim_end_matches(';').split_once(": u32 = ").expect("all are u32");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// The variants of an enumeration in its source, `Name = VALUE,`.
fn variants_of(source: &str, name: &str) -> Vec<(String, i64)> {
    let start = source.find(&format!("pub enum {name} {{")).expect("the enumeration is in this file");
    let body = &source[start..start + source[start..].find("\n}").expect("and ends")];
    let variants = body.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "));
    variants.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn no_number_is_missing_in_the_snapshot() {
    let found: BTreeMap<_, _> = numbers().into_iter().collect();
    let sorted = |mut values: Vec<(String, i64)>| {
        values.sort_by_key(|(_, value)| *value);
        values
    };
    let (request, balancer) = (include_str!("../src/request.rs"), include_str!("../src/balancer.rs"));
    for (title, source, module) in [
        ("request::text", request, "text"),
        ("request::number", request, "number"),
        ("balancer::peer_number", balancer, "peer_number"),
    ] {
        assert_eq!(sorted(constants(source, module)), sorted(found[title].clone()), "{title}");
    }
    for (name, source) in [
        ("Level", include_str!("../src/log.rs")),
        ("FileKind", include_str!("../src/file.rs")),
        ("Outcome", balancer),
        ("ModuleFact", include_str!("../src/host.rs")),
    ] {
        assert_eq!(variants_of(source, name), found[name], "{name}");
    }
}

/// The type as Rust writes it. abi_stable leaves the arguments of its own generic types out, which are put in here.
fn name_of(layout: &TypeLayout) -> String {
    let fields = || layout.get_fields().into_iter().flat_map(|fields| fields.to_vec()).map(|field| field.layout());
    let arguments: Vec<String> = match layout.name() {
        "ROption" | "RResult" | "Tuple2" => fields().map(name_of).collect(),
        "RSlice" => fields().filter_map(pointee).map(name_of).collect(),
        "RVec" => phantoms(layout).map(name_of).collect(),
        _ => match pointee(layout) {
            Some(to) => return format!("{}{}", pointer(layout), name_of(to)),
            None => {
                return layout.full_type().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            }
        },
    };
    format!("{}<{}>", layout.name(), arguments.join(", "))
}

/// What the `PhantomData` among the fields stand for.
fn phantoms(layout: &TypeLayout) -> impl Iterator<Item = &'static TypeLayout> {
    let fields = layout.get_fields().into_iter().chain([layout.phantom_fields()]).flat_map(|fields| fields.to_vec());
    let markers = fields.map(|field| field.layout()).filter(|layout| layout.name() == "PhantomData");
    markers.filter_map(|layout| layout.generics().type_params().first().map(|to| to()))
}

/// What a reference or a pointer points to.
fn pointee(layout: &TypeLayout) -> Option<&'static TypeLayout> {
    let to = layout.generics().type_params().first()?;
    ["&", "*"].iter().any(|sign| layout.full_type().to_string().starts_with(sign)).then(|| to())
}

/// The part of a reference's or pointer's name before what it points to.
fn pointer(layout: &TypeLayout) -> &'static str {
    let name = layout.full_type().to_string();
    match (name.starts_with('&'), name.split_whitespace().any(|word| word == "mut" || word == "*mut")) {
        (true, false) => "&",
        (true, true) => "&mut ",
        (false, false) => "*const ",
        (false, true) => "*mut ",
    }
}

/// Describes the type and all that can be reached from it.
fn walk(layout: &'static TypeLayout, types: &mut BTreeMap<String, String>) {
    let name = name_of(layout);
    if types.contains_key(&name) {
        return;
    }
    types.insert(name.clone(), String::new());
    let mut text = format!("{name}: size {}, align {}\n", layout.size(), layout.alignment());
    if layout.package() == env!("CARGO_PKG_NAME") {
        describe(layout, &mut text);
    }
    types.insert(name, text);
    let fields = [layout.get_fields(), Some(layout.phantom_fields())];
    for field in fields.iter().flatten().flat_map(TLFields::iter) {
        if field.is_function() {
            field.function_range().iter().for_each(|function| walk_function(&function, types));
        } else {
            walk(field.layout(), types);
        }
    }
    layout.shared_vars().type_layouts().iter().for_each(|layout| walk(layout(), types));
}

fn walk_function(function: &TLFunction, types: &mut BTreeMap<String, String>) {
    function.param_type_layouts.iter().for_each(|layout| walk(layout(), types));
    if let Some(layout) = function.return_type_layout() {
        walk(layout(), types);
    }
}

fn describe(layout: &TypeLayout, out: &mut String) {
    let _ = match layout.data() {
        TLData::Primitive(primitive) => writeln!(out, "  primitive {primitive:?}"),
        TLData::Opaque => writeln!(out, "  opaque"),
        TLData::Struct { fields } => describe_struct(fields, out),
        TLData::Union { fields } => writeln!(out, "  union").and_then(|()| describe_fields(fields, out)),
        TLData::PrefixType(prefix) => {
            writeln!(out, "  prefix type, {} fields are always there", prefix.first_suffix_field)
                .and_then(|()| describe_struct(prefix.fields, out))
        }
        TLData::Enum(variants) => {
            let names: Vec<_> = variants.variant_names_iter().collect();
            writeln!(out, "  enum {:?} = {:?}", names, variants.discriminants)
                .and_then(|()| writeln!(out, "  fields of each: {:?}", variants.field_count))
                .and_then(|()| describe_fields(variants.fields, out))
        }
    };
}

fn describe_fields(fields: TLFields, out: &mut String) -> std::fmt::Result {
    fields.iter().enumerate().try_for_each(|(at, field)| writeln!(out, "  {at} {}: {}", field.name(), type_of(&field)))
}

/// Fields with their offsets, which follow from sizes and alignments, since all structs of the ABI are `repr(C)`.
fn describe_struct(fields: TLFields, out: &mut String) -> std::fmt::Result {
    let mut offset = 0_usize;
    fields.iter().try_for_each(|field| {
        offset = offset.next_multiple_of(field.layout().alignment());
        writeln!(out, "  +{offset} {}: {}", field.name(), type_of(&field))?;
        offset += field.layout().size();
        Ok(())
    })
}

fn type_of(field: &TLField) -> String {
    if !field.is_function() {
        return name_of(field.layout());
    }
    let functions: Vec<String> = field.function_range().iter().map(|function| signature(&function)).collect();
    functions.join(" and ")
}

fn signature(function: &TLFunction) -> String {
    let types = function.param_type_layouts.iter().map(|layout| name_of(layout()));
    let names = function.param_names.as_str().split([',', ';']).map(str::trim);
    let params: Vec<String> =
        names.zip(types).map(|(name, ty)| if name.is_empty() { ty } else { format!("{name}: {ty}") }).collect();
    let returns = function.return_type_layout().map_or("()".to_string(), |layout| name_of(layout()));
    let safety = if function.fn_qualifs.is_unsafe() { "unsafe " } else { "" };
    format!("{safety}fn({}) -> {returns}", params.join(", "))
}

/// The lines that only one of the texts has, in order: all but a longest common subsequence.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    // The length of that of what follows line i of the old and line j of the new.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut out, mut i, mut j) = (String::new(), 0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            out.push_str(&format!("- {}\n", old[i]));
            i += 1;
        } else {
            out.push_str(&format!("+ {}\n", new[j]));
            j += 1;
        }
    }
    out
}
