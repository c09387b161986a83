//! A check of the layers of Raft: the tables in the documentation of `core/src/raft/mod.rs` list
//! its files from top to bottom, and the code follows that order.
//!
//! A file imports only from its own layer and from those below, and calls only handlers that stand
//! below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Numbers of the tables. The files of those up to `HANDLERS` define the handlers, which are
/// methods of `Node`; the files of those up to `STATE` may not call one that stands further up.
const HANDLERS: usize = 2;
const STATE: usize = 3;

/// The code of each file, without comments and tests, by its name in the tables. A folder counts as
/// one file.
type Files = BTreeMap<String, String>;

fn read(folder: &Path, name: Option<&str>, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("it is readable").path();
        let stem = path.file_stem().expect("it has a name").to_string_lossy();
        let name = name.unwrap_or(&stem);
        if path.is_dir() {
            read(&path, Some(name), files);
        } else {
            let text = fs::read_to_string(&path).expect("it is a file of text");
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
            let code =
                lines.filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n"));
            files.entry(name.to_owned()).or_default().extend(code);
        }
    }
}

/// Returns the files in the order of the tables, each with the number of its table.
fn order(module: &str) -> Vec<(String, usize)> {
    let (mut order, mut layer) = (Vec::new(), 0);
    for row in module.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        layer += usize::from(row.starts_with("file "));
        let names = row.split(" | ").next().into_iter().filter(|cell| cell.starts_with('`'));
        let names = names.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`').to_owned());
        order.extend(names.map(|name| (name, layer)));
    }
    order
}

/// Returns the imports from a higher layer, and the calls of a method that is defined further up.
fn faults(order: &[(String, usize)], files: &Files) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, (file, layer)) in order.iter().enumerate() {
        for (above, above_layer) in &order[..place] {
            let code = &files[file];
            let imports = [format!("super::{above}::"), format!("raft::{above}::")];
            if above_layer < layer && imports.iter().any(|path| code.contains(path)) {
                faults.push(format!("{file} imports {above}"));
            }
            let methods =
                files[above].lines().filter_map(|line| line.strip_prefix("    ")?.split_once("fn "));
            let methods = methods.filter(|(scope, _)| scope.is_empty() || scope.starts_with("pub"));
            for name in methods.filter_map(|(_, rest)| rest.split(['(', '<']).next()) {
                if *above_layer <= HANDLERS && *layer <= STATE && code.contains(&format!("self.{name}(")) {
                    faults.push(format!("{file} calls {name} of {above}"));
                }
            }
        }
    }
    faults
}

#[test]
fn raft_keeps_to_the_layers_that_its_module_lists() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src/raft");
    let order = order(&fs::read_to_string(folder.join("mod.rs")).expect("the module is there"));
    let mut files = Files::new();
    read(&folder, None, &mut files);
    files.remove("mod");
    let listed: BTreeSet<_> = order.iter().map(|(file, _)| file).collect();
    assert_eq!(listed, files.keys().collect(), "the tables list each file");
    assert_eq!(faults(&order, &files), [""; 0]);
}

/// The check can fail: it finds an import and a call that point upwards.
#[test]
fn an_import_and_a_call_upwards_are_found() {
    let order = order(
        "//! | file | entry |\n//! | file | handlers |\n//! | `a`, `b` | both |\n//! | file | state |\n//! | `c` | it |\n",
    );
    let file = |name: &str, code: &str| (name.to_owned(), code.to_owned());
    let a = file("a", "use super::c::C;\n    pub(super) fn rise(&mut self) {\n        self.fall();\n");
    let b = file("b", "    fn fall(&mut self) {\n        self.rise();\n");
    let files = Files::from([a, b, file("c", "use crate::raft::a::A;\n")]);
    assert_eq!(faults(&order, &files), ["b calls rise of a", "c imports a"]);
}
