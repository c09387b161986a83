//! Checks of the links in the documents: each relative link names an existing file and heading, and
//! each term of the glossary names the file that implements it.
//!
//! Links to other sites are deliberately not checked: a test that needs the network fails for
//! reasons outside of this project.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const GLOSSARY: &str = "docs/glossary.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// All documents: those at the root, in `docs` and in `docs/clients`, and that of the tests.
fn documents() -> Vec<String> {
    let mut documents = vec!["tests/README.md".to_owned()];
    for folder in ["", "docs/", "docs/clients/"] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        let names = entries.map(|entry| entry.expect("it is readable").file_name());
        let names = names.map(|name| name.into_string().expect("a name is text"));
        documents.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}{name}")));
    }
    documents
}

/// Returns the text without fenced blocks and code between backticks, because neither holds links.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            prose.extend(line.split('`').step_by(2));
        }
        prose.push('\n');
    }
    prose
}

/// Returns the targets of the links and images.
fn targets(text: &str) -> Vec<String> {
    let prose = prose(text);
    let rests = prose.split("](").skip(1);
    rests.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// Returns the anchor that a Markdown renderer gives a heading: lower case, no punctuation, hyphens
/// for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_fenced = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        is_fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if !is_fenced && heading.len() < line.len() && heading.starts_with(' ') {
            anchors.insert(anchor(heading.trim()));
        }
    }
    anchors
}

/// Returns the fault of a link in this document: a missing file or heading.
fn fault(document: &str, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(document).parent().expect("a document is in a folder").to_owned();
    let file = folder.join(path);
    if !path.is_empty() && !file.exists() {
        return Some(format!("{document}: no file {path}"));
    }
    let linked = if path.is_empty() { text.to_owned() } else { fs::read_to_string(file).unwrap_or_default() };
    let is_known = heading.is_empty() || anchors(&linked).contains(heading);
    (!is_known).then(|| format!("{document}: no heading {target}"))
}

fn faults(document: &str, text: &str) -> Vec<String> {
    targets(text).iter().filter_map(|target| fault(document, text, target)).collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    assert!(documents.len() >= 7, "{documents:?}");
    let links: usize = documents.iter().map(|document| targets(&read(document)).len()).sum();
    assert!(links > 50, "{links} links");
    let faults: Vec<_> = documents.iter().flat_map(|document| faults(document, &read(document))).collect();
    assert_eq!(faults, [""; 0]);
}

#[test]
fn the_table_of_contents_lists_every_document() {
    let listed: BTreeSet<_> = targets(&read("docs/SUMMARY.md")).into_iter().collect();
    let entries = fs::read_dir(root().join("docs")).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("it is readable").file_name());
    let names = names.map(|name| name.into_string().expect("a name is text"));
    let documents: BTreeSet<_> = names.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect();
    assert_eq!(listed, documents);
}

/// The plot of the README shows figures of docs/performance.md, each bar as long as its figure.
#[test]
fn the_plot_of_the_comparison_shows_what_was_measured() {
    let measured = read("docs/performance.md");
    let plot = read("docs/plots/compared.svg");
    let bars: Vec<_> = plot.lines().filter(|line| line.contains("height=\"14\"")).collect();
    assert!(bars.len() >= 7, "{} bars", bars.len());
    for bar in bars {
        let between =
            |start, end| bar.split_once(start).and_then(|(_, rest)| rest.split_once(end)).expect(bar).0;
        let figure = between("class=\"n\"", "</text>").rsplit('>').next().expect("a figure follows");
        assert!(measured.contains(&format!("| {figure} (")), "{figure} was not measured");
        let requests: f64 = figure.replace(',', "").parse().expect(figure);
        let width: f64 = between("width=\"", "\"").parse().expect(bar);
        assert!((requests / width - 80_000.0 / 560.0).abs() < 5.0, "{figure}: {width}");
    }
}

/// The workflow checks the toolchain that Cargo.toml promises to work with.
#[test]
fn the_oldest_toolchain_is_the_one_that_is_checked() {
    let manifest = read("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let version = line.expect("Cargo.toml names a version").trim_matches('"');
    let workflow = read(".github/workflows/ci.yml");
    assert!(workflow.contains(&format!("rustup toolchain install {version} ")), "{version}");
    assert!(read("README.md").contains(&format!("Rust {version}")), "{version}");
}

/// The rows of the glossary: term, sentence, place.
fn terms(glossary: &str) -> Vec<[&str; 3]> {
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| **")?.strip_suffix(" |"));
    rows.map(|row| {
        let (term, rest) = row.split_once("** | ").expect("a term is bold, and a sentence follows");
        let (sentence, place) = rest.rsplit_once(" | ").expect("a place follows the sentence");
        [term, sentence, place]
    })
    .collect()
}

/// Returns the term of a faulty row, which has more than one sentence or no link to a file.
fn row_fault([term, sentence, place]: [&str; 3]) -> Option<String> {
    // "Fig. 2" does not end a sentence.
    let ends_early = sentence.split(". ").skip(1).any(|rest| rest.starts_with(char::is_uppercase));
    let is_one_sentence = sentence.ends_with('.') && !ends_early;
    let is_placed = !targets(place).is_empty();
    (!is_one_sentence || !is_placed).then(|| term.to_owned())
}

#[test]
fn the_glossary_is_alphabetical_and_each_term_has_a_sentence_and_a_place() {
    let glossary = read(GLOSSARY);
    let terms = terms(&glossary);
    assert!(terms.len() >= 50, "{} terms", terms.len());
    let names: Vec<_> = terms.iter().map(|[term, ..]| term.to_lowercase()).collect();
    assert!(names.is_sorted(), "the terms are in alphabetical order: {names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a term stands once");
    let faults: Vec<_> = terms.into_iter().filter_map(row_fault).collect();
    assert_eq!(faults, [""; 0]);
}

/// The checks can fail: they find broken links and faulty rows.
#[test]
fn a_broken_link_is_found() {
    let text = "# A title\n\n## Two words, one comma\n```text\n# no heading\n[no](link)\n```\n`[no](code)`\n";
    assert_eq!(targets(text), [""; 0]);
    assert_eq!(anchors(text), BTreeSet::from(["a-title".to_owned(), "two-words-one-comma".to_owned()]));
    let good = format!("{text}[a](../README.md) [b](#a-title) [c](https://example.org/x)");
    assert_eq!(faults("docs/x.md", &good), [""; 0]);
    let bad = format!("{text}![a](../missing.svg) [b](#missing) [c](../README.md#missing)");
    assert_eq!(faults("docs/x.md", &bad).len(), 3);
    let row = |sentence, place| row_fault(["term", sentence, place]);
    assert_eq!(row("A sentence.", "[a](b.rs)"), None);
    assert!(row("Two. Sentences.", "[a](b.rs)").is_some());
    assert!(row("A sentence.", "`b.rs`").is_some());
}
