//! Components that are whole and do not fit: other worlds, versions, types, imports, nesting.

use wasmparser::{Parser, Payload};

use crate::case::{Case, case, guest};
use crate::fixtures::Guest;

const NO_SETTINGS: &str = "exports no settings of stoker:policy@1.0.0, which every policy needs";
const NO_DECISION: &str = "exports none of scaling, busyness, warm-up of stoker:policy@1.0.0";

pub fn rows() -> Vec<Case> {
    [worlds(), versions(), types(), imports(), nesting()].concat()
}

fn text(name: &str, component: &str) -> Case {
    case(name, wat::parse_str(component).unwrap())
}

fn worlds() -> Vec<Case> {
    let world = |name, world| guest(name, Guest { world, ..Guest::default() });
    let neither = format!("{NO_SETTINGS}; {NO_DECISION}");
    vec![
        text("exports nothing", "(component)").misfits(&neither),
        world("exports settings and no decision", "export stoker:policy/settings@1.0.0;")
            .misfits(NO_DECISION),
        world("exports a decision and no settings", "export stoker:policy/scaling@1.0.0;")
            .misfits(NO_SETTINGS),
        text("exports empty instances of the right names", &format!("(component {NAMES})")).misfits(
            "instance export `stoker:policy/settings@1.0.0` does not have export `describe`; \
            build it against the wit/ folder of this release",
        ),
        text(
            "exports components of the right names",
            r#"(component (component $empty)
                (export "stoker:policy/settings@1.0.0" (component $empty))
                (export "stoker:policy/scaling@1.0.0" (component $empty)))"#,
        )
        .misfits(&neither),
        text(
            "exports what a program does",
            r#"(component (instance $empty) (export "wasi:cli/run@0.2.0" (instance $empty)))"#,
        )
        .misfits(&neither),
    ]
}

/// Instances that have no more than the right names.
pub const NAMES: &str = r#"(instance $empty)
    (export "stoker:policy/settings@1.0.0" (instance $empty))
    (export "stoker:policy/scaling@1.0.0" (instance $empty))"#;

fn versions() -> Vec<Case> {
    let version =
        |version| guest(&format!("version {version} of the contract"), Guest { version, ..Guest::default() });
    let other = |other: &'static str| {
        version(other).misfits(&format!(
            "imports stoker:policy/types@{other}, this host serves 1.0.x; \
            exports stoker:policy/settings@{other}, this host speaks 1.0.x; \
            exports stoker:policy/scaling@{other}, this host speaks 1.0.x"
        ))
    };
    let patch = |patch| format!(r#"(export "stoker:policy/scaling@9.0.{patch}" (instance $empty))"#);
    let thousand: String = (0..1_000).map(patch).collect();
    let told: String = (0..8)
        .map(|patch| format!("exports stoker:policy/scaling@9.0.{patch}, this host speaks 1.0.x; "))
        .collect();
    vec![
        other("0.1.0"),
        other("1.1.0"),
        other("2.0.0"),
        other("1.0.0-rc.1"),
        version("1.0.99"),
        text("a thousand exports of other versions", &format!("(component (instance $empty) {thousand})"))
            .misfits(&format!("{told}and 993 more problems")),
    ]
}

