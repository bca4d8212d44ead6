//! Components that are whole and do not fit: other worlds, versions, types, imports, nesting.

use crate::case::{Case, Step::Load, case, guest};
use crate::fixtures::Guest;

pub fn rows() -> Vec<Case> {
    [worlds(), versions(), types(), imports(), nesting()].into_iter().flatten().collect()
}

fn text(name: &str, component: &str) -> Case {
    case(name, wat::parse_str(component).unwrap())
}

fn worlds() -> Vec<Case> {
    let world = |name, world| guest(name, Guest { world, ..Guest::default() });
    vec![
        text("exports nothing", "(component)").fails(Load, "contract", "?"),
        world("exports settings and no decision", "export stoker:policy/settings@0.1.0;")
            .fails(Load, "contract", "?"),
        world("exports a decision and no settings", "export stoker:policy/scaling@0.1.0;")
            .fails(Load, "contract", "?"),
        text(
            "exports empty instances of the right names",
            r#"(component (instance $empty)
                (export "stoker:policy/settings@0.1.0" (instance $empty))
                (export "stoker:policy/scaling@0.1.0" (instance $empty)))"#,
        )
        .fails(Load, "contract", "?"),
        text(
            "exports components of the right names",
            r#"(component (component $empty)
                (export "stoker:policy/settings@0.1.0" (component $empty))
                (export "stoker:policy/scaling@0.1.0" (component $empty)))"#,
        )
        .fails(Load, "contract", "?"),
        text("exports the program of a command", r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#)
            .fails(Load, "contract", "?"),
    ]
}

