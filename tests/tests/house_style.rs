//! House style: limits on the length of files, functions and comment lines, and phrases that the
//! project's language does without. CONTRIBUTING.md explains the rules.

use std::fs;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 7] = ["core", "storage", "tls", "runtime-smol", "runtime-threads", "cli", "tests"];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COMMENT_COLUMNS_MAX: usize = 100;
/// The length of a function that is a deliberate bug, up to the place that asks for the mutant.
const MUTANT_LINES_MAX: usize = 12;
/// Documents that a stranger reads first, and their limits.
const DOCUMENT_LINES_MAX: [(&str, usize); 2] = [("README.md", 120), ("ARCHITECTURE.md", 250)];

/// Phrases that read like riddles, in lower case.
const PHRASES: [&str; 15] = [
    "so many",
    "so much",
    "somebody",
    "nobody",
    "everybody",
    "whoever",
    "whom",
    "of its own",
    "of their own",
    "anew",
    "it does not do",
    "to be had",
    "the more,",
    "that is the more",
    "for ever",
];

/// Words that begin a relative clause without an antecedent when they begin a sentence.
const RELATIVE: [&str; 3] = ["Who ", "What ", "Whose "];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn find(folder: &Path, extension: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            find(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path).expect("a source file is text");
            let root = root();
            files.push((path.strip_prefix(&root).unwrap_or(&path).display().to_string(), text));
        }
    }
}

/// All Rust files of the workspace: name and text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        find(&root().join(folder), "rs", &mut files);
    }
    files
}

/// All documents: name and text.
fn documents() -> Vec<(String, String)> {
    let mut files = Vec::new();
    find(&root().join("docs"), "md", &mut files);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md"] {
        let text = fs::read_to_string(root().join(name)).expect("the document is there");
        files.push((name.to_owned(), text));
    }
    files
}

/// The functions that are too long, with their lengths. Relies on rustfmt: a function ends with a
/// closing brace at the indentation of its first line.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indentation = &line[..line.len() - code.len()];
        let before_name = code.split("fn ").next().unwrap_or_default();
        let is_function = code.contains("fn ")
            && before_name.split_whitespace().all(|word| {
                word.starts_with("pub") || ["const", "async", "in"].contains(&word) || word.ends_with(')')
            });
        if !is_function || code.ends_with(';') {
            continue;
        }
        let end = lines[first..].iter().position(|line| *line == format!("{indentation}}}"));
        let length = end.map_or(1, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((code.to_owned(), length));
        }
    }
    found
}

/// The numbers of the comment lines that are too long. Links, tables, and code between fences or
/// backticks cannot be wrapped.
fn long_comments(text: &str) -> Vec<usize> {
    let mut is_fenced = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some(prose) = comment(line) else {
            is_fenced = false;
            continue;
        };
        is_fenced ^= prose.starts_with("```");
        let is_code = is_fenced || prose.starts_with('`') && prose.ends_with('`');
        let is_link = line.contains("://") || line.contains("](") || line.contains("]: ");
        let is_table = prose.starts_with('|');
        if line.chars().count() > COMMENT_COLUMNS_MAX && !is_code && !is_link && !is_table {
            found.push(number + 1);
        }
    }
    found
}

/// The text of a comment line; `None`: the line is code.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']).trim())
}

/// Paragraphs of prose, without fenced code: those of comments, or those of a document.
fn paragraphs(text: &str, is_document: bool) -> Vec<String> {
    let mut paragraphs = vec![String::new()];
    let mut is_fenced = false;
    for line in text.lines() {
        let prose = if is_document { Some(line.trim()) } else { comment(line) };
        let is_fence = prose.is_some_and(|prose| prose.starts_with("```"));
        is_fenced = prose.is_some() && is_fenced ^ is_fence;
        match prose.filter(|prose| !prose.is_empty() && !is_fence && !is_fenced) {
            Some(prose) => {
                let last = paragraphs.last_mut().expect("there is one");
                last.push_str(prose);
                last.push(' ');
            }
            None => paragraphs.push(String::new()),
        }
    }
    paragraphs
}