/// The right names with other types.
fn types() -> Vec<Case> {
    let mistaken = |name, (right, wrong), words: &str| {
        let more = r#"(export "stoker:policy/scaling@1.0.0#size" (func $scale))"#;
        guest(name, Guest { mistakes: (right, wrong), more, ..Guest::default() })
            .misfits(&format!("{words}; build it against the wit/ folder of this release"))
    };
    let parameters = "failed to convert function to given type: type mismatch with parameters:";
    let results = "failed to convert function to given type: type mismatch with results:";
    // The decision's field follows its record's name; others of that name do not.
    let desired = "record decision {\n        /// Replicas";
    vec![
        mistaken(
            "a decision with a field more",
            (desired, "record decision { extra: u32,\n ///"),
            &format!("{results} expected record of 7 fields, found 8 fields"),
        ),
        mistaken(
            "an input with a field less",
            ("idle-target: u32,\n", "\n"),
            &format!("{parameters} expected record of 15 fields, found 14 fields"),
        ),
        mistaken(
            "a number of another size",
            ("minimum: u32,", "minimum: u64,"),
            &format!("{parameters} type mismatch for field minimum: expected `u32` found `u64`"),
        ),
        mistaken(
            "a field of another name",
            ("idle-target: u32,\n", "spare-target: u32,\n"),
            &format!("{parameters} expected record field named idle-target, found spare-target"),
        ),
        mistaken(
            "an enum with a case more",
            ("enum pod-state {", "enum pod-state { gone,"),
            &format!(
                "{parameters} type mismatch for field pods: type mismatch for field state: \
                expected enum of 7 names, found 8 names"
            ),
        ),
        mistaken(
            "scale with another result",
            ("scale: func(input: input) -> decision", "scale: func(input: input) -> u32"),
            &format!("{results} expected `record` found `u32`"),
        ),
        mistaken(
            "scale with a parameter more",
            ("scale: func(input: input)", "scale: func(input: input, more: u32)"),
            &format!("{parameters} expected 1-tuple, found 2-tuple"),
        ),
        mistaken(
            "scale under another name",
            ("scale: func(", "size: func("),
            "instance export `stoker:policy/scaling@1.0.0` does not have export `scale`",
        ),
    ]
}

