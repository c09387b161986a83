//! A check that the runtimes make no decisions: their sources hold no rule about errors,
//! majorities, members or file names. A rule in a runtime would exist twice, once per runtime, and
//! no simulator would test it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Files that exist in only one of the two runtimes, each with the reason.
const ALONE: [(&str, &str); 4] = [
    ("bulk.rs", "the operating system gives threads their turns"),
    ("mailbox.rs", "channels of one thread"),
    ("inbox.rs", "a std channel does not tell how full it is"),
    ("threads.rs", "a thread cannot be dropped"),
];

/// Text that suggests a decision: a rejected request, a majority, the name of a file, the role of a
/// member.
const SIGNS: [&str; 10] = [
    "RequestRefusal::",
    "MessageRefusal::",
    "DialError::Refused",
    ".voters",
    ".is_voter(",
    "quorum",
    "2 * ",
    " / 2 ",
    ".txt\"",
    "\"LOCK\"",
];

/// Returns the code of a file without comments and tests.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line} \n")).collect()
}

fn signs_in(code: &str) -> Vec<&'static str> {
    SIGNS.into_iter().filter(|sign| code.contains(sign)).collect()
}

fn sources(runtime: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(runtime).join("src");
    let entries = fs::read_dir(folder).expect("the folder is there");
    let entries = entries.map(|entry| entry.expect("it is readable"));
    let file = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).expect("it is a file of text");
        (entry.file_name().to_string_lossy().into_owned(), text)
    };
    entries.filter(|entry| entry.path().is_file()).map(file).collect()
}

/// The claim of ARCHITECTURE.md: runtimes carry bytes, messages and time, and decide nothing.
#[test]
fn the_runtimes_decide_nothing() {
    for runtime in ["runtime-smol", "runtime-threads"] {
        for (file, text) in sources(runtime) {
            let code = code(&text);
            // The size of a buffer is not a majority.
            let code = code.replace("2 * CLIENT_WRITE_BYTES", "");
            assert_eq!(signs_in(&code), [""; 0], "{runtime}/src/{file} decides something");
        }
    }
}

/// The check can fail: it finds a majority, a rejection and a file name.
#[test]
fn a_decision_is_found() {
    let majority = code("let lost = 2 * (nodes - stopped) <= nodes; // a majority\n");
    assert_eq!(signs_in(&majority), ["2 * "]);
    let refusal = code("Err(refused) => Answer::Refused(RequestRefusal::Overloaded),\n");
    assert_eq!(signs_in(&refusal), ["RequestRefusal::"]);
    let name = code("let path = folder.join(format!(\"log{node:02}.txt\"));\n");
    assert_eq!(signs_in(&name), [".txt\""]);
    assert_eq!(signs_in(&code("// 2 * f + 1 voters\n#[cfg(test)]\nRefused::NotVoter\n")), [""; 0]);
}

/// The claim of ARCHITECTURE.md: core and storage know nothing of TLS, and TLS nothing of sockets,
/// files and of the other crates.
#[test]
fn tls_is_a_layer_apart() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = |crate_folder: &str| {
        fs::read_to_string(root.join(crate_folder).join("Cargo.toml")).expect("the crate has a manifest")
    };
    for crate_folder in ["core", "storage"] {
        let text = manifest(crate_folder);
        assert!(!["tls", "ring", "x509", "rcgen"].iter().any(|name| text.contains(name)), "{crate_folder}");
    }
    assert!(!manifest("tls").contains("coracle-core") && !manifest("tls").contains("coracle-storage"));
    let sources = sources("tls").into_iter().map(|(file, text)| (file, code(&text)));
    for (file, code) in sources.filter(|(file, _)| file != "testing.rs") {
        let io = ["std::fs", "TcpStream", "std::thread", "SystemTime::now", "Instant::now", "env::"];
        assert!(!io.iter().any(|sign| code.contains(sign)), "tls/src/{file} does I/O");
    }
    let chooses = |folder: &str| sources_with(folder, "crypto::ring");
    let choices: Vec<_> =
        ["tls", "runtime-smol", "runtime-threads", "cli"].into_iter().flat_map(chooses).collect();
    assert_eq!(choices, ["provider.rs"], "the cryptography is chosen in one place");
}

/// Returns the files of a crate that contain this text.
fn sources_with(crate_folder: &str, text: &str) -> Vec<String> {
    let found = sources(crate_folder).into_iter().filter(|(_, source)| code(source).contains(text));
    found.map(|(file, _)| file).collect()
}

/// Both runtimes have the same files, so that a diff of their folders shows only sockets, tasks or
/// threads, and timers.
#[test]
fn the_runtimes_have_the_same_files() {
    let names = |runtime| sources(runtime).into_iter().map(|(file, _)| file).collect::<BTreeSet<_>>();
    let (smol, threads) = (names("runtime-smol"), names("runtime-threads"));
    let alone: BTreeSet<_> = ALONE.map(|(file, _)| file.to_owned()).into();
    assert_eq!(smol.symmetric_difference(&threads).cloned().collect::<BTreeSet<_>>(), alone);
}