fn versions() -> Vec<Case> {
    let version = |version| {
        let name = format!("version {version} of the contract");
        guest(&name, Guest { version, ..Guest::default() })
    };
    vec![
        version("0.2.0").fails(Load, "contract", "?"),
        version("1.0.0").fails(Load, "contract", "?"),
        version("2.0.0").fails(Load, "contract", "?"),
        version("0.1.0-rc.1").fails(Load, "contract", "?"),
        version("0.1.99"),
        text(
            "100,000 exports of other versions",
            &format!(
                "(component (instance $empty) {})",
                (0..100_000).fold(String::new(), |text, patch| {
                    text + &format!(r#"(export "stoker:policy/scaling@9.0.{patch}" (instance $empty))"#)
                })
            ),
        )
        .fails(Load, "contract", "?"),
    ]
}

/// The right names with other types.
fn types() -> Vec<Case> {
    let mistakes = |name, right, wrong| {
        guest(name, Guest { mistakes: (right, wrong), ..Guest::default() })
    };
    vec![
        mistakes("a decision with a field more", "desired: u32,\n        /// For", "desired: u32, extra: u32,\n///")
            .fails(Load, "contract", "?"),
        mistakes("an input with a field less", "idle-target: u32,\n", "\n").fails(Load, "contract", "?"),
        mistakes("a number of another size", "desired: u32,\n        /// For", "desired: u64,\n///")
            .fails(Load, "contract", "?"),
        mistakes("a field of another name", "idle-target: u32,\n", "spare-target: u32,\n").fails(Load, "contract", "?"),
        mistakes("scale with another signature", "scale: func(input: input) -> decision", "scale: func(input: input) -> u32")
            .fails(Load, "contract", "?"),
        guest(
            "scale under another name",
            Guest {
                mistakes: ("scale: func(", "size: func("),
                more: r#"(export "stoker:policy/scaling@0.1.0#size" (func $scale))"#,
                ..Guest::default()
            },
        )
        .fails(Load, "contract", "?"),
        mistakes("scale with a parameter more", "scale: func(input: input)", "scale: func(input: input, more: u32)")
            .fails(Load, "contract", "?"),
        mistakes("an enum with a case more", "enum pod-state {", "enum pod-state { gone,").fails(Load, "contract", "?"),
    ]
}

/// A component of the right names that imports something more.
fn importing(name: &str, import: &str) -> Case {
    let exports = r#"(instance $empty)
        (export "stoker:policy/settings@0.1.0" (instance $empty))
        (export "stoker:policy/scaling@0.1.0" (instance $empty))"#;
    text(name, &format!("(component {import} {exports})"))
}

fn imports() -> Vec<Case> {
    let instance = |name: &str| importing(&format!("imports {name}"), &format!(r#"(import "{name}" (instance))"#));
    let many = (0..100_000).map(|number| format!(r#"(import "i{number}" (instance))"#));
    vec![
        instance("wasi:sockets/tcp@0.2.0").fails(Load, "contract", "?"),
        instance("wasi:http/outgoing-handler@0.2.0").fails(Load, "contract", "?"),
        instance("wasi:keyvalue/store@0.2.0-draft").fails(Load, "contract", "?"),
        instance("wasi:cli/environment@0.3.0").fails(Load, "contract", "?"),
        instance("wasi:cli/environment").fails(Load, "contract", "?"),
        instance("stoker:policy/log@2.0.0").fails(Load, "contract", "?"),
        instance("stoker:policy/secrets@0.1.0").fails(Load, "contract", "?"),
        importing("imports a function of the host", r#"(import "read-secret" (func))"#).fails(Load, "contract", "?"),
        importing("imports a core module", r#"(import "env" (core module (import "env" "memory" (memory 1))))"#)
            .fails(Load, "contract", "?"),
        importing("imports a component", r#"(import "other" (component))"#).fails(Load, "contract", "?"),
        importing("imports a type of resource", r#"(import "secret" (type (sub resource)))"#).fails(Load, "contract", "?"),
        importing("imports a function of a served name", r#"(import "wasi:cli/environment@0.2.0" (func))"#)
            .fails(Load, "compile", "?"),
        importing(
            "imports a function more of log",
            r#"(import "stoker:policy/log@0.1.0" (instance (export "read" (func (result string)))))"#,
        )
        .fails(Load, "contract", "?"),
        importing(
            "imports log with other types",
            r#"(import "stoker:policy/log@0.1.0" (instance (export "write" (func (param "level" u64)))))"#,
        )
        .fails(Load, "contract", "?"),
        importing(
            "imports a file's type that does not exist",
            r#"(import "wasi:filesystem/types@0.2.0" (instance (export "device" (type (sub resource)))))"#,
        )
        .fails(Load, "contract", "?"),
        importing("imports under a name of 90,000 bytes", &format!(r#"(import "{}" (instance))"#, "a".repeat(90_000)))
            .fails(Load, "contract", "?"),
        importing(
            "imports a function of 90,000 bytes",
            &format!(
                r#"(import "stoker:policy/log@0.1.0" (instance (export "{}" (func))))"#,
                "a".repeat(90_000)
            ),
        )
        .fails(Load, "contract", "?"),
        importing("imports under a name that clears the screen", r#"(import "\1b[2J\n" (instance))"#)
            .fails(Load, "contract", "?"),
        importing(
            "imports a compiler's excuse",
            r#"(import "wasi:cli/environment@0.2.0" (instance (export "memory allocation" (func))))"#,
        )
        .fails(Load, "compile", "?"),
        importing("100,000 imports", &many.collect::<String>()).fails(Load, "contract", "?"),
    ]
}

fn nesting() -> Vec<Case> {
    let nested = |depth| {
        let good = Guest::default().bytes();
        let inner = (1..depth).fold(empty(), |inner, _| [empty(), section(4, &inner)].concat());
        case(format!("components nested {depth} deep"), [good.to_vec(), section(4, &inner)].concat())
    };
    vec![nested(15), nested(16), nested(100).fails(Load, "contract", "?"), nested(50_000).fails(Load, "contract", "?")]
}

/// A component without anything.
fn empty() -> Vec<u8> {
    b"\0asm\x0d\0\x01\0".to_vec()
}

/// A section of a component or a module.
pub fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], number(content.len()).as_slice(), content].concat()
}

/// A number as the binary format writes it (LEB128).
pub fn number(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

/// A good component with one more core module in it, which nothing uses.
pub fn with_module(module: &[u8]) -> Vec<u8> {
    [Guest::default().bytes().to_vec(), section(1, module)].concat()
}