/// Components of the right names that import something more.
fn imports() -> Vec<Case> {
    let importing = |name: &str, import: &str| text(name, &format!("(component {import} {NAMES})"));
    let denied = |name: &str, import: &str, shown: &str| {
        importing(name, import).misfits(&format!("imports {shown}, which no policy gets: build without it"))
    };
    let instance =
        |name: &str| denied(&format!("imports {name}"), &format!(r#"(import "{name}" (instance))"#), name);
    let version = |name: &str, served: &str| {
        importing(&format!("imports {name}"), &format!(r#"(import "{name}" (instance))"#))
            .misfits(&format!("imports {name}, this host serves {served}"))
    };
    let unlike = |name: &str, interface: &str, item: &str, words: &str| {
        importing(name, &format!(r#"(import "{interface}" {item})"#)).misfits(&format!(
            "component imports {} `{interface}`, but a matching implementation was not found in the linker: \
            {words}; build it against the wit/ folder of this release",
            if item == "(func)" { "function" } else { "instance" },
        ))
    };
    let exporting = |name: &str, interface: &str, export: &str, words: &str| {
        unlike(name, interface, &format!("(instance (export {export}))"), words)
    };
    let long = "a".repeat(90_000);
    let thousand: String = (0..1_000).map(|number| format!(r#"(import "i{number}" (instance))"#)).collect();
    let told: String =
        (0..8).map(|number| format!("imports i{number}, which no policy gets: build without it; ")).collect();
    vec![
        instance("wasi:sockets/tcp@0.2.0"),
        instance("wasi:http/outgoing-handler@0.2.0"),
        instance("wasi:keyvalue/store@0.2.0-draft"),
        instance("stoker:policy/secrets@1.0.0"),
        version("wasi:cli/environment@0.3.0", "0.2.x"),
        version("wasi:cli/environment", "0.2.x"),
        version("stoker:policy/log@2.0.0", "1.0.x"),
        denied("imports a function of the host", r#"(import "read-secret" (func))"#, "read-secret"),
        denied(
            "imports a core module",
            r#"(import "env" (core module (import "env" "memory" (memory 1))))"#,
            "env",
        ),
        denied("imports a component", r#"(import "other" (component))"#, "other"),
        denied("imports a type of resource", r#"(import "secret" (type (sub resource)))"#, "secret"),
        denied(
            "imports under a name of 90,000 bytes",
            &format!(r#"(import "{long}" (instance))"#),
            &format!("{}…", &long[..100]),
        ),
        denied("imports under a name that clears the screen", r#"(import "\1b[2J\n" (instance))"#, " [2J "),
        importing("a thousand imports", &thousand).misfits(&format!("{told}and 992 more problems")),
        case("six million imports", six_million()).misfits(&format!(
            "{}and 5999994 more problems",
            "imports a, which no policy gets: build without it; ".repeat(8)
        )),
        unlike(
            "imports a function of a served name",
            "wasi:cli/environment@0.2.0",
            "(func)",
            "expected function found instance",
        ),
        exporting(
            "imports a function more of log",
            "stoker:policy/log@1.0.0",
            r#""read" (func (result string))"#,
            "instance export `read` has the wrong type: function implementation is missing",
        ),
        exporting(
            "imports log with other types",
            "stoker:policy/log@1.0.0",
            r#""write" (func (param "level" u64))"#,
            "instance export `write` has the wrong type: type mismatch with parameters: expected 2-tuple, \
            found 1-tuple",
        ),
        exporting(
            "imports a kind of file that does not exist",
            "wasi:filesystem/types@0.2.0",
            r#""device" (type (sub resource))"#,
            "instance export `device` has the wrong type: resource implementation is missing",
        ),
        importing(
            "imports a function of 90,000 bytes",
            &format!(r#"(import "stoker:policy/log@1.0.0" (instance (export "{long}" (func))))"#),
        )
        .misfits(&format!(
            "{:.1024}…; build it against the wit/ folder of this release",
            format!(
                "component imports instance `stoker:policy/log@1.0.0`, but a matching implementation was not \
                found in the linker: instance export `{long}"
            )
        )),
        importing(
            "imports a compiler's excuse",
            r#"(import "wasi:cli/environment@0.2.0" (instance (export "memory allocation" (func))))"#,
        )
        .not_compiled(
            "failed to parse WebAssembly module: export name `memory allocation` is not a valid extern name \
            `memory allocation` is not in kebab case (at offset 0xb)",
        ),
    ]
}

/// A component that imports the same instance again and again, which is not valid, in 30 MB.
fn six_million() -> Vec<u8> {
    let import = [0, 1, b'a', 5, 0];
    let imports = [number(6_000_000), import.repeat(6_000_000)].concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(10, &imports)].concat()
}

fn nesting() -> Vec<Case> {
    let header = b"\0asm\x0d\0\x01\0".to_vec();
    let nested = |depth| {
        let inner = (1..depth).fold(header.clone(), |inner, _| [header.clone(), section(4, &inner)].concat());
        case(format!("components nested {depth} deep"), with(4, &inner))
    };
    let too_deep = "components are nested more than 16 deep: compose fewer of them";
    vec![
        nested(16),
        nested(17).misfits(too_deep),
        nested(100).misfits(too_deep),
        nested(5_000).misfits(too_deep),
    ]
}

/// A place in what [`with`] adds to a good component.
pub fn place(offset: usize) -> usize {
    Guest::default().bytes().len() + offset
}

/// A good component with one more section.
pub fn with(id: u8, content: &[u8]) -> Vec<u8> {
    [Guest::default().bytes().to_vec(), section(id, content)].concat()
}

/// A good component with one more core module in it, which nothing uses.
pub fn with_module(module: &[u8]) -> Vec<u8> {
    with(1, module)
}

/// A good component with an instance of one more component in it.
pub fn with_component(component: &[u8]) -> Vec<u8> {
    let good = Guest::default().bytes();
    let (mut depth, mut components) = (0, 0);
    for payload in Parser::new(0).parse_all(&good) {
        match payload.unwrap() {
            Payload::ComponentSection { .. } => {
                components += usize::from(depth == 0);
                depth += 1;
            }
            Payload::ModuleSection { .. } => depth += 1,
            Payload::End(_) if depth > 0 => depth -= 1,
            _ => {}
        }
    }
    // One instance: of a component, by its number, without arguments.
    let instance = [&[1, 0], number(components).as_slice(), &[0]].concat();
    [with(4, component), section(5, &instance)].concat()
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