/// The phrases of a paragraph that read badly.
fn phrases_in(paragraph: &str) -> Vec<String> {
    // Code between backticks and quotations are not the project's own words.
    let prose: String = paragraph.split('`').step_by(2).collect::<Vec<_>>().join("_");
    let prose: String = prose.split('"').step_by(2).collect::<Vec<_>>().join("_");
    let words = format!(" {} ", prose.to_lowercase());
    let is_word_end = |rest: &str| !rest.starts_with(char::is_alphanumeric);
    let occurs = |phrase: &str| {
        words.match_indices(phrase).any(|(at, _)| {
            is_word_end(&words[at + phrase.len()..]) && !words[..at].ends_with(char::is_alphanumeric)
        })
    };
    let mut found: Vec<_> = PHRASES.into_iter().filter(|phrase| occurs(phrase)).map(str::to_owned).collect();
    for sentence in prose.split_inclusive(['.', '?', '!', ':', '|']) {
        let start = sentence.trim_start_matches([' ', '-', '*', '|', '_']);
        if RELATIVE.iter().any(|word| start.starts_with(word)) && !start.ends_with('?') {
            found.push(start.chars().take(60).collect());
        }
    }
    if prose.trim() == "It." {
        found.push("It.".to_owned());
    }
    found
}

#[test]
fn files_functions_and_comment_lines_are_short() {
    let sources = sources();
    assert!(sources.len() > 400, "{} files", sources.len());
    let mut faults = Vec::new();
    for (name, text) in &sources {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{name}: {lines} lines"));
        }
        faults.extend(
            long_functions(text).into_iter().map(|(function, lines)| format!("{name}: {function}: {lines}")),
        );
        faults.extend(long_comments(text).into_iter().map(|line| format!("{name}:{line}: a long comment")));
    }
    for (name, lines_max) in DOCUMENT_LINES_MAX {
        let text = fs::read_to_string(root().join(name)).expect("the document is there");
        let lines = text.lines().count();
        if lines > lines_max {
            faults.push(format!("{name}: {lines} lines"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn comments_and_documents_are_plain_english() {
    let is_document = |(name, text)| (name, text, true);
    let is_source = |(name, text)| (name, text, false);
    let texts = documents().into_iter().map(is_document).chain(sources().into_iter().map(is_source));
    let mut faults = Vec::new();
    for (name, text, is_document) in texts {
        let found = paragraphs(&text, is_document).into_iter().flat_map(|paragraph| phrases_in(&paragraph));
        faults.extend(found.map(|phrase| format!("{name}: {phrase}")));
    }
    assert_eq!(faults, [""; 0], "{} faults", faults.len());
}

/// Rows of the table of Figure 2 in ARCHITECTURE.md: the cells without the rule.
fn figure_2_rows(text: &str) -> Vec<[&str; 2]> {
    let table = text.split("## Figure 2").nth(1).expect("the table is there");
    let rows = table.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        [cells[1], cells[2]]
    })
    .collect()
}

/// The functions that a cell names and its files do not have. A cell is ``file: `name`, `name` ``,
/// as often as needed.
fn missing(cell: &str, folder: &Path) -> Vec<String> {
    let mut text = String::new();
    let mut missing = Vec::new();
    for name in cell.split('`').skip(1).step_by(2) {
        if name.ends_with(".rs") {
            let path = folder.join(name);
            text = fs::read_to_string(&path).unwrap_or_else(|_| {
                missing.push(name.to_owned());
                String::new()
            });
        } else if !text.contains(&format!("fn {name}(")) && !text.contains(&format!("fn {name}<")) {
            missing.push(name.to_owned());
        }
    }
    missing
}

#[test]
fn every_rule_of_figure_2_names_functions_and_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let rows = figure_2_rows(&text);
    assert!(rows.len() >= 18, "{} rows", rows.len());
    let mut faults = Vec::new();
    for [function, test] in rows {
        let module = if function.starts_with("`replica/") { "core/src" } else { "core/src/raft" };
        faults.extend(missing(function, &root().join(module)));
        faults.extend(missing(test, &root().join("tests/tests/raft")));
    }
    assert_eq!(faults, [""; 0]);
}

/// The places of a source text that ask for a mutant in another shape than those of
/// `core/src/mutant.rs`: as the end of a condition, `… || mutant::is_active(…)`,
/// `… && !mutant::is_active(…)` or `… || (… && mutant::is_active(…))`, so that a reader meets the
/// rule first, or in a function whose name ends with `_mutant`.
fn odd_mutants(text: &str) -> Vec<String> {
    const CALL: &str = "mutant::is_active(";
    let is_mutants_function = |before: &str| {
        let function = before.rsplit("fn ").next().unwrap_or_default();
        let name = function.split(['(', '<']).next().unwrap_or_default();
        name.ends_with("_mutant") && function.lines().count() <= MUTANT_LINES_MAX
    };
    let is_suffix = |before: &str, after: &str| {
        let condition = before.trim_end();
        let group = condition.strip_suffix("&&").and_then(|condition| condition.rsplit_once("|| ("));
        let follows_rule = condition.ends_with("||")
            || condition.strip_suffix('!').is_some_and(|condition| condition.trim_end().ends_with("&&"))
            || group.is_some_and(|(_, rule)| !rule.contains([';', '{', '}']));
        let rest = after.split_once(')').map_or("", |(_, rest)| rest.trim_start());
        follows_rule && !rest.starts_with("&&") && !rest.starts_with('.')
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices(CALL) {
        let (before, after) = (&text[..at], &text[at + CALL.len()..]);
        if !is_suffix(before, after) && !is_mutants_function(before) {
            found.push(after.split(')').next().unwrap_or_default().to_owned());
        }
    }
    found
}

#[test]
fn a_mutant_follows_the_rule_that_it_breaks() {
    let sources = sources();
    let code =
        sources.iter().filter(|(name, _)| name.starts_with("core/src") || name.starts_with("storage/src"));
    let odd = code.flat_map(|(name, text)| {
        odd_mutants(text).into_iter().map(move |mutant| format!("{name}: {mutant}"))
    });
    assert_eq!(odd.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_mutant_in_another_shape_is_found() {
    for good in [
        "    let is_own = a == b || mutant::is_active(Mutant::A);",
        "    if a == b && !mutant::is_active(Mutant::A) {",
        "    let agrees = a == b\n        || (is_known && mutant::is_active(Mutant::A));",
        "    is_there\n        .is_none_or(|it| it.fits || mutant::is_active(Mutant::A))",
        "/// One line.\nfn wrong_by_mutant() -> Option<u64> {\n    mutant::is_active(Mutant::A).then_some(1)\n}",
        "fn sort_unless_mutant<T: Ord>(a: &mut [T]) {\n    if !mutant::is_active(Mutant::A) {\n",
    ] {
        assert_eq!(odd_mutants(good), [""; 0], "{good}");
    }
    let long = format!("fn a_by_mutant() {{\n{}    mutant::is_active(Mutant::A)", "    a();\n".repeat(20));
    for bad in [
        "    if mutant::is_active(Mutant::A) {",
        "    if !mutant::is_active(Mutant::A) {",
        "    let is_blind = mutant::is_active(Mutant::A);",
        "    if mutant::is_active(Mutant::A) || a == b {",
        "    if a && !mutant::is_active(Mutant::A) && b {",
        "    if a == b && mutant::is_active(Mutant::A) {",
        "    vote.filter(|_| !mutant::is_active(Mutant::A))",
        "        Some(_) if mutant::is_active(Mutant::A) => true,",
        "fn a_by_mutant() {}\nfn b() {\n    if mutant::is_active(Mutant::A) {",
        &long,
    ] {
        assert_eq!(odd_mutants(bad), ["Mutant::A"], "{bad}");
    }
}

#[test]
fn a_breach_of_the_style_is_found() {
    let body = "    let a = 1;\n".repeat(FUNCTION_LINES_MAX);
    assert_eq!(
        long_functions(&format!("impl A {{\n    pub(super) async fn long() {{\n{body}    }}\n}}\n")).len(),
        1
    );
    assert_eq!(long_functions("fn short() {\n}\n"), []);
    let long = format!("// {}\n", "word ".repeat(COMMENT_COLUMNS_MAX / 5 + 1));
    assert_eq!(long_comments(&format!("{long}// ```text\n{long}// ```\n{long}// short\n")), [1, 5]);
    for bad in ["Waits for nobody.", "What it says.", "A row. Who is first.", "It.", "to whom it belongs"] {
        assert_eq!(phrases_in(bad).len(), 1, "{bad}");
    }
    for good in ["What is it?", "The `nobody` account.", "Renewanew.", "A reader.", "\"so many\" is quoted"] {
        assert_eq!(phrases_in(good), [""; 0], "{good}");
    }
    assert_eq!(paragraphs("/// One\n/// two.\nfn a() {}\n// three\n", false).join("|"), "One two. |three ");
    assert_eq!(paragraphs("one\n```text\nWho\n```\ntwo\n", true).join("|"), "one |||two ");
    assert_eq!(missing("`turn.rs`: `end_turn`", &root().join("core/src/raft")), [""; 0]);
    assert_eq!(missing("`turn.rs`: `begin_turn`", &root().join("core/src/raft")), ["begin_turn"]);
}
